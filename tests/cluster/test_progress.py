"""What people see of a run, and what its stages took."""

from __future__ import annotations

import doctest
import io
import sys
from types import SimpleNamespace

import pytest

from winspect.cluster import progress
from winspect.cluster.progress import Progress, duration, stages_of


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
    with Progress(12_000, done=2_000, failed=3, visible=False) as shown:
        clock.s += 50
        shown.add(1_000, 2)
        # by hand: 1,000 in 50 s; 9,000 are left, at 20 a second
        assert shown.line() == "3,000 of 12,000 pictures, 20.0 pictures/s, 5 failed, 7 min 30 s left"


def test_a_line_before_anything_is_done_promises_nothing(clock):
    with Progress(10, done=4, visible=False) as shown:
        assert shown.line() == "4 of 10 pictures, 0.0 pictures/s, 0 failed"
        clock.s += 5
        assert shown.line() == "4 of 10 pictures, 0.0 pictures/s, 0 failed"


def test_a_line_a_minute_where_there_is_no_terminal(clock, capsys):
    with Progress(100, visible=True) as shown:
        for _ in range(7):
            clock.s += 20
            shown.add(10, 1)
    assert capsys.readouterr().err.splitlines() == [
        "winspect: 30 of 100 pictures, 0.5 pictures/s, 3 failed, 2 min 20 s left",
        "winspect: 60 of 100 pictures, 0.5 pictures/s, 6 failed, 1 min 20 s left",
    ]


def test_silence(clock, capsys):
    with Progress(100, visible=False) as shown:
        clock.s += 500
        shown.add(10, 1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(100, done=40, failed=1, visible=True) as shown:
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


def test_pictures_of_unfinished_shards_are_shown_and_not_counted_twice(clock):
    with Progress(100, visible=False) as shown:
        clock.s += 10
        shown.show(20)
        assert shown.line() == "20 of 100 pictures, 2.0 pictures/s, 0 failed, 40 s left"
        shown.add(25, 0)
        assert (shown.done, shown.line()) == (25, "25 of 100 pictures, 2.5 pictures/s, 0 failed, 30 s left")


def test_stages_by_hand():
    assert stages_of({"judge": 8.0, "paint": 0.0, "write": 2.0}, rows=16, workers=2, wall_s=10) == {
        "slowest_stage": "judge",
        "stages": {
            "judge": {"seconds": 8.0, "ms_per_picture": 500.0, "processes": 2, "busy": 0.4},  # 8 s of 2 x 10 s
            "write": {"seconds": 2.0, "ms_per_picture": 125.0, "processes": 1, "busy": 0.2},
        },
    }


def test_the_busiest_stage_is_the_slowest_not_the_one_with_most_seconds():
    # by hand: writing 6 of 8 s, judging 16 of 32 s
    summary = stages_of({"judge": 16.0, "write": 6.0}, rows=4, workers=4, wall_s=8)
    assert (summary["slowest_stage"], summary["stages"]["judge"]["busy"]) == ("write", 0.5)


def test_nothing_was_scored_or_no_time_has_passed():
    assert stages_of({}, rows=0, workers=0, wall_s=1) == {"stages": {}, "slowest_stage": None}
    assert stages_of({"judge": 0.5}, rows=1, workers=1, wall_s=0)["stages"]["judge"]["busy"] is None
