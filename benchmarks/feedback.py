"""Does feedback keep the promise on false alarms: ``python -m benchmarks.feedback``.

Generated scores, 200 splits: good pictures from one normal distribution, defective ones from another, so that the share
of good pictures above a threshold is known exactly. A calibration is made, then come rounds of pictures. In each an
operator answers all that were flagged and all that were drawn for the audit sample, five answers in a hundred wrong at
random, both ways; then the calibration is made again. The ways to do that:

- ``audit``: the audit sample joins, as :mod:`winspect.feedback.pool` has it.
- ``audit_errors_at_high_scores``: the same; all wrong answers on good pictures fall on flagged ones.
- ``audit_and_raise``: flagged good ones join, too, and can only raise the threshold.
- ``judged`` and ``unflagged``, to compare with, are no part of winspect: everything that was called good joins; all
  that was called normal joins, unseen.
- ``references``: the audit sample joins, and flagged good ones become good samples. Pictures are points, a score is the
  distance to the nearest good sample. One good part in ten looks different in a way that the first samples do not show.

``line_changed``: how often a recalibration is refused when good scores have moved by one standard deviation.

Written to results/feedback.json: the mean share of good pictures flagged (the bar: at most the rate asked for + 0.005),
and of defective ones found, before and after.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import norm

from benchmarks.measuring import RESULTS, machine, write_json
from winspect.calibration import Calibration
from winspect.calibration.conformal import conformal_threshold
from winspect.errors import FeedbackError
from winspect.feedback.pool import recalibrated
from winspect.feedback.records import Records
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method

SPLITS, ROUNDS, PICTURES, DEFECTIVE = 200, 5, 400, 0.08
CASES = ((0.01, 200), (0.05, 100))
"""Rates of false alarms, each with the good pictures calibrated on at first."""
AUDIT_RATE, WRONG, ALLOWED_EXCESS = 0.1, 0.05, 0.005
SHIFT = 2.5
"""Between defective and good scores, in standard deviations."""
WAYS = ("audit", "audit_errors_at_high_scores", "audit_and_raise", "judged", "unflagged")

_IDENTITY = Identity("generated", "00", get_method("paper"), "none", "fp32", "cpu", class_name="part")
_DATE = "2026-11-28T00:00:00Z"


class Line:
    """Pictures of one split, its log and its operator.

    Args:
        errors_at_high_scores: whether good pictures are called defective only where they are flagged.
    """

    def __init__(self, random: np.random.Generator, *, errors_at_high_scores: bool = False) -> None:
        self.random, self.at_high_scores = random, errors_at_high_scores
        self.records, self.count = Records(), 0
        self.records.take({"event": "run", "run": "r", "identity": _IDENTITY.entries()})
        self.judged_good: list[float] = []
        self.unflagged: list[float] = []

    def round(self, scores: np.ndarray, is_defective: np.ndarray, threshold: float) -> None:
        """Judge pictures; the operator answers those flagged or drawn."""
        drawn, slips = self.random.random(len(scores)) < AUDIT_RATE, self.random.random(len(scores)) < WRONG
        for score, defective, is_drawn, slip in zip(scores, is_defective, drawn, slips, strict=True):
            self.count += 1
            flagged = bool(score > threshold)
            entry = {"event": "picture", "n": self.count, "id": str(self.count), "time": _DATE, "path": "x"}
            entry |= {"class": "part", "score": float(score), "verdict": "anomalous" if flagged else "normal"}
            self.records.take({**entry, "threshold": threshold, "run": "r", "audit": bool(is_drawn)})
            if not flagged:
                self.unflagged.append(float(score))
            if is_drawn or flagged:
                wrong = slip and (flagged or defective or not self.at_high_scores)
                self._answer(float(score), bool(defective) == bool(wrong))

    def _answer(self, score: float, is_good: bool) -> None:
        if is_good:
            self.judged_good.append(score)
        answer = {"event": "feedback", "id": str(self.count), "answer": "good" if is_good else "defective"}
        self.records.take({**answer, "by": "operator", "time": _DATE, "stands": True})


def batch(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a round, and which are defective."""
    is_defective = random.random(PICTURES) < DEFECTIVE
    return random.normal(np.where(is_defective, SHIFT, 0.0)), is_defective


