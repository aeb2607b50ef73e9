"""What the batch benchmark says of rows, of slopes and of paces."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.batch import _memory, _steady_pace, _text
from benchmarks.batch_faults import SHARD_ROWS, compare, descendants, is_whole, slope

EXPECTED = {"a": 0.25, "b": 0.5, "c": 0.75}
ERROR = {"type": "PictureError", "message": "c: is cut off"}
WHOLE = {"lost": 0, "twice": 0, "strange": 0, "errors": 0, "largest_difference": 1e-6}
WHOLE |= {"shards_finished_before_kills": 7, "shards_of_these_kept": 7}


def row(name, score=None, error=None):
    return {"id": name, "anomaly_score": score, "error": error}


class Written:
    """A batch whose shards were written at these seconds."""

    shard_rows = SHARD_ROWS

    def __init__(self, seconds):
        self.seconds = seconds

    def shards(self):
        return {f"part-{number:05d}.parquet": (int(at * 1e9), 1) for number, at in enumerate(self.seconds)}


def test_rows_as_expected_are_whole():
    told = compare([row("c", 0.75), row("a", 0.25), row("b", 0.5 + 2e-6)], EXPECTED)
    assert told["largest_difference"] == pytest.approx(2e-6)
    assert (told["inputs"], told["rows"], told["lost"], told["twice"], told["strange"]) == (3, 3, 0, 0, 0)
    assert (told["errors"], told["distinct_scores"]) == ([], 3)


def test_what_is_wrong_with_rows_is_counted():
    told = compare([row("a", 0.25), row("a", 0.35), row("a", 0.25), row("x", 0.1), row("c", error=ERROR)], EXPECTED)
    assert (told["rows"], told["lost"], told["twice"], told["strange"]) == (5, 1, 2, 1)
    assert told["errors"] == [f"c: {ERROR}"]
    assert told["largest_difference"] == pytest.approx(0.1)


FAULTS = {"lost": 1, "twice": 1, "strange": 1, "errors": 1, "largest_difference": 1e-4, "shards_of_these_kept": 6}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_not_whole(name):
    assert is_whole(WHOLE)
    assert not is_whole(WHOLE | {name: FAULTS[name]})


def test_slope():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 0), (1, 0), (2, 3)]) == pytest.approx(1.5)
    assert slope([(1, 1), (1, 2)]) is None
    assert slope([]) is None


def test_steady_pace_leaves_the_start_and_the_end_out():
    # Ten shards: the first and the last count for nothing; between are eight, 2 s apart.
    assert _steady_pace(Written([-30, *range(0, 16, 2), 90])) == pytest.approx(SHARD_ROWS / 2)
    assert _steady_pace(Written([0, 1, 2])) is None


def test_memory_slopes_are_those_of_processes_that_lived_throughout():
    def sample(done):
        worker = "ray::Worker.run" if done else "ray::Worker"
        here = {1: ("driver", 100 + done / 1000), 2: (worker, 50.0), 4: ("ray::_StatsActor", 10 + done / 100)}
        return done, here | ({3: ("ray::Worker.run", 9.0)} if done == 2000 else {})

    told = _memory([sample(done) for done in range(0, 5000, 1000)], 4000)
    driver, worker = told["driver_and_workers"]
    assert (driver["process"], worker["process"]) == ("driver", "ray::Worker.run")
    assert told["steepest_mb_per_1000_pictures"] == driver["slope_mb_per_1000_pictures"] == pytest.approx(1)
    assert worker["slope_mb_per_1000_pictures"] == pytest.approx(0)
    assert worker["mb"] == [[done, 50.0] for done in range(0, 5000, 1000)]
    (stats,) = told["of_ray_itself"]
    assert (stats["slope_mb_per_1000_pictures"], stats["mb"]) == (pytest.approx(10), [20.0, 40.0])
    assert told["processes_not_alive_throughout"] == 1


def test_lists_of_numbers_stand_on_a_line():
    result = {"a": [[1, 2.5], [-1e-07, 3]], "b": ["x, [1", None], "c": []}
    text = _text(result)
    assert json.loads(text) == result
    assert "  [ 1, 2.5 ],\n" in text


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_descendants_reach_below_children():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        while not (below := descendants(child.pid)):
            assert child.poll() is None
        assert set(below) < set(descendants(os.getpid()))
        assert child.pid in descendants(os.getpid())
    assert child.pid not in descendants(os.getpid())
