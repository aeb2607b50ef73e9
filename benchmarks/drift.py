"""The drift alarm: false alarms without drift, and the delay with it: ``python -m benchmarks.drift``.

The pictures are generated: good items of one product of the generator (see ``benchmarks.example_part``), each with a
pose and a light of its own. Their scores are those of the bundled model with four good samples, their statistics those
that ``watch`` and ``serve`` measure; what is called normal is decided by a threshold that was calibrated on others of
them. A few hundred pictures are rendered and inspected; a line of 100,000 is drawn from them with replacement. Drift is
put on the pictures themselves (the levels of a lamp, a blur, a shift), which are then inspected again, at some stages
of each drift; between two stages, scores and statistics of a picture are interpolated. Where lines drift, noise of a
fifth of the spread is added to every value drawn: else the slightest change would show in a picture beside its copies.

Written to results/drift.json:

* without drift: the share of lines that ever give an alarm within 100,000 pictures, beside the rate asked for, and the
  same where p-values are taken against the first 100 pictures for ever, which is what must not be done. All lines are
  computed at once by a twin of the package's code, which is compared with it first;
* with drift, by the package's code: pictures from the beginning of the drift to the alarm, what gave it, how far off
  the estimated beginning is, and how many pictures had been called anomalous before;
* what it costs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.example_part import FAMILY, SEED
from benchmarks.measuring import RESULTS, machine, timed, write_json
from training.generator.pair import make_line
from winspect import WinCLIP
from winspect.calibration.conformal import conformal_threshold
from winspect.drift import DriftSettings
from winspect.drift.alarm import DriftAlarm
from winspect.drift.line import Line, LineState
from winspect.drift.martingale import POWERS
from winspect.drift.ranks import tie_breaker
from winspect.drift.settings import SCORE, WATCHED
from winspect.pictures.statistics import picture_statistics

RATES = (0.5, 0.2, 0.1, 0.05, 0.01)
FALSE_ALARMS = 0.01
REFERENCES, CALIBRATED, LINE = 4, 120, 120
BEFORE, LONGEST = 1000, 2000
"""Pictures before the drift begins, and after, at most."""
_BLOCK, _CHUNK, _TOGETHER = 128, 250, 50
_NOISE = 0.2  # of the spread


@dataclass(frozen=True)
class Drift:
    """What happens to a camera.

    Attributes:
        words: for the report.
        change: a picture, uint8 (height, width, 3), and the stage of the drift -> the picture then.
        stages: at which pictures are inspected; the first is 0, no drift.
        per_picture: how far it gets with each picture; 0 for a drift that is at its last stage at once.
    """

    words: str
    change: Callable[[np.ndarray, float], np.ndarray]
    stages: tuple[float, ...]
    per_picture: float

    def stage(self, pictures: int) -> float:
        """The stage so many pictures after the beginning."""
        return min(self.stages[-1], self.per_picture * pictures) if self.per_picture else self.stages[-1]


def _faded(rgb: np.ndarray, percents: float) -> np.ndarray:
    return np.rint(rgb * 0.99**percents).astype(np.uint8)


def _blurred(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def _shifted(rgb: np.ndarray, pixels: float) -> np.ndarray:
    count = int(pixels)
    return np.pad(rgb, ((0, 0), (count, 0), (0, 0)), mode="reflect")[:, : rgb.shape[1]]


DRIFTS = {
    "lamp": Drift("the lamp fades by 1 % per 100 pictures", _faded, (0, 1, 2, 4, 8), 1 / 100),
    "focus": Drift(
        "the lens loosens: a blur of 0.2 px more per 100 pictures", _blurred, (0, 0.3, 0.6, 1.2, 2.4), 0.2 / 100
    ),
    "shift": Drift("the camera creeps by 1 px of 240 per 100 pictures", _shifted, (0, 1, 2, 4, 8), 1 / 100),
    "knock": Drift("the camera is knocked by 2.5 % of the width", _shifted, (0, 6), 0),
    "push": Drift("the camera is pushed by 15 % of the width", _shifted, (0, 36), 0),
}


@dataclass(frozen=True)
class Inspected:
    """What is known of the pictures of the line.

    Attributes:
        still: (pictures, statistics) without drift, in the order of :data:`WATCHED`.
        drifting: by drift (stages, pictures, statistics).
        threshold: scores above it are anomalous.
    """

    still: np.ndarray
    drifting: dict[str, np.ndarray]
    threshold: float


def inspect(count: int, say: Callable[[str], None]) -> tuple[Inspected, dict[str, Any]]:
    """Render and inspect the pictures; also the description of the model."""
    rendered = make_line(FAMILY, SEED, good=REFERENCES + CALIBRATED + count, defective=1).good_rgb
    say(f"{len(rendered)} pictures rendered")
    model = WinCLIP("winspect-tiny", device="cpu", precision="fp32")
    model.reference(list(rendered[:REFERENCES]), "hex nut")
    model.measure = True

    def values_of(pictures: Iterator[np.ndarray]) -> np.ndarray:
        found = []
        for result in model.predict_many(pictures, "hex nut", maps=False):
            if result.error is not None or result.statistics is None:
                raise result.error or ValueError("no statistics")
            found.append([{**result.statistics, SCORE: result.anomaly_score}[name] for name in WATCHED])
        return np.array(found)

    calibrated, line = rendered[REFERENCES : REFERENCES + CALIBRATED], rendered[REFERENCES + CALIBRATED :]
    scores = values_of(iter(calibrated))[:, WATCHED.index(SCORE)]
    still = values_of(iter(line))
    drifting = {}
    for name, drift in DRIFTS.items():
        changed = [values_of(drift.change(rgb, stage) for rgb in line) for stage in drift.stages[1:]]
        drifting[name] = np.stack([still, *changed])
        say(f"{name} inspected")
    described = {name: value for name, value in model.describe().items() if name != "prompts"}
    return Inspected(still, drifting, conformal_threshold(sorted(scores), FALSE_ALARMS)), described


# -- without drift: all lines at once


def random_ties(rng: np.random.Generator, count: int) -> np.ndarray:
    """As :func:`winspect.drift.ranks.tie_breaker` makes them, from another generator."""
    return (rng.integers(0, 2**32, count) + 0.5) / 2**32


def online_p_values(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """P-values of a whole sequence: see :class:`winspect.drift.ranks.OnlineRanks`."""
    levels, codes = np.unique(values, return_inverse=True)
    counts = np.zeros(len(levels), np.int64)
    larger, equal = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
    for start in range(0, len(values), _BLOCK):
        block = codes[start : start + _BLOCK]
        earlier = np.tri(len(block), k=-1, dtype=bool)
        up_to = np.cumsum(counts)
        larger[start : start + _BLOCK] = start - up_to[block] + ((block > block[:, None]) & earlier).sum(axis=1)
        equal[start : start + _BLOCK] = counts[block] + ((block == block[:, None]) & earlier).sum(axis=1)
        counts += np.bincount(block, minlength=len(levels))
    return (larger + ties * (equal + 1)) / np.arange(1, len(values) + 1)


def fixed_p_values(values: np.ndarray, ties: np.ndarray, size: int = 100) -> np.ndarray:
    """P-values against the first ``size`` values for ever, of those that follow."""
    first, rest = np.sort(values[:size]), values[size:]
    low, high = np.searchsorted(first, rest, "left"), np.searchsorted(first, rest, "right")
    return (size - high + ties[size:] * (high - low + 1)) / (size + 1)


def highest_capitals(p_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest capital of each sequence, and the last.

    Args:
        p_values: (steps, sequences).
    """
    steps, sequences = p_values.shape
    powers = np.array(POWERS)
    bets = np.zeros((sequences, 2 * len(powers)))
    highest, capital = np.ones(sequences), np.ones(sequences)
    kept = 1 / (1 + np.log(np.arange(1, steps + 2)))
    for start in range(0, steps, _CHUNK):
        p = p_values[start : start + _CHUNK]
        logs = np.stack([np.log(p), np.log1p(-p)], axis=-1)
        factors = (powers * np.exp(logs[..., None] * (powers - 1))).reshape(*p.shape, -1)
        for place, step_factors in enumerate(factors, start):
            bets += (kept[place] - kept[place + 1]) / bets.shape[1]
            bets *= step_factors
            capital = bets.sum(axis=1) + kept[place + 1]
            np.maximum(highest, capital, out=highest)
    return highest, capital


