"""What the HTTP layer is promised, with a fake model in a real process of its own."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service.fake_models import spec
from service.running import Running, grey, png, score_of

from winspect.calibration import Calibration
from winspect.errors import ClassNameError, OutputError, PictureError, ReferencesError, SettingsError
from winspect.service.backend import Backend
from winspect.service.contract import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    Question,
    ServiceError,
    StoreFull,
    UnknownClass,
    class_key,
    clean_name,
)
from winspect.service.settings import ServiceSettings

NOISE = png(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for the tests that do it no harm; each uses classes of its own."""
    with Running(tmp_path_factory.mktemp("data"), spec(), overlay_side=20, max_pixels=10_000, max_references=4) as own:
        yield own


# -- judging


def test_a_picture_is_judged(service):
    judged = service.predict(grey(102))
    assert judged.result.anomaly_score == pytest.approx(0.2)
    assert (judged.result.path, judged.result.category_name) == ("part.png", "part")
    assert judged.result.size_wh == (16, 12)
    assert judged.result.anomaly_map.shape == (12, 16)
    assert judged.result.picture_rgb is None
    assert (judged.judgement.verdict, judged.overlay_png, judged.shots, judged.batch_size) == (None, None, 0, 1)
    assert 0 <= judged.queue_seconds < 5 and 0 <= judged.compute_seconds < 5


def test_an_array_is_judged_as_its_file(service):
    array = np.full((12, 16, 3), 102, np.uint8)
    assert service.predict(array).result.anomaly_score == service.predict(png(array)).result.anomaly_score


def test_an_overlay_has_the_picture_s_shape_at_most_at_the_size_allowed(service):
    overlay = service.predict(grey(50, (60, 30)), overlay=True).overlay_png
    assert Image.open(io.BytesIO(overlay)).size == (20, 10)
    assert Image.open(io.BytesIO(service.predict(grey(50, (16, 12)), overlay=True).overlay_png)).size == (16, 12)


def test_an_overlay_says_what_is_decided(tmp_path):
    """By the request's threshold, else by the calibration's."""
    picture = grey(119, (400, 300))
    with Running(tmp_path, spec()) as own:
        without, normal, anomalous = (
            own.predict(picture, overlay=True, threshold=threshold).overlay_png for threshold in (None, 0.9, 0.0)
        )
        assert len({without, normal, anomalous}) == 3
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(100, 119)]))
        calibrated(own, "part", 0.1)
        answer = own.predict(picture, overlay=True)
        assert answer.judgement.verdict == "anomalous"
        assert answer.overlay_png not in (without, normal)


def test_many_at_once_each_gets_its_own(service):
    levels = [n % 256 for n in range(60)]
    answers = service.together((grey(level), "part", {"overlay": level % 7 == 0}) for level in levels)
    assert [one.result.anomaly_score for one in answers] == pytest.approx([score_of(level) for level in levels])
    assert [one.overlay_png is not None for one in answers] == [level % 7 == 0 for level in levels]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"hello", "not a picture"),
        (NOISE[: len(NOISE) // 2], "truncated"),
        (grey(5, (4, 4)), "need at least 8"),
        (grey(5, (200, 100)), "the limit is 0.0"),
    ],
)
def test_a_bad_picture_is_its_own_error(service, content, message):
    with pytest.raises(PictureError, match=message) as refused:
        service.predict(content, name="x.png")
    assert str(refused.value).startswith("x.png: ")
    assert service.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)


def test_bad_pictures_do_not_touch_those_beside_them(service):
    asked = [(grey(n) if n % 3 else b"bad", "part", {}) for n in range(30)]
    for number, answer in enumerate(service.together(asked)):
        if number % 3:
            assert answer.result.anomaly_score == pytest.approx(score_of(number))
        else:
            assert isinstance(answer, PictureError)


