"""The alarm of lines: what is watched, since when, restarts, new lives, and what cannot be kept."""

from __future__ import annotations

import itertools
import json
import logging
import math
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.drift.oracle_drift import capital, p_values
from winspect.drift import DriftSettings
from winspect.drift.alarm import DriftAlarm, alarm_in_words, identity_of
from winspect.drift.line import Line, LineState, values_of
from winspect.drift.ranks import tie_breaker
from winspect.errors import OutputError

TWO = DriftSettings(statistics=("score", "brightness"))


def row(number: int, score: float = 0.2, **more: Any) -> dict[str, Any]:
    made = {"path": f"{number:04}.png", "class": "nut", "anomaly_score": score, "verdict": "normal", "error": None}
    return {
        **made,
        "id": f"{number:032x}",
        "time": f"2026-11-28T07:{number // 60 % 60:02}:{number % 60:02}+00:00",
        **more,
    }


def fading(before: int = 60, after: int = 60, seed: int = 0) -> list[float]:
    """Brightness of a line of which the lamp fails."""
    rng = np.random.default_rng(seed)
    return [*(100 + rng.normal(size=before)), *(96 - 0.05 * np.arange(after) + rng.normal(size=after))]


def feed(alarm: DriftAlarm, brightness: list[float], first: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Take pictures; returns the alarms that were given."""
    given = []
    for number, value in enumerate(brightness, first):
        score = 0.2 + 0.01 * math.sin(number * 12.9898)
        event = alarm.take(row(number, score, **more), {"brightness": value}, identity="a model")
        given += [] if event is None else [event]
    return given


def test_a_picture_called_normal_gives_its_score_and_any_its_statistics():
    statistics = {"brightness": 7.0}
    assert values_of(row(1, 0.3), statistics) == {"score": 0.3, "brightness": 7.0}
    assert values_of(row(1, 0.3, verdict=None), None) == {"score": 0.3}
    for verdict in ("anomalous", "review"):
        assert values_of(row(1, 0.3, verdict=verdict), statistics) == statistics
    failed = row(1, error={"type": "PictureError", "message": "cut off"}, anomaly_score=None, verdict=None)
    assert values_of(failed, None) == {}


def test_each_statistic_of_a_line_is_the_oracles(tmp_path):
    line = Line("nut", TWO, LineState.new(TWO))
    scores, brightness = np.random.default_rng(3).normal(size=(2, 30)).tolist()
    taken = [n for n in range(30) if n % 3]  # pictures called normal
    for number in range(30):
        values = {"brightness": brightness[number], **({"score": scores[number]} if number in taken else {})}
        line.accept(line.after(values), values)
    for name, numbers, values in (("score", taken, scores), ("brightness", range(30), brightness)):
        ties = [tie_breaker(0, "nut", 1, name, number + 1) for number in numbers]
        expected = capital(p_values([values[number] for number in numbers], ties))
        assert line.state.martingales[name].log_capital == pytest.approx(math.log(expected), abs=1e-9)


def test_the_alarm_says_what_moved_since_when_and_where_it_shows(tmp_path, caplog):
    with DriftAlarm(tmp_path, TWO) as alarm:
        (event,) = feed(alarm, fading())
        assert (event["statistic"], event["direction"]) == ("brightness", "falling")
        assert abs(int(event["since"]["path"][:4]) - 61) <= 3
        assert 61 < int(event["noticed"]["path"][:4]) <= 80
        (document,) = alarm.documents()
        shown = [picture["values"]["brightness"] for picture in document["alarm"]["pictures"]]
        assert shown == sorted(fading()[60:])[:8]
        assert document["alarm"]["pictures_since"] == 120 - int(event["since"]["path"][:4]) + 1
        assert document["statistics"]["brightness"]["log10_martingale"] > document["log10_bound"]
        words = alarm_in_words(document["alarm"])
        assert words.startswith("DRIFT: brightness falling since 2026-11-28T07:01:0") and ".png" in words
        assert words in alarm.in_words()
    assert [record.message for record in caplog.records] == [f"nut: {alarm_in_words(event)}"]


def test_without_drift_nothing_is_said(tmp_path):
    with DriftAlarm(tmp_path, TWO) as alarm:
        assert feed(alarm, fading(100, 0)) == []
        assert alarm.in_words() == ""
        (document,) = alarm.documents()
        assert document["alarm"] is None and document["pictures"] == 100
    assert not (tmp_path / "drift.json").exists()


def test_a_restart_in_the_middle_changes_nothing(tmp_path):
    brightness = fading(1010, 40, seed=4)  # past the first merge of the ranks
    with DriftAlarm(tmp_path / "whole", TWO) as whole:
        expected = feed(whole, brightness)
        document = whole.documents(newest=30)
    given, places = [], [0, 1, 7, 1003, 1025, 1050]
    for begin, end in itertools.pairwise(places):
        with DriftAlarm(tmp_path / "parts", TWO) as part:
            given += feed(part, brightness[begin:end], begin + 1)
            found = part.documents(newest=30)
    assert len(expected) == 1 and given == expected
    assert found == document


def test_a_kill_loses_at_most_the_picture_under_way(tmp_path):
    # The process ends without closing: a copy of the files is what a kill leaves.
    alarm = DriftAlarm(tmp_path / "killed", TWO)
    feed(alarm, fading()[:70])
    left = tmp_path / "left"
    left.mkdir()
    for path in (tmp_path / "killed").iterdir():
        (left / path.name).write_bytes(path.read_bytes())
    alarm.close()
    with DriftAlarm(left, TWO) as again, DriftAlarm(tmp_path / "whole", TWO) as whole:
        feed(whole, fading())
        feed(again, fading()[70:], 71)
        assert again.documents() == whole.documents()


def test_ranks_begin_anew_and_the_martingales_go_on(tmp_path):
    brightness = np.random.default_rng(8).normal(size=23).tolist()
    with DriftAlarm(tmp_path, TWO, most_values=10) as alarm:
        feed(alarm, brightness[:17])
    with DriftAlarm(tmp_path, TWO, most_values=10) as alarm:
        feed(alarm, brightness[17:], 18)
        (document,) = alarm.documents()
        assert len(alarm.documents(newest=100)[0]["newest"]) == 13  # of the last two times ten, what there is
    ties = [tie_breaker(0, "nut", 1, "brightness", number) for number in range(1, 24)]
    p = [each for at in (0, 10, 20) for each in p_values(brightness[at : at + 10], ties[at : at + 10])]
    log10 = document["statistics"]["brightness"]["log10_martingale"]
    assert log10 == pytest.approx(math.log10(capital(p)), abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        lambda alarm, n: alarm.take(row(n), {"brightness": 90.0}, identity="another calibration"),
        lambda alarm, n: alarm.take(
            row(n, product={"name": "N", "revision": 2}), {"brightness": 90.0}, identity="a model"
        ),
        lambda alarm, n: alarm.reset("nut") and alarm.take(row(n), {"brightness": 90.0}, identity="a model"),
    ],
    ids=["calibration", "product", "reset"],
)
def test_another_product_or_calibration_begins_a_new_life(tmp_path, change):
    with DriftAlarm(tmp_path, TWO) as alarm:
        assert len(feed(alarm, fading())) == 1
        assert change(alarm, 121) is None
        (document,) = alarm.documents()
        assert (document["life"], document["pictures"], document["alarm"]) == (2, 1, None)
        assert document["began"] >= "2026-11-28"
    with DriftAlarm(tmp_path, TWO) as alarm:
        assert alarm.documents() == [document]


def test_other_settings_begin_a_new_life(tmp_path):
    with DriftAlarm(tmp_path, TWO) as alarm:
        feed(alarm, fading())
    with DriftAlarm(tmp_path, DriftSettings(0.5, ("brightness",))) as alarm:
        feed(alarm, [100.0], 121)
        assert [(each["life"], list(each["statistics"])) for each in alarm.documents()] == [(2, ["brightness"])]


def test_lines_are_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("winspect.drift.alarm._MOST_LOADED", 2)
    values = {name: fading(seed=seed) for seed, name in enumerate("abc")}
    with DriftAlarm(tmp_path / "together", TWO) as together:
        for number in range(70):
            for name in "abc":
                together.take(row(number), {"brightness": values[name][number]}, identity="", line=name)
        documents = {document["line"]: document for document in together.documents()}
    for name in "abc":
        with DriftAlarm(tmp_path / name, TWO) as alone:
            for number in range(70):
                alone.take(row(number), {"brightness": values[name][number]}, identity="", line=name)
            assert alone.documents() == [documents[name]]


def test_what_cannot_be_kept_is_left_out_and_said(tmp_path, monkeypatch, caplog):
    alarm = DriftAlarm(tmp_path / "full", TWO)
    feed(alarm, fading()[:50])
    with monkeypatch.context() as broken:
        broken.setattr(alarm._file, "add", _full_disk)
        assert feed(alarm, [0.0] * 40, 51) == []
        assert alarm.left_out == 40
        assert alarm.in_words() == "40 pictures left out of the drift alarm: database or disk is full"
    assert len([record for record in caplog.records if "left out" in record.message]) == 1
    with DriftAlarm(tmp_path / "whole", TWO) as whole:
        assert feed(alarm, fading()[50:], 51) == feed(whole, fading()[:50]) + feed(whole, fading()[50:], 51)
        assert alarm.documents() == whole.documents() and alarm.trouble is None
    alarm.close()


def test_an_alarm_is_said_where_the_file_cannot_be_read_any_more(tmp_path, monkeypatch):
    with DriftAlarm(tmp_path, TWO) as alarm:
        feed(alarm, fading())
        monkeypatch.setattr(alarm._file, "picture", _full_disk)
        assert alarm.in_words().startswith("DRIFT: brightness falling, ")
        assert alarm.documents()[0]["alarm"]["pictures"] == []


def _full_disk(*_: object, **__: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path):
    with DriftAlarm(tmp_path, TWO) as alarm:
        feed(alarm, fading()[:5])
        alarm._file._database.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON lines BEGIN SELECT raise(ABORT, 'full'); END"
        )
        alarm._file._database.execute(
            "CREATE TRIGGER more BEFORE INSERT ON lines BEGIN SELECT raise(ABORT, 'full'); END"
        )
        feed(alarm, [1.0], 6)
        assert alarm.trouble == "full"
        assert len(alarm.documents(newest=99)[0]["newest"]) == 5
        alarm._file._database.execute("DROP TRIGGER full")
        alarm._file._database.execute("DROP TRIGGER more")
        feed(alarm, [1.0], 6)
        assert len(alarm.documents(newest=99)[0]["newest"]) == 6


def test_a_damaged_file_is_moved_aside(tmp_path, caplog):
    (tmp_path / "drift.sqlite3").write_bytes(b"not a database at all, but long enough to be looked at" * 99)
    with DriftAlarm(tmp_path, TWO) as alarm:
        feed(alarm, [1.0])
    assert "begins anew" in caplog.text and (tmp_path / "drift.sqlite3.damaged").exists()


def test_two_processes_cannot_watch_with_one_file(tmp_path):
    with DriftAlarm(tmp_path, TWO), pytest.raises(OutputError, match="another process uses it"):
        DriftAlarm(tmp_path, TWO)


def test_threads_take_turns(tmp_path):
    with DriftAlarm(tmp_path, TWO) as alarm:
        threads = [threading.Thread(target=feed, args=(alarm, fading(40, 0, seed=n))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert alarm.documents()[0]["pictures"] == 160 and alarm.left_out == 0


def test_reports_are_written_when_something_happens(tmp_path):
    with DriftAlarm(tmp_path, TWO, reports=True) as alarm:
        feed(alarm, fading())
    report = json.loads((tmp_path / "drift.json").read_text())
    assert report["lines"][0]["alarm"]["statistic"] == "brightness" and report["trouble"] is None
    text = (tmp_path / "drift.prom").read_text()
    assert "\nwinspect_drift_alarm 1.0\n" in text
    parsed = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    evidence = float(parsed['winspect_drift_log10_martingale{statistic="brightness"}'])
    assert evidence == report["lines"][0]["statistics"]["brightness"]["log10_martingale"]
    assert float(parsed["winspect_drift_log10_bound"]) == pytest.approx(math.log10(2 / 0.01))
    assert 1.79e9 < float(parsed["winspect_drift_since_seconds"]) < 1.8e9


def test_the_engine_is_no_part_of_the_identity():
    same = {identity_of({"model": "a", "engine": engine, "device": engine}) for engine in ("torch", "onnx")}
    assert len(same) == 1 and identity_of({"model": "b"}) not in same


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        DriftAlarm(Path(tmp_path / "file"), TWO)


def test_a_new_life_is_logged(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with DriftAlarm(tmp_path, TWO) as alarm:
        feed(alarm, [1.0, 2.0])
        alarm.take(row(3), {"brightness": 2.0}, identity="b")
    assert "drift is watched anew" in caplog.text