def twin_difference(still: np.ndarray, pictures: int = 1500) -> float:
    """The largest difference between the package's logarithms of capitals and this twin's."""
    settings = DriftSettings()
    line = Line("line", settings, LineState.new(settings))
    rows = still[np.random.default_rng(1).integers(len(still), size=pictures)]
    for row in rows:
        values = dict(zip(WATCHED, map(float, row), strict=True))
        line.accept(line.after(values), values)
    p_values = []
    for place, name in enumerate(WATCHED):
        ties = np.array([tie_breaker(0, "line", 1, name, number) for number in range(1, pictures + 1)])
        p_values.append(online_p_values(rows[:, place], ties))
    _, capitals = highest_capitals(np.stack(p_values, axis=1))
    pairs = zip(WATCHED, capitals, strict=True)
    return max(abs(line.state.martingales[name].log_capital - math.log(capital)) for name, capital in pairs)


def without_drift(inspected: Inspected, lines: int, pictures: int, p_of: Callable[..., np.ndarray]) -> dict[str, Any]:
    """Lines without drift, and the shares that ever give an alarm.

    Scores are those of pictures called normal, some fewer; of lines that are computed together, as many as all have.
    """
    highest = [
        _highest_of_lines(inspected, range(start, min(start + _TOGETHER, lines)), pictures, p_of)
        for start in range(0, lines, _TOGETHER)
    ]
    of_lines = np.concatenate(highest)
    shares = [float((of_lines.max(axis=1) >= len(WATCHED) / rate).mean()) for rate in RATES]
    alone = [(of_lines >= 1 / rate).mean(axis=0).tolist() for rate in RATES]
    return {
        "lines": lines,
        "pictures_each": pictures,
        "alarms": [{"asked": rate, "share": share} for rate, share in zip(RATES, shares, strict=True)],
        "martingales_alone": [
            {"asked": rate, "shares": dict(zip(WATCHED, shares, strict=True))}
            for rate, shares in zip(RATES, alone, strict=True)
        ],
    }