def test_one_picture_that_fails_in_the_model_fails_alone_and_says_nothing_of_the_machine(service):
    answers = service.together((grey(level), "picky", {}) for level in (200, 10, 220, 230))
    assert [type(one).__name__ for one in answers] == ["Answer", "ServiceError", "Answer", "Answer"]
    assert "secret" not in str(answers[1]) and "log says why" in str(answers[1])
    assert isinstance(answers[1], ServiceError)


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\\b", "..", "", "x" * 101, "{}", "two\nlines", "a\0b"])
def test_names_that_are_no_class(service, name):
    with pytest.raises(ClassNameError):
        service.predict(grey(5), name)
    for method in ("references", "class_info", "delete_references", "calibration"):
        with pytest.raises(ClassNameError):
            service.ask(getattr(service.backend, method)(name))


def test_a_class_is_one_however_it_is_spelt():
    assert class_key(" pipe_fryum ") == class_key("pipe  fryum") == "pipe fryum"


def test_names_of_files():
    assert clean_name("C:\\fotos\\teil ü.jpg") == "teil ü.jpg"
    assert clean_name("/etc/passwd") == "passwd"
    assert clean_name("a\x1b[31m\r\nb\u202e.png") == "a[31mb.png"
    assert clean_name("x" * 999) == "x" * 100
    assert clean_name("../..//") == clean_name("  ") == "picture"


def test_what_a_closed_service_says(tmp_path):
    backend = Backend(ServiceSettings(tmp_path), spec())

    async def ask():
        with pytest.raises(NotReady, match="loading"):
            await backend.predict(Question("a", grey(1), "part", time.monotonic() + 1))
        with pytest.raises(NotReady):
            await backend.info()
        with pytest.raises(NotReady):
            await backend.wait_ready()
        assert backend.status.state == "loading"
        await backend.drain(1)
        assert backend.status.state == "draining"
        with pytest.raises(NotReady, match="ending"):
            await backend.predict(Question("a", grey(1), "part", time.monotonic() + 1))

    asyncio.run(ask())


def test_it_says_what_runs(service):
    info = service.ask(service.backend.info())
    assert (info["model"], info["precision"]) == ("fake", "fp32")


# -- limits


def test_only_the_classes_of_the_settings_are_served(tmp_path):
    log = tmp_path / "log"
    with Running(tmp_path, spec(log=str(log)), classes=("metal_nut", "pill")) as own:
        assert own.predict(grey(102), "metal nut").result.category_name == "metal nut"
        with pytest.raises(UnknownClass, match="'screw' is not served here; served are metal nut, pill"):
            own.predict(grey(5), "screw")
        assert [one.category_name for one in own.ask(own.backend.classes())] == ["metal nut", "pill"]
    assert "class metal nut" in log.read_text() and "class pill" in log.read_text(), "warmed up before it was ready"


def test_new_class_names_lock_nobody_out(tmp_path):
    log = tmp_path / "log"
    with Running(tmp_path, spec(log=str(log)), max_classes=3) as own:
        own.ask(own.backend.set_references("stored", [("r.png", grey(60))]))
        for number in range(20):
            with pytest.raises(PictureError):
                own.predict(b"no picture", f"refused {number}")
        for name in ("a", "object", "stored", "b", "c", "a", "d", "stored", "e", "object"):
            own.predict(grey(5), name)
        dropped = [line.split(" ", 2)[2] for line in log.read_text().splitlines() if " drop " in line]
        assert dropped == ["b", "c"], "those not asked for longest; none for a refused request"
        assert own.predict(grey(102), "b").result.anomaly_score == pytest.approx(0.2)
        assert own.predict(grey(102), "stored").shots == 1
        assert own.ask(own.backend.class_info("d")).shots == 0, "looking is free"


def test_the_number_of_stored_classes_is_bounded(tmp_path):
    with Running(tmp_path, spec(), max_classes=2) as own:
        own.ask(own.backend.set_references("a", [("r.png", grey(60))]))
        own.ask(own.backend.add_good("b", [("r.png", grey(60))]))
        for change in (own.backend.set_references, own.backend.add_good):
            with pytest.raises(StoreFull, match="2 classes are stored, which is the most"):
                own.ask(change("c", [("r.png", grey(60))]))
        own.ask(own.backend.add_good("a", [("s.png", grey(61))]))
        own.predict(grey(5), "c")
        own.ask(own.backend.delete_good("b"))
        own.ask(own.backend.set_references("c", [("r.png", grey(60))]))


