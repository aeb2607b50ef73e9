"""A watch hears of drift: in the row that is shown, in the line of status, and in its files."""

from __future__ import annotations

import json

from tests.watch.fakes import picture, watching
from winspect.drift import DriftSettings
from winspect.drift.alarm import DriftAlarm


def levels() -> list[int]:
    """Brightness of the pictures of a line of which the lamp is changed at the 61st."""
    return [100 + number * 7 % 11 for number in range(60)] + [60 + number * 7 % 11 for number in range(20)]


def test_a_lamp_that_fails_is_seen_and_the_watch_goes_on(tmp_path):
    (tmp_path / "in").mkdir()
    out = tmp_path / "out"
    with (
        DriftAlarm(out, DriftSettings(), reports=True) as drift,
        watching(tmp_path / "in", out, drift=drift) as watch,
    ):
        for number, level in enumerate(levels()):
            picture(tmp_path / "in" / f"{number:03}.png", level)
            watch.until(lambda count=number + 1: len(watch.shown) == count)
        watch.until(lambda: any("DRIFT: " in line for line in watch.said))
    (shown,) = [row for row in watch.shown if "drift" in row]
    # Without a threshold each picture gives its score, which is the brightness here.
    assert (shown["drift"]["statistic"], shown["drift"]["direction"]) == ("score", "falling")
    assert shown["drift"]["since"]["path"].endswith("060.png")
    assert "NOT" not in watch.said[-2] and "score falling since" in watch.said[-2]
    (line,) = json.loads((out / "drift.json").read_text())["lines"]
    assert line["pictures"] == 80 and line["alarm"]["since"] == shown["drift"]["since"]
    rows = [json.loads(row) for row in next(out.glob("predictions-*.jsonl")).read_text().splitlines()]
    assert len(rows) == 80 and not any("drift" in row for row in rows)