def _highest_of_lines(inspected: Inspected, seeds: range, pictures: int, p_of: Callable[..., np.ndarray]) -> np.ndarray:
    """The highest capitals of some lines: (lines, statistics)."""
    is_normal = inspected.still[:, WATCHED.index(SCORE)] <= inspected.threshold
    p_values: dict[str, list[np.ndarray]] = {name: [] for name in WATCHED}
    for seed in seeds:
        rng = np.random.default_rng([seed, 7])
        drawn = rng.integers(len(inspected.still), size=pictures)
        for place, name in enumerate(WATCHED):
            taken = drawn[is_normal[drawn]] if name == SCORE else drawn
            p_values[name].append(p_of(inspected.still[taken, place], random_ties(rng, len(taken))))
    scores = p_values.pop(SCORE)
    most = min(map(len, scores))
    others = np.stack([column for columns in p_values.values() for column in columns], axis=1)
    by_name = {SCORE: highest_capitals(np.stack([column[:most] for column in scores], axis=1))[0]}
    by_name |= zip(p_values, highest_capitals(others)[0].reshape(len(p_values), -1), strict=True)
    return np.stack([by_name[name] for name in WATCHED], axis=1)


# -- with drift: the package's code


def stream(inspected: Inspected, name: str, seed: int) -> Iterator[np.ndarray]:
    """Values of the pictures of a line that drifts after :data:`BEFORE` pictures."""
    rng, drift, values = np.random.default_rng(seed), DRIFTS[name], inspected.drifting[name]
    for number in range(1, BEFORE + LONGEST + 1):
        picture = rng.integers(len(inspected.still))
        stage = drift.stage(number - BEFORE) if number > BEFORE else 0.0
        later = min(int(np.searchsorted(drift.stages, stage, "right")), len(drift.stages) - 1)
        begin, end = drift.stages[later - 1], drift.stages[later]
        share = (stage - begin) / (end - begin)
        noise = _NOISE * rng.normal(size=len(WATCHED)) * inspected.still.std(axis=0)
        yield (1 - share) * values[later - 1, picture] + share * values[later, picture] + noise


def with_drift(inspected: Inspected, name: str, repetitions: int) -> dict[str, Any]:
    """Delays of the alarm, and what gave it."""
    settings, delays, errors, found, anomalous, early = DriftSettings(), [], [], [], [], 0
    for seed in range(repetitions):
        line, alarming = Line(name, DriftSettings(seed=seed), LineState.new(settings)), 0
        for number, row in enumerate(stream(inspected, name, seed), 1):
            values = dict(zip(WATCHED, map(float, row), strict=True))
            if values[SCORE] > inspected.threshold:
                del values[SCORE]
                alarming += number > BEFORE
            line.accept(line.after(values), values)
            if line.state.crossing is not None:
                break
        crossing = line.state.crossing
        if crossing is None:
            continue
        if crossing.number <= BEFORE:
            early += 1
            continue
        delays.append(crossing.number - BEFORE)
        errors.append(crossing.since - BEFORE - 1)
        found.append(f"{crossing.statistic} {crossing.direction}")
        anomalous.append(alarming / (crossing.number - BEFORE))
    return {
        "what": DRIFTS[name].words,
        "lines": repetitions,
        "found": len(delays),
        "before_the_drift": early,
        "delay": _spread(delays),
        "since_minus_beginning": _spread(errors),
        "called_anomalous_until_the_alarm": _spread(anomalous),
        "given_by": {words: found.count(words) for words in sorted(set(found))},
    }