def test_a_stopped_model_is_not_ready_within_seconds(tmp_path):
    with Running(tmp_path, spec()) as own:
        pid = own.model_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            own.until(lambda backend: backend.status.state == "unavailable")
            assert time.monotonic() - began < 10  # 4 s on a quiet machine
            with pytest.raises(NotReady, match="the model does not answer"):
                own.predict(grey(5))
        finally:
            os.kill(pid, signal.SIGCONT)
        own.until(lambda backend: backend.status.state == "ready")
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
        assert own.backend.status.restarts == 0


def test_an_idle_model_that_stays_stopped_is_started_again(tmp_path):
    with Running(tmp_path, spec(), hang_s=1.0) as own:
        os.kill(own.model_pid, signal.SIGSTOP)
        own.until(lambda backend: backend.status.restarts == 1 and backend.status.state == "ready")
        assert own.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)


def test_overload_is_refused_at_once(tmp_path):
    with Running(tmp_path, spec(seconds=0.05), max_queue=4) as own:
        began = time.monotonic()
        answers = own.together((grey(n % 256), "part", {}) for n in range(500))
        seconds = time.monotonic() - began
        refused = [one for one in answers if isinstance(one, Overloaded)]
        assert len(refused) > 400 and all(one.retry_after_s > 0 for one in refused)
        for number, one in enumerate(answers):
            if not isinstance(one, Overloaded):
                assert one.result.anomaly_score == pytest.approx(score_of(number % 256))
        assert seconds < 10
        assert (own.backend.status.queued, own.backend.status.in_flight) == (0, 0)


def test_deadlines(service):
    with pytest.raises(DeadlineExceeded):
        service.predict(grey(5), "slow", within=0.1)
    with pytest.raises(DeadlineExceeded):
        service.predict(grey(5), within=-1)
    assert service.predict(grey(102), within=10).result.anomaly_score == pytest.approx(0.2)


def test_a_caller_that_goes_away(service):
    async def leave():
        task = asyncio.ensure_future(service.backend.predict(Question("a", grey(5), "slow", time.monotonic() + 20)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    service.ask(leave())
    assert service.predict(grey(102)).result.anomaly_score == pytest.approx(0.2)
    service.until(lambda backend: backend.status.in_flight == 0)


def test_what_is_queued_is_answered_when_the_service_ends(tmp_path):
    own = Running(tmp_path, spec(seconds=0.3))
    with own:
        asked = [threading.Thread(target=lambda n=n: scores.append(own.predict(grey(n)))) for n in range(6)]
        scores = []
        for thread in asked:
            thread.start()
        own.until(lambda backend: backend.status.in_flight + backend.status.queued == 6)
    for thread in asked:
        thread.join()
    assert sorted(one.result.anomaly_score for one in scores) == pytest.approx([score_of(n) for n in range(6)])


# -- references


def test_references_are_shown_added_and_deleted(service):
    info = service.ask(service.backend.set_references("nut", [("a.png", grey(51)), ("b.png", grey(102))]))
    assert (info.category_name, info.shots) == ("nut", 2)
    assert service.predict(grey(102), "nut").result.anomaly_score == pytest.approx(score_of(102, [51, 102]))
    assert service.predict(grey(102), "nut").shots == 2
    info = service.ask(service.backend.set_references("nut", [("c.png", grey(153))], add=True))
    assert info.shots == 3
    assert service.predict(grey(102), "nut").result.anomaly_score == pytest.approx(score_of(102, [51, 102, 153]))
    stored = service.ask(service.backend.references("nut"))
    assert [(one.name, one.size) for one in stored] == [
        ("a.png", len(grey(51))),
        ("b.png", len(grey(102))),
        ("c.png", len(grey(153))),
    ]
    service.ask(service.backend.set_references("nut", [("d.png", grey(204))]))
    assert service.predict(grey(102), "nut").result.anomaly_score == pytest.approx(score_of(102, [204]))
    assert service.predict(grey(102), "nut", zero_shot=True).result.anomaly_score == pytest.approx(score_of(102))
    assert service.predict(grey(102), "bolt").result.anomaly_score == pytest.approx(score_of(102))
    service.ask(service.backend.delete_references("nut"))
    assert service.predict(grey(102), "nut").result.anomaly_score == pytest.approx(score_of(102))
    with pytest.raises(UnknownClass, match="no references"):
        service.ask(service.backend.delete_references("nut"))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "need at least one"),
        ([("a.png", grey(5)), ("bad.png", b"bad")], r"cannot use a reference picture: bad\.png: not a picture"),
        ([("a.png", grey(n)) for n in range(5)], "got 5 reference pictures, at most 4"),
    ],
)
def test_references_that_cannot_be_used_change_nothing(service, pictures, message):
    service.ask(service.backend.set_references("kept", [("a.png", grey(51))]))
    with pytest.raises(ReferencesError, match=message):
        service.ask(service.backend.set_references("kept", pictures))
    assert service.predict(grey(102), "kept").result.anomaly_score == pytest.approx(score_of(102, [51]))
    assert service.ask(service.backend.class_info("kept")).shots == 1


