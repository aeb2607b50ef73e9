"""Where good pictures of a class are expected to lie in a distance, and how far they spread.

The logarithm v of a distance of a good picture to K good samples is taken as normal, with a mean and a variance that
differ from product to product. Over products they follow a normal-inverse-gamma distribution, the prior, which was
fitted on generated ones. The good samples of a class, each compared with the others, add to it what they say: this
posterior's predictive distribution (a Student t) gives a centre and a scale::

    m0 = mean + crowding * x - doubling * log2 K              x: crowding of the good samples
    m  = (mean of the n left-out values) - doubling * log2(K / (K - 1))      a sample left out has K - 1 others
    k  = strength + n
    centre   = (strength m0 + n m) / k
    scale^2  = (1 + 1/k) (freedom spread^2 + S + (strength n / k) (m - m0)^2) / (freedom + n)

S is the sum of squares of the left-out values around their mean. One good sample has no others (n = 0): the prior
alone speaks. Source of the update: any textbook on conjugate priors, such as Gelman et al., Bayesian Data Analysis,
section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prior:
    """What is expected of a distance before any good sample was left out; fitted on generated products.

    Attributes:
        mean: of the logarithm, with one good sample of crowding 0.
        crowding: what is added for each unit of the good samples' crowding.
        doubling: what is subtracted for each doubling of their number.
        spread: deviation of good pictures of one product.
        strength: how many left-out samples the expected mean is worth.
        freedom: how many the expected spread is worth.
    """

    mean: float = 0.0
    crowding: float = 0.0
    doubling: float = 0.0
    spread: float = 1.0
    strength: float = 1.0
    freedom: float = 4.0

    def expected(self, crowding: float, samples: int) -> float:
        """The mean that is expected with ``samples`` good samples of this crowding."""
        return self.mean + self.crowding * crowding - self.doubling * math.log2(samples)


def centre_and_scale(
    prior: Prior, left_out: Sequence[float] | np.ndarray, *, samples: int, crowding: float
) -> tuple[float, float]:
    """The module's formula.

    Args:
        prior: of the distance.
        left_out: values of good samples that were compared with the others; none where nothing can be compared.
        samples: number of good samples, K.
        crowding: of the good samples, x.
    """
    count = len(left_out)
    expected, weight = prior.expected(crowding, samples), prior.strength + count
    squares, centre = prior.freedom * prior.spread**2, expected
    if count:
        found = float(np.mean(left_out)) - prior.doubling * math.log2(samples / (samples - 1))
        squares += count * float(np.var(left_out)) + prior.strength * count / weight * (found - expected) ** 2
        centre = (prior.strength * expected + count * found) / weight
    return centre, math.sqrt((1 + 1 / weight) * squares / (prior.freedom + count))
