"""Model processes that die, hang and cannot start, in real processes with a fake model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from service.fake_models import spec
from service.running import Running, grey, score_of

from winspect.errors import DeviceError, WeightsMissingError
from winspect.service.contract import NotReady

TESTS = Path(__file__).parents[1]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended but was not waited for is still listed.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def wait_until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_a_killed_process_is_not_ready_for_what_it_had_and_comes_back_with_its_references(tmp_path):
    with Running(tmp_path, spec(seconds=0.02)) as own:
        own.ask(own.backend.set_references("part", [("a.png", grey(51))]))
        first = own.model_pid
        outcomes = []

        def caller(level):
            try:
                outcomes.append(own.predict(grey(level)).result.anomaly_score == pytest.approx(score_of(level, [51])))
            except NotReady as error:
                outcomes.append(type(error).__name__)
                assert "ended" in str(error) or "started again" in str(error)

        callers = [threading.Thread(target=caller, args=(level,)) for level in range(60)]
        for thread in callers:
            thread.start()
        time.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        for thread in callers:
            thread.join(30)
        assert len(outcomes) == 60 and set(outcomes) <= {True, "NotReady"} and "NotReady" in outcomes
        own.until(lambda backend: backend.status.state == "ready" and backend.status.restarts == 1)
        judged = own.predict(grey(102))
        assert judged.result.anomaly_score == pytest.approx(score_of(102, [51]))
        assert judged.shots == 1
        assert own.model_pid != first


def test_while_it_is_started_again_the_answer_is_not_ready(tmp_path):
    with Running(tmp_path, spec(), backoff_s=1.0) as own:
        os.kill(own.model_pid, signal.SIGKILL)
        own.until(lambda backend: backend.status.state == "unavailable")
        began = time.monotonic()
        for ask in (
            lambda: own.predict(grey(5)),
            lambda: own.ask(own.backend.set_references("part", [("a.png", grey(5))])),
            lambda: own.ask(own.backend.start_calibration("part", 0.1)),
        ):
            with pytest.raises(NotReady, match="started again") as refused:
                ask()
            assert refused.value.retry_after_s > 0
        assert time.monotonic() - began < 0.5
        assert own.ask(own.backend.info())["model"] == "fake", "what ran last is still known"


def test_a_picture_that_kills_the_process_is_not_tried_again(tmp_path):
    log = tmp_path / "log"
    with Running(tmp_path, spec(log=str(log))) as own:
        with pytest.raises(NotReady, match="ended by SIGKILL"):
            own.predict(grey(5), "dies")
        own.until(lambda backend: backend.status.state == "ready")
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
        time.sleep(0.3)
        assert own.backend.status.restarts == 1 and log.read_text().count("load") == 2


def test_a_process_that_hangs_is_ended_and_started_again(tmp_path):
    with Running(tmp_path, spec(), hang_s=0.5) as own:
        began = time.monotonic()
        with pytest.raises(NotReady, match="no answer for"):
            own.predict(grey(5), "hangs")
        assert time.monotonic() - began < 5
        own.until(lambda backend: backend.status.state == "ready")
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)


def test_a_stopped_process_is_ended_and_started_again(tmp_path):
    """SIGSTOP: alive, its pipe open, and deaf. Pictures larger than the pipe must not block the event loop."""
    with Running(tmp_path, spec(), hang_s=0.5) as own:
        first = own.model_pid
        os.kill(first, signal.SIGSTOP)
        large = bytes(3_000_000)
        answers = own.together([(large, "part", {})] * 5)
        assert all(isinstance(one, NotReady) for one in answers)
        own.until(lambda backend: backend.status.state == "ready")
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
        assert not is_alive(first)


def test_an_idle_process_is_not_taken_for_a_hanging_one(tmp_path):
    with Running(tmp_path, spec(), hang_s=0.2) as own:
        time.sleep(1.0)
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
        assert own.backend.status.restarts == 0


@pytest.mark.parametrize(("what", "error"), [("missing", WeightsMissingError), ("device", DeviceError)])
def test_a_model_that_cannot_be_loaded_says_why_and_is_tried_again(tmp_path, what, error):
    broken = tmp_path / "broken"
    broken.write_text(what)
    with Running(tmp_path, spec(broken=str(broken)), wait=False) as own:
        with pytest.raises(error, match=f"the fake is {what}"):
            own.ask(own.backend.wait_ready())
        assert own.backend.status.state == "unavailable"
        broken.unlink()
        own.until(lambda backend: backend.status.state == "ready")
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)


def test_a_process_that_dies_while_loading(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("dies")
    with Running(tmp_path, spec(broken=str(broken)), wait=False) as own:
        with pytest.raises(NotReady, match="exit code 7"):
            own.ask(own.backend.wait_ready())
        broken.unlink()
        own.until(lambda backend: backend.status.state == "ready")


def test_a_process_that_hangs_while_loading(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("hangs")
    with Running(tmp_path, spec(broken=str(broken)), wait=False, load_s=1.5, hang_s=0.4) as own:
        assert own.backend.status.state == "loading"
        with pytest.raises(NotReady, match="no answer for"):
            own.ask(own.backend.wait_ready())
        broken.unlink()
        own.until(lambda backend: backend.status.state == "ready")


def test_waiting_between_starts_grows_up_to_its_limit(tmp_path):
    broken, log = tmp_path / "broken", tmp_path / "log"
    broken.write_text("device")
    with Running(tmp_path, spec(broken=str(broken), log=str(log)), wait=False, backoff_s=0.4, most_backoff_s=60) as own:
        time.sleep(4.0)
        # at 0, about 0.4, 1.2 and 2.8 s, and the time of starting each
        assert 1 <= own.backend.status.restarts <= 4


def test_ending_while_it_is_loading_leaves_no_process(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("hangs")
    own = Running(tmp_path, spec(broken=str(broken)), wait=False)
    with own:
        wait_until(lambda: own.model_pid is not None)
        pid = own.model_pid
        began = time.monotonic()
    assert time.monotonic() - began < 3
    wait_until(lambda: not is_alive(pid))


def test_one_process_per_device(tmp_path):
    with Running(tmp_path, spec(devices=("left", "right"), seconds=0.02), max_batch=1) as own:
        own.until(lambda backend: len(backend.fleet.lanes) == 2)
        own.ask(own.backend.set_references("part", [("a.png", grey(51))]))
        answers = own.together((grey(level), "part", {}) for level in range(40))
        assert [one.result.anomaly_score for one in answers] == pytest.approx([score_of(n, [51]) for n in range(40)])
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(20)]))
        own.ask(own.backend.start_calibration("part", 0.1))
        own.until(lambda backend: own.ask(backend.calibration("part")).state != "running")
        first = own.model_pid
        os.kill(first, signal.SIGKILL)
        own.until(lambda backend: len(backend.fleet.lanes) == 1)
        assert own.backend.status.state == "ready"
        assert own.predict(grey(102)).shots == 1, "the other one goes on"
        own.until(lambda backend: len(backend.fleet.lanes) == 2)
        answers = own.together((grey(level), "part", {}) for level in range(40))
        assert [one.result.anomaly_score for one in answers] == pytest.approx([score_of(n, [51]) for n in range(40)])
        assert all(one.judgement.p_value is not None for one in answers), "all know the same set of references"


def test_ctrl_c_and_a_polite_kill_reach_the_parent_alone(tmp_path):
    with Running(tmp_path, spec()) as own:
        for one in (signal.SIGINT, signal.SIGTERM):
            os.kill(own.model_pid, one)
        time.sleep(0.2)
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
        assert own.backend.status.restarts == 0


PARENT = """
import asyncio, sys, time
from pathlib import Path
from winspect.service.backend import Backend
from winspect.service.contract import Question
from winspect.service.settings import ServiceSettings
from service.fake_models import spec

async def main():
    backend = Backend(ServiceSettings(Path(sys.argv[1])), spec())
    await backend.start()
    await backend.wait_ready()
    print(backend.fleet.processes[0].pid, flush=True)
    if sys.argv[2] == "busy":
        asyncio.ensure_future(
            backend.predict(Question("a", b"", "hangs", time.monotonic() + 1000))
        )
    if sys.argv[2] != "ends":
        await asyncio.sleep(1000)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["idle", "busy", "ends"])
def test_a_process_does_not_outlive_its_parent(tmp_path, what):
    """Killed where it stands, or ended without draining: the parent's end, too, must come."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, str(script), str(tmp_path / "data"), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        if what != "ends":
            assert is_alive(pid)
            time.sleep(0.2)
            parent.kill()
        parent.wait(20)
    wait_until(lambda: not is_alive(pid))