def test_references_that_the_model_refuses_are_not_stored(service):
    with pytest.raises(ReferencesError, match="does not want them"):
        service.ask(service.backend.set_references("refuses references", [("a.png", grey(51))]))
    assert service.ask(service.backend.references("refuses references")) == []
    assert service.predict(grey(102), "refuses references").shots == 0


def test_a_full_disk_leaves_the_references_as_they_were(service):
    service.ask(service.backend.set_references("disk", [("a.png", grey(51))]))
    run = service.backend.store._connection.execute
    (pages,) = run("PRAGMA page_count").fetchone()
    noise = png(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    run(f"PRAGMA max_page_count = {pages + 1}")
    try:
        for change in ("set_references", "add_good"):
            with pytest.raises(OutputError, match="disk is full"):
                service.ask(getattr(service.backend, change)("disk", [("noise.png", noise)]))
    finally:
        run("PRAGMA max_page_count = 1000000")
    assert service.predict(grey(102), "disk").result.anomaly_score == pytest.approx(score_of(102, [51]))
    assert service.ask(service.backend.class_info("disk")).good_pictures == 0
    service.ask(service.backend.set_references("disk", [("noise.png", noise)]))


def test_references_change_under_running_predictions(service):
    """Each prediction is judged with one whole set, and after the answer with the new one."""
    sets = [[51, 102], [150], [204, 20, 30], []]

    async def scene():
        outcomes, done = [], False

        async def caller():
            while not done:
                outcomes.append(await ask())

        async def ask():
            deadline = time.monotonic() + 20
            return await service.backend.predict(Question("a", grey(102), "moving", deadline))

        callers = [asyncio.ensure_future(caller()) for _ in range(8)]
        after = []
        for number in range(12):
            levels = sets[number % len(sets)]
            if levels:
                pictures = [(f"{level}.png", grey(level)) for level in levels]
                await service.backend.set_references("moving", pictures)
            else:
                await service.backend.delete_references("moving")
            after.append((levels, await ask()))
            await asyncio.sleep(0.02)
        done = True
        await asyncio.gather(*callers)
        return outcomes, after

    outcomes, after = service.ask(scene())
    for levels, judged in after:
        assert judged.result.anomaly_score == pytest.approx(score_of(102, levels)), "the new ones, after the answer"
        assert judged.shots == len(levels)
    known = {round(score_of(102, levels), 6): len(levels) for levels in sets}
    for judged in outcomes:
        assert known[round(judged.result.anomaly_score, 6)] == judged.shots, "one whole set"
    assert len({judged.shots for judged in outcomes}) >= 3


def test_a_client_that_hangs_up_does_not_leave_half_a_change(service):
    async def scene():
        for number in range(20):
            level = 5 * number + 5
            task = asyncio.ensure_future(service.backend.set_references("half", [("a.png", grey(level))]))
            await asyncio.sleep(0.002 * (number % 7))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with service.backend.fleet.changing:  # the last change is through
            pass

    service.ask(scene())
    stored = service.ask(service.backend.references("half"))
    levels = [5 * n + 5 for n in range(20) if stored and stored[0].size and stored[0].sha256 == sha(grey(5 * n + 5))]
    assert service.predict(grey(102), "half").result.anomaly_score == pytest.approx(score_of(102, levels))


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_references_and_calibrations_outlive_a_restart(tmp_path):
    log = tmp_path / "log"
    with Running(tmp_path, spec()) as own:
        own.ask(own.backend.set_references("nut", [("a.png", grey(51))]))
        own.ask(own.backend.add_good("nut", [(f"{n}.png", grey(n)) for n in range(60, 80)]))
        calibrated(own, "nut", 0.1)
        before = own.predict(grey(70), "nut").judgement
    with Running(tmp_path, spec(log=str(log))) as own:
        assert own.predict(grey(70), "nut").judgement == before
        assert own.predict(grey(70), "nut").shots == 1
    assert log.read_text().index("reference nut 1") < log.read_text().index("class nut")


# -- calibrations


def calibrated(own, name, rate):
    own.ask(own.backend.start_calibration(name, rate))
    return finished(own, name)


def finished(own, name):
    end = time.monotonic() + 20
    while (state := own.ask(own.backend.calibration(name))).state == "running":
        assert time.monotonic() < end
        time.sleep(0.01)
    return state


def test_a_calibration_decides_until_references_change(service):
    service.ask(service.backend.set_references("cal", [("100.png", grey(60))]))
    good = [(f"{n}.png", grey(n)) for n in (60, *range(100, 119), 100)]
    assert service.ask(service.backend.add_good("cal", good)) == 20, "copies once"
    state = calibrated(service, "cal", 0.1)
    # 19 good pictures, as one of the 20 is a reference (another only has its name): the ceil(20 * 0.9) = 18th smallest
    assert (state.state, state.pictures, state.max_false_alarms) == ("ready", 19, 0.1)
    assert state.threshold == pytest.approx(score_of(117, [60]))
    assert state.document["kind"] == "winspect calibration"
    assert state.document["left_out"][0]["because"] == "reference"
    flagged = service.predict(grey(118), "cal").judgement
    assert (flagged.verdict, flagged.p_value) == ("anomalous", pytest.approx(2 / 20))
    assert service.predict(grey(117), "cal").judgement.verdict == "normal"
    zero_shot = service.predict(grey(118), "cal", zero_shot=True)
    assert not zero_shot.judgement.is_calibrated, "it is not for zero-shot scores"
    assert service.ask(service.backend.class_info("cal")).calibration.state == "ready"

    service.ask(service.backend.set_references("cal", [("other.png", grey(200))]))
    state = service.ask(service.backend.calibration("cal"))
    assert state.state == "stale" and "references: calibrated with" in state.message
    assert not service.predict(grey(118), "cal").judgement.is_calibrated
    service.ask(service.backend.set_references("cal", [("100.png", grey(60))]))
    assert service.ask(service.backend.calibration("cal")).state == "ready", "the same content again"
    assert service.predict(grey(118), "cal").judgement.verdict == "anomalous"

    service.ask(service.backend.delete_calibration("cal"))
    assert service.ask(service.backend.calibration("cal")).state == "none"
    assert not service.predict(grey(118), "cal").judgement.is_calibrated
    with pytest.raises(UnknownClass):
        service.ask(service.backend.delete_calibration("cal"))
    service.ask(service.backend.delete_good("cal"))
    with pytest.raises(UnknownClass):
        service.ask(service.backend.delete_good("cal"))


@pytest.mark.parametrize(
    ("rate", "message"),
    [(0.0, "above 0 and below 1"), (1.5, "above 0"), (float("nan"), "above 0"), (0.01, "got 3 usable.*at least 99")],
)
def test_calibrations_that_cannot_be_made(service, rate, message):
    service.ask(service.backend.add_good("few", [(f"{n}.png", grey(n)) for n in range(3)]))
    with pytest.raises(SettingsError, match=message):
        service.ask(service.backend.start_calibration("few", rate))
    assert service.ask(service.backend.calibration("few")).state == "none"


def test_too_few_when_references_are_left_out_is_a_failure_that_says_so(service):
    pictures = [(f"{n}.png", grey(n)) for n in range(1, 10)]
    service.ask(service.backend.add_good("nine", pictures))
    service.ask(service.backend.set_references("nine", pictures[:1]))
    state = calibrated(service, "nine", 0.1)
    assert state.state == "failed"
    assert "got 8 usable good pictures beside the 1 that are references, need at least 9" in state.message
    service.ask(service.backend.delete_references("nine"))
    assert calibrated(service, "nine", 0.1).state == "ready"


def test_good_pictures_that_cannot_be_used(service):
    with pytest.raises(PictureError, match=r"bad\.png"):
        service.ask(service.backend.add_good("bad", [("a.png", grey(5)), ("bad.png", b"bad")]))
    assert service.ask(service.backend.class_info("bad")).good_pictures == 0


def test_references_changed_under_a_calibration_fail_it(tmp_path):
    with Running(tmp_path, spec(seconds=0.02)) as own:
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(40)]))
        own.ask(own.backend.start_calibration("part", 0.1))
        assert own.ask(own.backend.calibration("part")).total == 40
        with pytest.raises(SettingsError, match="is running"):
            own.ask(own.backend.start_calibration("part", 0.1))
        own.ask(own.backend.set_references("part", [("a.png", grey(200))]))
        state = finished(own, "part")
        assert state.state == "failed" and "references were changed" in state.message
        assert 0 < state.done < 40


