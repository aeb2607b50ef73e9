"""What benchmarks share, by hand."""

from __future__ import annotations

import itertools
import json

from benchmarks.measuring import in_turn, median_ratio, write_json


def test_jobs_run_in_turn_and_in_the_reverse_order_every_other_round() -> None:
    calls: list[str] = []
    clock = itertools.count()
    jobs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = in_turn(jobs, 2, warm_up=1, clock=lambda: float(next(clock)))
    assert "".join(calls) in ("baabba", "abbaab")
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}  # without the round that warms up


def test_ratios_are_of_the_same_round() -> None:
    assert median_ratio([1.0, 4.0, 9.0], [1.0, 2.0, 1.0]) == 2.0


def test_a_report_is_written_where_a_file_was_asked_for(tmp_path) -> None:
    write_json(None, {"a": 1})
    write_json(tmp_path / "report.json", {"a": [1, None]})
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": [1, None]}