def made_of(scores: Sequence[float], rate: float) -> Calibration:
    """A calibration on scores."""
    return Calibration(_IDENTITY, rate, tuple(sorted(map(float, scores))), None, _DATE)


def feedback_rounds(way: str, rate: float, pictures: int, seed: int) -> tuple[list[float], int]:
    """Thresholds before the first round and after each, and how many recalibrations were refused."""
    random = np.random.default_rng(seed)
    first = current = made_of(random.normal(size=pictures), rate)
    line, refused = Line(random, errors_at_high_scores=way == "audit_errors_at_high_scores"), 0
    thresholds = [first.threshold]
    for _ in range(ROUNDS):
        line.round(*batch(random), current.threshold)
        if way in ("judged", "unflagged"):
            current = made_of([*first.scores, *(line.judged_good if way == "judged" else line.unflagged)], rate)
        else:
            made = recalibrated(first, line.records, date=_DATE, also_raise=way == "audit_and_raise")
            refused += made.is_contradicted
            current = current if made.is_contradicted else made.calibration
        thresholds.append(current.threshold)
    return thresholds, refused


def rates_of(thresholds: np.ndarray, rate: float) -> dict[str, Any]:
    """Mean shares over the splits."""
    alarms, found = norm.sf(thresholds), norm.sf(thresholds - SHIFT)
    return {
        "false_alarms_before": round(float(alarms[:, 0].mean()), 5),
        "false_alarms_after_each_round": [round(float(each), 5) for each in alarms[:, 1:].mean(axis=0)],
        "standard_error": round(float(alarms[:, -1].std(ddof=1) / len(alarms) ** 0.5), 5),
        "found_before": round(float(found[:, 0].mean()), 4),
        "found_after": round(float(found[:, -1].mean()), 4),
        "kept": bool((alarms.mean(axis=0) <= rate + ALLOWED_EXCESS).all()),
    }


def of_way(way: str, rate: float, pictures: int, splits: int) -> dict[str, Any]:
    """All splits of a way."""
    runs = [feedback_rounds(way, rate, pictures, seed) for seed in range(splits)]
    refused = sum(number for _, number in runs) / (splits * ROUNDS)
    return {**rates_of(np.array([thresholds for thresholds, _ in runs]), rate), "refused": round(refused, 4)}


def line_changed(rate: float, pictures: int, splits: int, moved: float = 1.0) -> float:
    """The share of recalibrations that are refused after a round in which good scores have moved."""
    refused = 0
    for seed in range(splits):
        random = np.random.default_rng(seed)
        first, line = made_of(random.normal(size=pictures), rate), Line(random)
        scores, is_defective = batch(random)
        line.round(scores + moved, is_defective, first.threshold)
        try:
            refused += recalibrated(first, line.records, date=_DATE).is_contradicted
        except FeedbackError:  # nobody was drawn
            continue
    return round(refused / splits, 4)


# -- good samples from feedback

_DIMENSIONS, _SHOTS, _RARE, _MOST_NEW = 6, 16, 0.1, 8


def points(random: np.random.Generator, number: int, kind: str) -> np.ndarray:
    """float64 (number, dimensions): common good parts, rare ones, or defective ones."""
    centre = np.zeros(_DIMENSIONS)
    centre[{"common": 2, "rare": 0, "defective": 1}[kind]] = {"common": 0.0, "rare": 6.0, "defective": 5.0}[kind]
    return random.normal(centre, 1.0, (number, _DIMENSIONS))


def good_points(random: np.random.Generator, number: int) -> np.ndarray:
    """Good parts as the line makes them."""
    is_rare = random.random((number, 1)) < _RARE
    return np.where(is_rare, points(random, number, "rare"), points(random, number, "common"))


