"""Scores of the same pictures in two runs: how far they differ, in size, in order, and in verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from winspect.evaluation.results import Run, Score
from winspect.metrics import auroc, rank_scores

# The scores file holds every digit, so that the figure made from it again is the same up to summation.
_SAME_FIGURE = 1e-9

Matched = tuple[Score, Score]
"""A picture in the baseline and in the other run."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pictures:
    """The scores of the same pictures in both runs.

    Attributes:
        count: pictures scored in both runs.
        failed_in_one: pictures that only one of the runs could score.
        largest_difference: of two scores of one picture, 0 or more; ``where``: that picture. None without pictures.
        spearman: rank correlation of the scores, -1 to 1; None when either run's scores are all equal.
        flips: verdicts that differ, each run at its own threshold of the largest F1; None where that is undefined.
    """

    count: int
    failed_in_one: int
    largest_difference: float | None = None
    where: str | None = None
    spearman: float | None = None
    flips: int | None = None


def matched(baseline: Run, other: Run, category: str) -> list[Matched]:
    """The pictures of a category, in the baseline's order. Both runs must have scored the same ones."""
    others = {score.key: score for score in other.scores if score.category == category}
    return [(score, others[score.key]) for score in baseline.scores if score.category == category]


def common(baseline: Run, other: Run, category: str) -> list[Matched]:
    """The pictures of a category that both runs scored or tried, with one label, in the baseline's order.

    A run with several seeds counts with the mean over those that scored a picture, under seed 0.
    """
    ours, theirs = (_over_seeds(run, category) for run in (baseline, other))
    both = [(score, theirs[path]) for path, score in ours.items() if path in theirs]
    return [(first, second) for first, second in both if first.label == second.label]


def _over_seeds(run: Run, category: str) -> dict[str, Score]:
    """The score of each picture of a category by its path: the mean over seeds; None where no seed has one."""
    by_path: dict[str, list[Score]] = {}
    for score in (score for score in run.scores if score.category == category):
        by_path.setdefault(score.path, []).append(score)
    means = {}
    for path, some in by_path.items():
        values = [score.score for score in some if score.score is not None]
        means[path] = replace(some[0], score=math.fsum(values) / len(values) if values else None, seed=0)
    return means


def different_pictures(baseline: Run, other: Run) -> str | None:
    """In what two runs of the same categories differ: pictures, labels or references; None where they do not."""
    first, second = (Counter((*score.key, score.label) for score in run.scores) for run in (baseline, other))
    extra = [*(first - second), *(second - first)]
    if extra:
        return f"data ({len(extra)} pictures or labels, as {extra[0][2]} of {extra[0][1]})"
    ours, theirs = baseline.results["categories"], other.results["categories"]
    different = [name for name in ours if ours[name].get("references") != theirs[name].get("references")]
    return "; different ".join(f"references (of {name})" for name in different) or None


def contradiction(run: Run, category: str) -> str | None:
    """How a category's image AUROC and the scores file beside it contradict each other, or None.

    A run with an alarm has no figure to compare its scores with.
    """
    recorded = run.results["categories"][category]["image_auroc"]
    scores = [score for score in run.scores if score.category == category and score.score is not None]
    by_seed = [auroc(*_arrays(group)) for group in _groups(scores, lambda score: score.seed)]
    defined = [figure for figure in by_seed if figure is not None]
    if recorded is None or not defined or len(defined) != len(by_seed):
        return None
    figure = sum(defined) / len(defined)
    if abs(figure - recorded) <= _SAME_FIGURE:
        return None
    return f"its scores give an image AUROC of {figure:.4f}, its results {recorded:.4f}: the two files differ in origin"


def look_at(pairs: Sequence[Matched]) -> Pictures:
    """Differences of the scores of pictures; each category has thresholds of its own, in each run and for each seed."""
    failed = sum((first.score is None) != (second.score is None) for first, second in pairs)
    scored = [pair for pair in pairs if pair[0].score is not None and pair[1].score is not None]
    if not scored:
        return Pictures(0, failed)
    (ours, _), (theirs, _) = map(_arrays, zip(*scored, strict=True))
    apart = np.abs(ours - theirs)
    flips = [_flips(group) for group in _groups(scored, lambda pair: (pair[0].category, pair[0].seed))]
    defined = [count for count in flips if count is not None]
    return Pictures(
        count=len(scored),
        failed_in_one=failed,
        largest_difference=float(apart.max()),
        where=scored[int(apart.argmax())][0].path,
        spearman=spearman(ours, theirs),
        flips=sum(defined) if defined else None,
    )


def _groups(items: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    """The items with equal keys together, by key."""
    return [list(group) for _, group in groupby(sorted(items, key=key), key)]


def _arrays(scores: Iterable[Score]) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64 (n,), and labels bool (n,), True is anomalous."""
    values, labels = zip(*((score.score, score.label == "anomalous") for score in scores), strict=True)
    return np.array(values, np.float64), np.array(labels, bool)


def _flips(scored: Iterable[Matched]) -> int | None:
    """Verdicts that differ between the runs; None where the pictures are all of one kind."""
    (ours, labels), (theirs, _) = map(_arrays, zip(*scored, strict=True))
    first, second = best_threshold(ours, labels), best_threshold(theirs, labels)
    return None if first is None or second is None else int(((ours >= first) != (theirs >= second)).sum())


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The score from which on pictures are called anomalous, for the largest F1; the highest of several.

    Args:
        scores: float (n,); labels: bool (n,), True is anomalous.

    Returns:
        The score of an anomalous picture, or None when there are not both normal and anomalous pictures.

    >>> best_threshold(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.35
    """
    ranking = rank_scores(scores, labels)
    if not ranking.defined:
        return None
    f1 = 2 * ranking.hits / (ranking.hits + ranking.reached + len(ranking.hits))
    return float(np.sort(scores[labels])[::-1][f1.argmax()])


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation, -1 to 1; ties share their mean rank. None when either side is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0]))
    1.0
    """
    centred = [ranks - ranks.mean() for ranks in map(_ranks, (first, second))]
    lengths = math.sqrt(float(centred[0] @ centred[0]) * float(centred[1] @ centred[1]))
    return None if lengths == 0 else min(1.0, max(-1.0, float(centred[0] @ centred[1]) / lengths))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
