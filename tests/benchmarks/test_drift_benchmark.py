"""The benchmark's twin of the drift alarm against the oracle, and what it does to pictures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from site_pages import text_of

from benchmarks.drift import (
    BEFORE,
    DRIFTS,
    Inspected,
    fixed_p_values,
    highest_capitals,
    online_p_values,
    random_ties,
    stream,
    twin_difference,
    with_drift,
    without_drift,
)
from benchmarks.measuring import RESULTS
from tests.drift.oracle_drift import capital, fixed_reference_p_values, p_values
from winspect.drift.settings import WATCHED


def some_values(pictures: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 1, (pictures, len(WATCHED)))


def test_p_values_are_the_oracles():
    rng = np.random.default_rng(1)
    for values in (rng.normal(size=300), rng.integers(0, 7, 300).astype(float)):
        ties = random_ties(rng, 300)
        assert online_p_values(values, ties) == pytest.approx(p_values(values.tolist(), ties.tolist()), rel=1e-12)
        fixed = fixed_reference_p_values(values.tolist(), ties.tolist(), 100)
        assert fixed_p_values(values, ties) == pytest.approx(fixed, rel=1e-12)


def test_capitals_are_the_oracles_and_the_packages():
    p = np.random.default_rng(2).uniform(size=(30, 3)) ** [1, 1.5, 3]
    highest, last = highest_capitals(p)
    for place in range(3):
        every = [capital(p[:steps, place].tolist()) for steps in range(31)]
        assert last[place] == pytest.approx(every[-1]) and highest[place] == pytest.approx(max(every))
    assert twin_difference(some_values(), pictures=300) < 1e-9


def test_a_line_drifts_only_after_it_began_and_is_found():
    still = some_values()
    stages = len(DRIFTS["lamp"].stages)
    falling = still - np.arange(stages)[:, None, None] * (np.array(WATCHED) == "brightness") * 5
    inspected = Inspected(still, {"lamp": falling}, math.inf)
    values = np.array(list(stream(inspected, "lamp", 0)))[:, WATCHED.index("brightness")]
    assert values[:BEFORE].mean() == pytest.approx(still[:, WATCHED.index("brightness")].mean(), abs=0.2)
    assert values[BEFORE + 300 :].max() < values[:BEFORE].mean()
    found = with_drift(inspected, "lamp", 2)
    assert found["found"] == 2 and found["given_by"] == {"brightness falling": 2}
    assert 0 < found["delay"]["median"] < 100


def test_lines_without_drift_are_counted_and_a_fixed_reference_is_found_out():
    inspected = Inspected(some_values(200), {}, 101.5)
    honest = without_drift(inspected, 20, 2000, online_p_values)
    assert honest["alarms"][0]["asked"] == 0.5 and honest["alarms"][0]["share"] <= 0.5
    assert without_drift(inspected, 20, 2000, fixed_p_values)["alarms"][0]["share"] > 0.5


def test_pictures_are_changed_as_said():
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    assert DRIFTS["lamp"].change(rgb, 2).mean() == pytest.approx(rgb.mean() * 0.99**2, rel=0.01)
    assert (DRIFTS["shift"].change(rgb, 3)[:, 3:] == rgb[:, :-3]).all()
    assert DRIFTS["focus"].change(rgb, 1.0).std() < rgb.std()
    assert [DRIFTS["lamp"].stage(pictures) for pictures in (0, 50, 10_000)] == [0, 0.5, 8]
    assert DRIFTS["push"].stage(1) == 36


def test_the_committed_figures_hold_what_was_asked_for_and_the_page_has_them():
    figures = json.loads((RESULTS / "drift.json").read_text())
    without, page = figures["without_drift"], text_of("docs/line.md")
    assert without["lines"] >= 200 and without["pictures_each"] >= 100_000
    assert all(entry["share"] <= entry["asked"] for entry in without["alarms"])
    assert any(entry["share"] > entry["asked"] for entry in figures["fixed_reference_without_drift"]["alarms"])
    assert set(figures["with_drift"]) == set(DRIFTS)
    for entry in figures["with_drift"].values():
        assert entry["found"] == entry["lines"] == 20
        delay = "{median:.0f} ({least:.0f} to {most:.0f})".format(**entry["delay"])
        assert f"| {entry['what']} | {delay} |" in page
    shares = " | ".join(f"{entry['share']:g}" for entry in without["alarms"])
    assert f"| lines with an alarm | {shares} |" in page
