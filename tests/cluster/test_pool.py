"""Workers on a real cluster, without a model: each unit comes back once, whoever dies."""

from __future__ import annotations

from collections import deque

import pytest

from tests.cluster.marks import RAYS_WARNINGS
from winspect.cluster import pool
from winspect.cluster.pool import Lost, Pool
from winspect.cluster.workers import Workers
from winspect.errors import ClusterError, SettingsError

pytestmark = [pytest.mark.ray, RAYS_WARNINGS]


@pytest.fixture
def workers(ray_cluster):
    """Two workers at most, that load nothing; ended behind the test."""
    with Pool(Workers("cpu", 1, 2, cpus=1), {}) as made:
        yield made


def work(tmp_path):
    """Work for :meth:`Pool.run`: doubles a number, kills its process at 5, and notes each try; sent by value."""
    folder = str(tmp_path)

    def double(worker, unit):
        import os
        import signal
        import tempfile

        tempfile.mkstemp(prefix=f"{unit}-", dir=folder)
        if unit == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * unit

    return lambda unit: (double, unit)


def tries(tmp_path):
    return sorted(int(path.name.partition("-")[0]) for path in tmp_path.iterdir())


def test_each_unit_comes_back_once_and_the_one_that_kills_is_lost_at_its_second_try(workers, tmp_path):
    outcomes = list(workers.run(deque(range(8)), work(tmp_path)))
    assert sorted(unit for unit, _ in outcomes) == [*range(8)]
    assert {unit: outcome for unit, outcome in outcomes if unit != 5} == {
        unit: 2 * unit for unit in range(8) if unit != 5
    }
    assert isinstance(dict(outcomes)[5], Lost)
    assert tries(tmp_path) == [0, 1, 2, 3, 4, 5, 5, 6, 7]


def test_units_that_are_appended_meanwhile_are_worked_on_too(workers, tmp_path):
    units, seen = deque([5]), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_DEATHS_AT_START", 10)
        for unit, outcome in workers.run(units, work(tmp_path)):
            seen.append(unit)
            units.extend([10, 11] if isinstance(outcome, Lost) else [])
    assert sorted(seen) == [5, 10, 11]


def test_workers_that_die_before_they_have_done_anything_end_the_run(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_DEATHS_AT_START", 2)
    with pytest.raises(ClusterError, match="no worker scored anything: each died at its first pictures"):
        list(workers.run(deque([5, 5, 5]), work(tmp_path)))


def test_what_a_worker_raises_comes_home(workers):
    def refuse(worker, kind):
        raise kind("stride: got 0")

    with pytest.raises(SettingsError, match=r"^stride: got 0$"):
        workers.ask(refuse, SettingsError)
    with pytest.raises(ClusterError, match=r"^a worker refuses to work: .+:\d+: stride: got 0$"):
        list(workers.run(deque([1]), lambda unit: (refuse, ClusterError)))


def test_steps_are_counted_while_a_unit_is_in_work(workers, monkeypatch):
    monkeypatch.setattr(pool, "_LOOK_S", 0.2)

    def slow(worker, unit):
        import time

        for _ in range(20):
            worker.advance()
            time.sleep(0.1)

    counts = []
    list(workers.run(deque([1]), lambda unit: (slow, unit), counts.append))
    assert counts == sorted(counts) and 0 < counts[-1] <= 20