def test_callers_come_before_a_calibration_and_it_can_be_stopped(tmp_path):
    with Running(tmp_path, spec(seconds=0.01), max_queue=8, max_batch=4) as own:
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(200)]))
        own.ask(own.backend.start_calibration("part", 0.1))
        most = 0
        for _ in range(20):
            most = max(most, own.backend.status.queued + own.backend.status.in_flight)
            judged = own.predict(grey(102))
            assert judged.result.anomaly_score == pytest.approx(0.2)
            assert judged.queue_seconds < 1
        assert most <= 4
        own.ask(own.backend.delete_calibration("part"))
        assert own.ask(own.backend.calibration("part")).state == "none"
        own.ask(own.backend.start_calibration("part", 0.1))  # the end of the service stops this one


def test_a_queued_calibration_is_deleted_without_waiting_for_another(tmp_path):
    with Running(tmp_path, spec(seconds=0.02), max_batch=1) as own:
        for name in ("first", "second"):
            own.ask(own.backend.add_good(name, [(f"{n}.png", grey(n)) for n in range(200)]))
            own.ask(own.backend.start_calibration(name, 0.1))
        own.until(lambda backend: own.ask(backend.calibration("first")).done > 0)
        own.ask(own.backend.delete_calibration("second"))
        first = own.ask(own.backend.calibration("first"))
        assert first.state == "running" and first.done < 190
        assert own.ask(own.backend.calibration("second")).state == "none"
        own.ask(own.backend.delete_calibration("first"))
        own.ask(own.backend.start_calibration("second", 0.1))  # it gets its turn


