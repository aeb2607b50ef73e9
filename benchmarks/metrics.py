"""Whether the metrics are fast enough, against the loop over 200 thresholds that is in common use.

    python -m benchmarks.metrics [--rounds 3] [--json FILE]

Measures AUPRO of 200 maps of 240 x 240 with 100 defect regions, and all pixel metrics of the same maps, in turn with
two loops on the same input: the usual one, which labels the regions of every mask again at every threshold, and a tight
one, which labels them once. Exits with 1 when a bar is missed: AUPRO under 3 s and 20 times faster than the usual loop,
all pixel metrics under 8 s.
"""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np
from scipy import ndimage

from benchmarks.measuring import in_turn, machine, write_json
from winspect.metrics import aupro, pixel_metrics

PICTURES, SIDE, REGIONS, THRESHOLDS, MAX_FPR = 200, 240, 100, 200, 0.3
BARS = {"aupro_s": 3.0, "pixel_metrics_s": 8.0, "times_faster_than_usual_loop": 20.0}


def make_maps(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise as maps, with a rise at most of the defects; every other picture has one round defect."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((PICTURES, SIDE, SIDE), bool)
    y, x = np.mgrid[:SIDE, :SIDE]
    for mask in masks[: 2 * REGIONS : 2]:
        (cy, cx), radius = rng.integers(30, SIDE - 30, 2), rng.integers(4, 28)
        mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = True
    noise = rng.standard_normal((PICTURES, SIDE, SIDE), np.float32)
    maps = np.stack([ndimage.gaussian_filter(heat, 3) for heat in noise])
    maps += masks * rng.uniform(0, 0.3, (PICTURES, 1, 1)).astype(np.float32)
    return maps, masks


def area_of_loop(maps: np.ndarray, overlap_at: Callable, fpr_at: Callable) -> float:
    """Area to MAX_FPR under the curve through evenly spaced thresholds."""
    fpr, overlap = [0.0], [0.0]
    for threshold in np.linspace(maps.max(), maps.min(), THRESHOLDS):
        found = maps >= threshold
        fpr.append(fpr_at(found))
        overlap.append(overlap_at(found))
    x = np.array(fpr)
    inside = np.append(x[x < MAX_FPR], MAX_FPR)
    heights = np.interp(inside, x, overlap)
    return float((np.diff(inside) * (heights[1:] + heights[:-1]) / 2).sum() / MAX_FPR)


def region_overlaps(found: np.ndarray, regions: np.ndarray, count: int) -> Iterable[float]:
    """The found fraction of each region of one picture."""
    return ndimage.mean(found, regions, range(1, count + 1)) if count else ()


def usual_loop(maps: np.ndarray, masks: np.ndarray) -> float:
    """As in public code: at every threshold, for every picture, label the mask and visit its regions."""

    def overlap_at(found: np.ndarray) -> float:
        overlaps: list[float] = []
        for picture, mask in zip(found, masks, strict=True):
            regions, count = ndimage.label(mask, np.ones((3, 3)))
            overlaps.extend(region_overlaps(picture, regions, count))
        return float(np.mean(overlaps))

    good = ~masks
    return area_of_loop(maps, overlap_at, lambda found: np.logical_and(found, good).sum() / good.sum())


def tight_loop(maps: np.ndarray, masks: np.ndarray) -> float:
    """The same with everything that does not depend on the threshold taken out of the loop."""
    good = ~masks
    n_good = good.sum()
    pixels = []
    for index in np.flatnonzero(masks.any(axis=(1, 2))):
        regions, count = ndimage.label(masks[index], np.ones((3, 3)))
        pixels += [index * SIDE * SIDE + np.flatnonzero(regions == region) for region in range(1, count + 1)]

    def overlap_at(found: np.ndarray) -> float:
        flat = found.reshape(-1)
        return float(np.mean([flat[region].mean() for region in pixels]))

    return area_of_loop(maps, overlap_at, lambda found: np.count_nonzero(found & good) / n_good)


def peak_mb(job: Callable[[], object]) -> float:
    """The most memory a job holds beside its input."""
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def measure(rounds: int) -> dict:
    """Median seconds of each job, taken in turn, and what each says AUPRO is."""
    maps, masks = make_maps()
    jobs: dict[str, Callable] = {
        "aupro": lambda: aupro(maps, masks, max_fpr=MAX_FPR),
        "pixel_metrics": lambda: pixel_metrics(maps, masks, max_fpr=MAX_FPR)["pixel_aupro"],
        "tight_loop": lambda: tight_loop(maps, masks),
        "usual_loop": lambda: usual_loop(maps, masks),
    }
    figures: dict[str, float] = {}
    noted = {name: lambda name=name, job=job: figures.update({name: round(job(), 6)}) for name, job in jobs.items()}
    seconds = in_turn(noted, rounds)
    medians = {name: median(taken) for name, taken in seconds.items()}
    return {
        "input": {"maps": list(maps.shape), "dtype": str(maps.dtype), "regions": REGIONS, "maps_mb": maps.nbytes / 1e6},
        "median_s": {name: round(taken, 4) for name, taken in medians.items()},
        "rounds_s": {name: [round(value, 4) for value in taken] for name, taken in seconds.items()},
        "aupro": figures,
        "times_faster_than_usual_loop": round(medians["usual_loop"] / medians["aupro"], 1),
        "times_faster_than_tight_loop": round(medians["tight_loop"] / medians["aupro"], 1),
        "pixel_metrics_peak_mb": round(peak_mb(jobs["pixel_metrics"]), 1),
    }


def missed_bars(report: dict) -> list[str]:
    """The bars that the measurement does not reach, in words."""
    medians = report["median_s"]
    missed = [
        f"{name} took {medians[name]} s, the bar is {BARS[f'{name}_s']} s"
        for name in ("aupro", "pixel_metrics")
        if medians[name] > BARS[f"{name}_s"]
    ]
    ratio = "times_faster_than_usual_loop"
    if report[ratio] < BARS[ratio]:
        missed.append(f"{report[ratio]} {ratio.replace('_', ' ')}, the bar is {BARS[ratio]}")
    return missed


def main() -> int:
    """Measure, print, write JSON if asked, and say which bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = {"machine": machine(), **measure(args.rounds)}
    report["missed"] = missed_bars(report)
    print(json.dumps(report, indent=2))
    write_json(args.json, report)
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
