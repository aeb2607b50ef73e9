"""The benchmark of feedback: what it simulates is what it says, and its committed figures keep the bar."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import feedback

RESULTS = Path(feedback.__file__).parent / "results" / "feedback.json"


def test_the_committed_figures_keep_the_bar():
    found = json.loads(RESULTS.read_text())
    assert (found["splits"], found["wrong_answers"]) == (200, 0.05)
    for case in found["cases"]:
        for way in ("audit", "audit_errors_at_high_scores", "audit_and_raise", "references"):
            rates = [case[way]["false_alarms_before"], *case[way]["false_alarms_after_each_round"]]
            assert max(rates) <= case["asked"] + 0.005, way
        assert not case["unflagged"]["kept"]  # what the audit sample is for


def test_a_line_s_operator_is_wrong_as_often_as_it_says():
    random = np.random.default_rng(1)
    line = feedback.Line(random)
    is_defective = np.arange(4000) % 2 == 0
    line.round(np.where(is_defective, 2.0, 0.0), is_defective, threshold=1.0)
    answers = {int(id): answer.answer for id, answer in line.records.answers.items()}
    said_good = [number for number, answer in answers.items() if is_defective[number - 1] and answer == "good"]
    assert len(said_good) / 2000 == pytest.approx(0.05, abs=0.015)
    drawn = [number for number in answers if not is_defective[number - 1]]  # normal ones are answered where drawn
    assert len(drawn) / 2000 == pytest.approx(feedback.AUDIT_RATE, abs=0.02)


@pytest.mark.parametrize("way", feedback.WAYS)
def test_every_way_begins_with_the_same_calibration(way):
    thresholds, _ = feedback.feedback_rounds(way, 0.05, 100, seed=3)
    scores = np.sort(np.random.default_rng(3).normal(size=100))
    assert thresholds[0] == scores[100 - 5] and len(thresholds) == feedback.ROUNDS + 1
    assert feedback.rates_of(np.array([thresholds] * 2), 0.05)["false_alarms_before"] == pytest.approx(
        norm.sf(thresholds[0]), abs=1e-5
    )