def test_another_model_makes_a_calibration_stale(tmp_path):
    with Running(tmp_path, spec()) as own:
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(20)]))
        assert calibrated(own, "part", 0.1).state == "ready"
    with Running(tmp_path, spec(model="another")) as own:
        state = own.ask(own.backend.calibration("part"))
        assert state.state == "stale" and "model: calibrated with 'fake', now 'another'" in state.message
        assert not own.predict(grey(5)).judgement.is_calibrated


def test_references_and_a_calibration_given_at_the_start(tmp_path):
    with Running(tmp_path / "one", spec()) as own:
        own.ask(own.backend.set_references("part", [("r.png", grey(60))]))
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(100, 119)]))
        document = calibrated(own, "part", 0.1).document
    calibration = Calibration.read(document)
    assert isinstance(calibration, Calibration)
    own = Running(tmp_path / "two", spec())
    with pytest.raises(ReferencesError, match=r"bad\.png: not a picture"):
        own.backend.seed("part", [("bad.png", b"bad")])
    with pytest.raises(SettingsError, match="is for 'part', not for 'other'"):
        own.backend.seed("other", calibration=calibration)
    own.backend.seed("part", [("r.png", grey(60))], calibration)
    with own:
        assert own.predict(grey(118), "part").judgement.verdict == "anomalous"


