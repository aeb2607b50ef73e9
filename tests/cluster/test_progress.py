"""What people see of a run, and what its stages took."""

from __future__ import annotations

import doctest
import io
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from winspect.cluster import progress
from winspect.cluster.progress import Progress, Stages, duration
from winspect.cluster.stages import JUDGED


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.s)
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_in_words(clock):
    with Progress(12_000, done=2_000, failed=3, shown=False) as shown:
        clock.s += 50
        shown.add(1_000, 2)
        # by hand: 1,000 in 50 s; 9,000 are left, at 20 a second
        assert shown.line() == "3,000 of 12,000 pictures, 20.0 pictures/s, 5 failed, 7 min 30 s left"


def test_a_line_before_anything_is_done_promises_nothing(clock):
    with Progress(10, done=4, shown=False) as shown:
        assert shown.line() == "4 of 10 pictures, 0.0 pictures/s, 0 failed"
        clock.s += 5
        assert shown.line() == "4 of 10 pictures, 0.0 pictures/s, 0 failed"


def test_a_line_a_minute_where_there_is_no_terminal(clock, capsys):
    with Progress(100, shown=True) as shown:
        for _ in range(7):
            clock.s += 20
            shown.add(10, 1)
    assert capsys.readouterr().err.splitlines() == [
        "winspect: 30 of 100 pictures, 0.5 pictures/s, 3 failed, 2 min 20 s left",
        "winspect: 60 of 100 pictures, 0.5 pictures/s, 6 failed, 1 min 20 s left",
    ]


def test_silence(clock, capsys):
    with Progress(100, shown=False) as shown:
        clock.s += 500
        shown.add(10, 1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(100, done=40, failed=1, shown=True) as shown:
        shown.add(20, 2)
    bar = terminal.getvalue()
    assert "60/100" in bar and "failed=3" in bar and "winspect:" not in bar


def test_duration_by_hand():
    assert [duration(seconds) for seconds in (0, 59.6, 3599.6, 90_061)] == [
        "0 s",
        "1 min 0 s",
        "1 h 0 min",
        "25 h 1 min",
    ]
    tests = doctest.DocTestFinder().find(duration)
    assert sum(len(test.examples) for test in tests) == 1  # pytest runs it with the package's other examples


def judged(count, decode, judge, paint=None, *, decoder="a:1", worker="a:2"):
    """Rows that took so many seconds each."""
    row = {"decode_s": decode, "decoder": decoder, "judge_s": judge, "judge": worker}
    row |= {"paint_s": paint, "painter": "a:3"} if paint is not None else {}
    named = {"id": "a", "class": "object", "model": "tiny", "weights_sha256": ""}
    return pa.Table.from_pylist([{"ordinal": number, **named, **row} for number in range(count)], schema=JUDGED)


def test_stages_by_hand():
    stages = Stages()
    stages.add(judged(10, 0.25, 0.5), 1.0)
    stages.add(judged(6, 0.25, 0.5, decoder="a:7", worker="b:2"), 1.0)
    told = stages.summary(wall_s=10, decoders=4)
    assert told == {
        "slowest_stage": "judge",
        "stages": {
            "decode": {"seconds": 4.0, "ms_per_picture": 250.0, "processes": 2, "busy": 0.2},  # 4 s of 2 x 10 s
            "judge": {"seconds": 8.0, "ms_per_picture": 500.0, "processes": 2, "busy": 0.4},
            "write": {"seconds": 2.0, "ms_per_picture": 125.0, "processes": 1, "busy": 0.2},
        },
    }


def test_no_more_processes_decode_than_may_at_once():
    """A process may have ended and another taken its place: both did not work all the time."""
    stages = Stages()
    for worker in range(5):
        stages.add(judged(1, 2.0, 0.5, 1.0, decoder=f"a:{worker}"), 0.0)
    told = stages.summary(wall_s=10, decoders=1)["stages"]
    assert told["decode"] == {"seconds": 10.0, "ms_per_picture": 2000.0, "processes": 1, "busy": 1.0}
    assert told["paint"] == {"seconds": 5.0, "ms_per_picture": 1000.0, "processes": 1, "busy": 0.5}


def test_the_busiest_stage_is_the_slowest_not_the_one_with_most_seconds():
    stages = Stages()
    for worker in range(4):
        stages.add(judged(1, 1.5, 4.0, decoder="a:1", worker=f"b:{worker}"), 0.0)
    told = stages.summary(wall_s=8, decoders=1)  # by hand: decoding 6 of 8 s, judging 16 of 32 s
    assert (told["slowest_stage"], told["stages"]["decode"]["busy"], told["stages"]["judge"]["busy"]) == (
        "decode",
        0.75,
        0.5,
    )


def test_rows_of_nobody_count_as_rows_alone():
    """Inputs that were lost with their workers."""
    stages = Stages()
    stages.add(judged(2, None, None, decoder=None, worker=None), 0.0)
    assert stages.rows == 2
    assert stages.summary(wall_s=1, decoders=1) == {"stages": {}, "slowest_stage": None}


def test_no_time_has_passed():
    stages = Stages()
    stages.add(judged(1, 0.5, 0.0), 0.0)
    assert stages.summary(wall_s=0, decoders=1)["stages"]["decode"]["busy"] is None