# -- what it costs


def cost(pictures: int = 2000) -> dict[str, float]:
    """Milliseconds of a core for each picture: its statistics, by its size, and taking them into account."""
    rng = np.random.default_rng(0)
    costs = {}
    for size_wh in ((640, 480), (1024, 1024), (4000, 3000)):
        image = Image.fromarray(rng.integers(0, 256, (*size_wh[::-1], 3), np.uint8))
        _, seconds = timed(lambda image=image: [picture_statistics(image) for _ in range(20)], time.process_time)
        costs[f"statistics_ms_{size_wh[0]}x{size_wh[1]}"] = 1e3 * seconds / 20
    row = {"path": "part.png", "class": "nut", "anomaly_score": 0.0, "verdict": "normal", "error": None, "id": "0" * 32}
    values = rng.normal(size=(pictures, len(WATCHED)))
    with TemporaryDirectory() as folder, DriftAlarm(Path(folder)) as alarm:

        def take_all() -> None:
            for scored in values.tolist():
                statistics = dict(zip(WATCHED, scored, strict=True))
                alarm.take({**row, "anomaly_score": statistics.pop(SCORE)}, statistics)

        costs["take_ms"] = 1e3 * timed(take_all, time.process_time)[1] / pictures
    return costs


def _spread(values: list[Any]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": float(np.median(values)), "least": float(min(values)), "most": float(max(values))}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    described_machine = machine()
    inspected, described = inspect(args.rendered, say)
    difference = twin_difference(inspected.still)
    drifts = {}
    for name in DRIFTS:
        drifts[name] = with_drift(inspected, name, args.repetitions)
        say(f"{name}: {drifts[name]['delay']}, {drifts[name]['given_by']}")
    spread = {
        name: float(column.std() / column.mean()) for name, column in zip(WATCHED, inspected.still.T, strict=True)
    }
    return {
        "schema": 1,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": described_machine,
        "model": described,
        "product": {"family": FAMILY, "seed": SEED, "rendered": args.rendered, "calibrated_on": CALIBRATED},
        "relative_spread": spread,
        "called_anomalous_without_drift": float((inspected.still[:, 0] > inspected.threshold).mean()),
        "largest_difference_of_the_twin": difference,
        "rate_with_drift": DriftSettings().rate,
        "pictures_before_the_drift": BEFORE,
        "cost": cost(),
        "with_drift": drifts,
        "without_drift": without_drift(inspected, args.lines, args.pictures, online_p_values),
        "fixed_reference_without_drift": without_drift(inspected, args.fixed_lines, args.pictures, fixed_p_values),
    }


def main() -> int:
    """The command line; 1 when more lines give a false alarm than was asked for, or a drift is not found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--lines", type=int, default=200, help="lines without drift (default: %(default)s)")
    parser.add_argument(
        "--fixed-lines", type=int, default=20, help="of them with a fixed reference (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=int, default=100_000, help="of a line (default: %(default)s)")
    parser.add_argument(
        "--rendered", type=int, default=LINE, help="pictures that lines are drawn from (default: %(default)s)"
    )
    parser.add_argument("--repetitions", type=int, default=20, help="of each drift (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS / "drift.json", help="where to write figures")
    parser.add_argument("--cost", action="store_true", help="measure the cost alone, and put it into the file")
    args = parser.parse_args()
    if args.cost:
        write_json(args.json, {**json.loads(args.json.read_text()), "cost": cost()})
        return 0
    figures = measure(args)
    write_json(args.json, figures)
    for entry in figures["without_drift"]["alarms"]:
        print(f"without drift, asked {entry['asked']:g}: {entry['share']:.4f} of {args.lines} lines")
    for entry in figures["fixed_reference_without_drift"]["alarms"]:
        print(f"against a fixed reference, asked {entry['asked']:g}: {entry['share']:.4f} of {args.fixed_lines} lines")
    for entry in figures["with_drift"].values():
        print(f"{entry['what']}: {entry['found']} of {entry['lines']} found, {entry['delay']}, {entry['given_by']}")
    too_many = any(entry["share"] > entry["asked"] for entry in figures["without_drift"]["alarms"])
    missed = any(
        entry["found"] + entry["before_the_drift"] < entry["lines"] for entry in figures["with_drift"].values()
    )
    return int(too_many or missed or figures["largest_difference_of_the_twin"] > 1e-9)


if __name__ == "__main__":
    sys.exit(main())