@pytest.fixture
def calibration(tmp_path):
    """Made with a model called "fake", without references."""
    with Running(tmp_path / "made", spec()) as own:
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(20)]))
        return Calibration.read(calibrated(own, "part", 0.1).document)


@pytest.mark.parametrize(
    ("model", "shown", "words"),
    [
        ("another", (), "the calibration of 'part' cannot be used: .*model: calibrated with 'fake', now 'another'"),
        ("fake", [("r.png", grey(60))], "the calibration of 'part' cannot be used: .*references: calibrated with"),
    ],
)
def test_a_calibration_named_at_the_start_that_does_not_fit_stops_it(tmp_path, calibration, model, shown, words):
    own = Running(tmp_path / "own", spec(model=model), wait=False)
    own.backend.store.set_document("part", {"what": "stood there before"})
    own.backend.seed("part", shown, calibration)
    with own:
        with pytest.raises(SettingsError, match=words):
            own.ask(own.backend.wait_ready())
        assert own.backend.status.state == "unavailable"
        assert own.backend.store.document("part") == {"what": "stood there before"}


def test_a_stored_calibration_for_another_model_stops_it_unless_allowed(tmp_path, calibration):
    with Running(tmp_path, spec()) as own:
        own.ask(own.backend.set_references("shown", [("r.png", grey(60))]))
        own.ask(own.backend.add_good("shown", [(f"{n}.png", grey(n)) for n in range(20)]))
        calibrated(own, "shown", 0.1)
        own.ask(own.backend.set_references("shown", [("s.png", grey(70))]))
    own = Running(tmp_path, spec(), refuse_stale=True)
    with own:  # stale since the service was told: no reason to stop
        assert own.ask(own.backend.calibration("shown")).state == "stale"
    own = Running(tmp_path, spec(model="another"), wait=False, refuse_stale=True)
    with own, pytest.raises(SettingsError, match=r"'shown' that is stored in .* 'another'.*--allow-stale"):
        own.ask(own.backend.wait_ready())
    own = Running(tmp_path, spec(model="another"), classes=("other",), refuse_stale=True)
    with own:
        assert own.backend.status.state == "ready", "it is not served"


# -- the process of the HTTP layer


def loaded_after(modules):
    """Which heavy packages are there once modules have been imported in a process of its own."""
    script = (
        f"import sys, {modules}\nprint([name for name in ('open_clip', 'openvino', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_the_http_process_needs_neither_torch_nor_open_clip():
    used = "winspect.service.backend, winspect.methods.result, winspect.pictures.heatmaps, winspect.calibration"
    assert loaded_after(used) == "[]"
    assert "torch" in loaded_after("winspect.methods.method, torch"), "this proof can fail"


def test_batches_are_told_to_whoever_measures(tmp_path):
    with Running(tmp_path, spec()) as own:
        records = []
        own.backend.batcher.on_batch = lambda *record: records.append(record)
        own.together((grey(n), "part", {}) for n in range(10))
        assert sum(size for size, _, _ in records) == 10
        assert all(error is None and seconds > 0 for _, seconds, error in records)


def test_hours_of_good_and_bad_traffic_leave_nothing_behind(tmp_path):
    """Objects alive here, and memory of the model's process, after 400 and after 2,000 requests."""
    large = png(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    with Running(tmp_path, spec(), max_queue=40, max_classes=30) as own:

        def traffic(rounds):
            for number in range(rounds):
                own.together(
                    (content, f"class {number % 40}", {"overlay": number % 3 == 0})
                    for content in (grey(number % 256), b"bad", large, large[:1000])
                )
                with pytest.raises((DeadlineExceeded, UnknownClass)):
                    own.predict(grey(5), f"class {number % 40}", within=1e-4)
                if number % 20 == 0:
                    own.ask(own.backend.set_references("class 1", [("a.png", grey(number % 256))]))

        def measured():
            gc.collect()
            status = Path(f"/proc/{own.model_pid}/status").read_text()
            return len(gc.get_objects()), int(re.search(r"VmRSS:\s+(\d+)", status)[1])

        traffic(80)
        objects, kilobytes = measured()
        traffic(320)
        more_objects, more_kilobytes = measured()
    assert more_objects - objects < 300
    assert more_kilobytes - kilobytes < 4000