def reference_rounds(rate: float, pictures: int, seed: int) -> list[tuple[float, float]]:
    """False alarms and defective parts found, before and after each round, on 2,000 new parts each."""
    random = np.random.default_rng(seed)
    shots, pool = points(random, _SHOTS, "common"), good_points(random, pictures)
    found: list[tuple[float, float]] = []

    def decide() -> Callable[[np.ndarray], np.ndarray]:
        threshold = conformal_threshold(np.sort(cdist(pool, shots).min(axis=1)).tolist(), rate)
        return lambda parts: cdist(parts, shots).min(axis=1) > threshold

    def test() -> None:
        is_flagged = decide()
        good, bad = good_points(random, 2000), points(random, 2000, "defective")
        found.append((float(is_flagged(good).mean()), float(is_flagged(bad).mean())))

    test()
    for _ in range(ROUNDS):
        bad = random.random((PICTURES, 1)) < DEFECTIVE
        parts = np.where(bad, points(random, PICTURES, "defective"), good_points(random, PICTURES))
        flagged, drawn = decide()(parts), random.random(PICTURES) < AUDIT_RATE
        said_good = bad[:, 0] == (random.random(PICTURES) < WRONG)
        pool = np.concatenate([pool, parts[drawn & said_good]])
        shots = np.concatenate([shots, parts[flagged & said_good & ~drawn][:_MOST_NEW]])
        test()
    return found


def of_references(rate: float, pictures: int, splits: int) -> dict[str, Any]:
    """All splits with good samples from feedback."""
    found = np.array([reference_rounds(rate, pictures, seed) for seed in range(splits)])
    alarms = found[:, :, 0].mean(axis=0)
    return {
        "false_alarms_before": round(float(alarms[0]), 5),
        "false_alarms_after_each_round": [round(float(each), 5) for each in alarms[1:]],
        "standard_error": round(float(found[:, -1, 0].std(ddof=1) / splits**0.5), 5),
        "found_before": round(float(found[:, 0, 1].mean()), 4),
        "found_after": round(float(found[:, -1, 1].mean()), 4),
        "kept": bool((alarms <= rate + ALLOWED_EXCESS).all()),
    }


def measure(splits: int = SPLITS) -> list[dict[str, Any]]:
    """All ways at all rates."""
    cases = []
    for rate, pictures in CASES:
        ways = {way: of_way(way, rate, pictures, splits) for way in WAYS}
        ways["references"] = of_references(rate, pictures, splits)
        changed = line_changed(rate, pictures, splits)
        cases.append({"asked": rate, "calibrated_on": pictures, **ways, "line_changed_refused": changed})
    return cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; returns 1 where a way of winspect's does not keep the promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=SPLITS, help=f"default: {SPLITS}")
    parser.add_argument("--out", type=Path, default=RESULTS / "feedback.json")
    args = parser.parse_args(arguments)
    cases = measure(args.splits)
    settings = {"splits": args.splits, "rounds": ROUNDS, "pictures_per_round": PICTURES, "defective": DEFECTIVE}
    settings |= {"audit_rate": AUDIT_RATE, "wrong_answers": WRONG, "allowed_excess": ALLOWED_EXCESS}
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_json(args.out, {"schema": 1, "date": now, "machine": machine(), **settings, "cases": cases})
    ours = ("audit", "audit_errors_at_high_scores", "audit_and_raise", "references")
    for case in cases:
        for way in (*WAYS, "references"):
            rates = case[way]
            print(
                f"{case['asked']:g} {way:28} alarms {rates['false_alarms_before']:.4f} -> "
                f"{rates['false_alarms_after_each_round'][-1]:.4f}, found {rates['found_before']:.3f} -> "
                f"{rates['found_after']:.3f}{'' if rates['kept'] else ', NOT KEPT'}"
            )
        print(f"{case['asked']:g} line changed: refused {case['line_changed_refused']:.3f}")
    return 0 if all(case[way]["kept"] for case in cases for way in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
