"""Are defects hit by boxes, and good pictures free of them: ``python -m benchmarks.boxes``.

Product lines are generated that the bundled model was not trained on, and two of boards with traces and parts. Of each,
100 good pictures are calibrated on, 40 further ones are good and 20 defective; zero-shot, and with four good samples.
A defect is a region of the mask, its fragments nearer than a patch taken together. It is hit by a box with an
intersection over union of at least 0.3. Written to results/boxes.json, before and after:

before: the rule of 1.0, a box around everything above the pixel threshold, whatever the verdict
after: :class:`winspect.calibration.RegionRule`

``REACH`` was chosen on other lines (seeds 71 and 72) of the same families.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.measuring import RESULTS, machine, write_json
from training.generator import HELDOUT
from training.generator.pair import Line, make_line
from winspect import Result, WinCLIP
from winspect.calibration.conformal import conformal_threshold
from winspect.calibration.defects import Box, regions_of
from winspect.calibration.judgement import verdict_of
from winspect.calibration.regions import RegionRule, map_peak

BOARDS = ("circuit_board", "bare_board")
SEED, SHOTS, CALIBRATED, GOOD, DEFECTIVE = 73, 4, 100, 40, 20
RATES = (0.01, 0.05, 0.1)
HIT_FROM, PATCH = 0.3, 16
EIGHT = np.ones((3, 3), int)

Finder = Callable[[Result], Sequence[Box]]


@dataclass
class Counts:
    """What was counted over lines."""

    defects: int = 0
    hit: int = 0
    in_flagged: int = 0
    hit_in_flagged: int = 0
    boxes: int = 0
    right_boxes: int = 0
    defective: int = 0
    good: int = 0
    false_boxes: int = 0

    def figures(self) -> dict[str, float | int]:
        """Shares and means, as the JSON has them."""
        return {
            "defects": self.defects,
            "hit": self.hit / self.defects,
            "in_pictures_judged_anomalous": self.in_flagged / self.defects,
            "hit_in_those": self.hit_in_flagged / max(1, self.in_flagged),
            "boxes_per_defective_picture": self.boxes / self.defective,
            "boxes_that_hit": self.right_boxes / max(1, self.boxes),
            "false_boxes_per_good_picture": self.false_boxes / self.good,
        }


@dataclass
class Judged:
    """The results of one line: calibrated on, good, defective; and the boxes of its defects."""

    calibrated: list[Result]
    good: list[Result]
    defective: list[Result]
    truth: list[list[Box]] = field(default_factory=list)


def true_boxes(mask: np.ndarray) -> list[Box]:
    """A box around each defect; fragments nearer than a patch are one. Specks under 20 pixels are noise of masks."""
    regions, count = ndimage.label(ndimage.binary_dilation(mask, EIGHT, iterations=PATCH // 2), EIGHT)
    found = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero((regions == number) & mask)
        if len(rows) >= 20:
            found.append((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    return found


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    inside = max(0, width) * max(0, height)
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return inside / (first + second - inside)


def hits(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box meets one of the others."""
    return max((overlap(box, other) for other in others), default=0.0) >= HIT_FROM


def before(calibrated: Sequence[Result], rate: float) -> Finder:
    """Everything above the largest value that good maps reach, whatever the verdict."""
    threshold = conformal_threshold(sorted(float(one.anomaly_map.max()) for one in calibrated), rate)
    return lambda result: regions_of(result.anomaly_map > threshold).boxes


def after(calibrated: Sequence[Result], rate: float) -> Finder:
    """Regions of peaks, in pictures judged anomalous."""
    rule = RegionRule(conformal_threshold(sorted(map(map_peak, calibrated)), rate))
    verdict = verdicts(calibrated, rate)
    return lambda result: rule.find(result, verdict(result)).boxes


def verdicts(calibrated: Sequence[Result], rate: float) -> Callable[[Result], str]:
    """The verdict of a calibration on these results."""
    threshold = conformal_threshold(sorted(one.anomaly_score for one in calibrated), rate)
    return lambda result: verdict_of(result.anomaly_score, threshold, anomalous_at=False)


def count(line: Judged, find: Finder, verdict: Callable[[Result], str], counts: Counts) -> None:
    """Add what a rule does on a line."""
    for result, truth in zip(line.defective, line.truth, strict=True):
        boxes = find(result)
        hit = sum(hits(box, boxes) for box in truth)
        counts.defects, counts.hit = counts.defects + len(truth), counts.hit + hit
        if verdict(result) == "anomalous":
            counts.in_flagged, counts.hit_in_flagged = counts.in_flagged + len(truth), counts.hit_in_flagged + hit
        counts.boxes += len(boxes)
        counts.right_boxes += sum(hits(box, truth) for box in boxes)
        counts.defective += 1
    counts.false_boxes += sum(len(find(result)) for result in line.good)
    counts.good += len(line.good)


def judge(model: WinCLIP, line: Line, noun: str, *, shots: int) -> Judged:
    """The results of a line's pictures; the first good ones are the references of few-shot, and not judged."""
    if shots:
        model.reference(list(line.good_rgb[:shots]), noun)
    good = list(model.predict_many(list(line.good_rgb[SHOTS:]), noun))
    defective = list(model.predict_many(list(line.defective_rgb), noun))
    model.forget(noun)
    return Judged(good[:CALIBRATED], good[CALIBRATED:], defective, [true_boxes(mask) for mask in line.masks])


def main() -> None:
    """Measure, and write the JSON."""
    model = WinCLIP("winspect-tiny", device="cpu")
    judged: dict[str, dict[str, list[Judged]]] = {"zero-shot": {}, "few-shot": {}}
    for family in (*HELDOUT, *BOARDS):
        line = make_line(family, SEED, good=SHOTS + CALIBRATED + GOOD, defective=DEFECTIVE)
        kind = "boards" if family in BOARDS else "held-out families"
        for name, shots in (("zero-shot", 0), ("few-shot", SHOTS)):
            judged[name].setdefault(kind, []).append(judge(model, line, family.replace("_", " "), shots=shots))
        print(family, file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for name, kinds in judged.items():
        for kind, lines in kinds.items():
            for rate in RATES:
                row: dict[str, Any] = {"judged": name, "lines": kind, "max_false_alarms": rate}
                for rule in (before, after):
                    counts = Counts()
                    for one in lines:
                        count(one, rule(one.calibrated, rate), verdicts(one.calibrated, rate), counts)
                    row[rule.__name__] = {key: round(value, 4) for key, value in counts.figures().items()}
                rows.append(row)
                print(json.dumps(row))
    document = {"schema": 1, "machine": machine(), "model": model.describe(), "seed": SEED, "rows": rows}
    write_json(RESULTS / "boxes.json", document, indent=1)


if __name__ == "__main__":
    main()
