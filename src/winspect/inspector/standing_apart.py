"""Good samples that stand apart from the others: a defective part among them, or another part. No torch.

Each sample is scored as a picture, with the others as the good samples. One that stands apart has no near neighbours
among them; it would be normal from then on, with all that looks like it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from winspect.inspector.class_state import Sample
from winspect.methods.choosing import upper_limit
from winspect.methods.method import Method, References
from winspect.system.arrays import Array

FEWEST = 3
"""Good samples from which on one can stand apart: of two each is as far from the other."""

OTHERS = 8
"""Good samples that each is compared with, at most; spread evenly over the others."""

LEAST_SPREAD = 0.15
"""The least standard deviation of the logarithms of good samples' scores, as few of them may be alike by chance. Chosen
on eight generated products, in sets of 3 to 16 good samples, of which none was warned of (``benchmarks.outliers``; what
it finds stands in docs/methods.md)."""

_COPY = 1e-3  # of the largest score
_MOST_NAMED = 5


def left_out_scores(method: Method, samples: Sequence[Sample], text: Array) -> list[float]:
    """The score of each sample's upright view with others as the good samples; NaN for one that is alone.

    Args:
        method: one that joins what it keeps of good samples: others would learn all others again for each, and say
            themselves what they can (:meth:`~winspect.methods.method.Method.learn`).
    """
    fits = [method.fit([sample.embeddings]) for sample in samples]
    return [_score(method, samples, fits, number, text) for number in range(len(samples))]


def _score(method: Method, samples: Sequence[Sample], fits: Sequence[References], number: int, text: Array) -> float:
    others = np.delete(np.arange(len(samples)), number)
    if not len(others):
        return math.nan
    places = np.linspace(0, len(others) - 1, min(len(others), OTHERS)).round().astype(int)
    references = method.join([fits[other] for other in others[places]])
    sample, picture = samples[number].upright()
    return method.score(sample, [picture], text=text, references=references, maps=False)[0].score


def standing_apart(scores: Sequence[float]) -> list[int]:
    """Numbers of the samples whose scores lie far above those of the others.

    Above the median plus three robust standard deviations of the logarithms: C. Leys et al., Detecting outliers, J.
    Exp. Soc. Psychol. 49 (2013). The deviation is at least :data:`LEAST_SPREAD`. Copies of other samples, whose scores
    are next to nothing, say nothing.

    Args:
        scores: of :func:`left_out_scores`, or of the method itself.
    """
    found = np.array(scores, np.float64)
    usable = np.flatnonzero(found > _COPY * np.nanmax(found, initial=0))
    if len(usable) < FEWEST:
        return []
    logs = np.log(found[usable])
    return usable[logs > upper_limit(logs, least=LEAST_SPREAD)].tolist()


def warnings_of(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    """A line for each sample that stands apart, by name, the farthest first; of many, how many more there are."""
    found = sorted(standing_apart(scores), key=lambda number: -scores[number])
    lines = [
        f"{names[number]}: stands apart from the other good samples: compared with them it scores "
        f"{scores[number]:.4g}, they {np.nanmedian(scores):.4g} in the median. Is it good? If not, leave it out: what "
        "it shows counts as normal"
        for number in found[:_MOST_NAMED]
    ]
    more = len(found) - len(lines)
    return [*lines, f"{names[found[_MOST_NAMED]]} and {more - 1} more stand apart, too"] if more else lines
