"""The one sort behind every metric: where defective items fall among the good ones.

Precision and recall at a threshold, hence every figure here, depend on scores by their order alone. Recall moves only
where a threshold passes a defective item, so it is enough to know, for each defective item, how many good ones score
above it. The good items (nearly all pixels of a data set) are therefore sorted as bare numbers, with no index or label
carried along, and looked up by the few defective ones. Equal scores are one threshold throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winspect.errors import SettingsError

Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Ranking:
    """Good and defective items in the order of their scores; made by `rank`, `rank_scores` or `rank_pixels`.

    Every figure is a float from 0 to 1, higher is better, or None when there are not both good and defective items.

    Attributes:
        n_good: how many good items there are.
        above: int64 (n,), for each defective item, best score first: the good items that score higher.
        reached: int64 (n,), the good items that score at least as high.
        hits: int64 (n,), the defective items that score at least as high, itself included.
        shares: float64 (n,), what each defective item adds to the per-region overlap; they sum to 1. For items
            without regions it is 1/n, and the overlap is recall.
    """

    n_good: int
    above: np.ndarray
    reached: np.ndarray
    hits: np.ndarray
    shares: np.ndarray

    @property
    def defined(self) -> bool:
        """Whether there are both good and defective items."""
        return self.n_good > 0 and len(self.hits) > 0

    def auroc(self) -> float | None:
        """Area under the ROC curve: the chance that a defective item scores above a good one, ties counting half."""
        if not self.defined:
            return None
        # Whole numbers up to the division: exact however many pixels there are.
        lost_halves = int(self.above.sum()) + int(self.reached.sum())
        pairs = self.n_good * len(self.hits)
        return (2 * pairs - lost_halves) / (2 * pairs)

    def aupr(self) -> float | None:
        """Average precision: the precision at each defective item's own threshold, averaged over them.

        This is scikit-learn's step-wise sum over thresholds n of (R_n - R_(n-1)) P_n, with no interpolation.
        """
        if not self.defined:
            return None
        return float((self.hits / (self.hits + self.reached)).mean())

    def f1_max(self) -> float | None:
        """The largest F1 = 2 TP / (2 TP + FP + FN) over all thresholds."""
        if not self.defined:
            return None
        return float((2 * self.hits / (self.hits + self.reached + len(self.hits))).max())

    def aupro(self, max_fpr: float = 0.3) -> float | None:
        """Area under the overlap as a function of the false positive rate from 0 to `max_fpr`, divided by `max_fpr`.

        As the threshold falls past one item's score, the false positives go from `above` to `reached`, and the curve
        climbs by the item's share along a straight line. The area is thus a sum over items: a triangle under that
        climb, cut off at `max_fpr`, and a rectangle after it.

        Raises:
            SettingsError: `max_fpr` is not above 0 and at most 1.
        """
        _check_max_fpr(max_fpr)
        if not self.defined:
            return None
        limit = max_fpr * self.n_good
        climbed = np.clip(limit, self.above, self.reached) - self.above
        triangle = climbed**2 / (2 * np.maximum(self.reached - self.above, 1))
        rectangle = np.maximum(limit - self.reached, 0)
        # The shares sum to 1 only up to rounding; a perfect map must not come out above 1 by it.
        return min(float(self.shares @ (triangle + rectangle)) / limit, 1.0)

    def roc_curve(self, points: int = 200) -> Curve | None:
        """False positive rate and recall, both 0 to 1 and never falling; see `pro_curve` for `points`."""
        return self._curve(np.full(len(self.hits), 1 / max(len(self.hits), 1)), 1.0, points)

    def pro_curve(self, max_fpr: float = 0.3, points: int = 200) -> Curve | None:
        """False positive rate, 0 to `max_fpr`, and per-region overlap, 0 to 1, both never falling.

        Args:
            max_fpr: where the curve ends (interpolated linearly).
            points: about how many points to keep, 2 or more. Those kept lie on the exact curve, evenly spaced along it.

        Returns:
            Two float64 arrays of one length, at most `points`, or None where the curve is undefined.

        Raises:
            SettingsError: `max_fpr` is not above 0 and at most 1, or `points` is below 2.
        """
        return self._curve(self.shares, max_fpr, points)

    def _curve(self, shares: np.ndarray, max_fpr: float, points: int) -> Curve | None:
        _check_max_fpr(max_fpr)
        if points < 2:
            raise SettingsError(f"got points={points}; a curve needs 2 or more")
        if not self.defined:
            return None
        return _thin(*_cut(*self._corners(shares), max_fpr), points)

    def _corners(self, shares: np.ndarray) -> Curve:
        """Every corner of the curve: before and after each distinct score of a defective item, and both ends."""
        last_of_ties = np.flatnonzero(self.hits == np.arange(1, len(self.hits) + 1))
        after = np.cumsum(shares)[last_of_ties]
        before = np.concatenate([[0.0], after[:-1]])
        x = np.stack([self.above[last_of_ties], self.reached[last_of_ties]], axis=1).ravel() / self.n_good
        y = np.stack([before, after], axis=1).ravel()
        return np.concatenate([[0.0], x, [1.0]]), np.minimum(np.concatenate([[0.0], y, [1.0]]), 1.0)


def rank(good: np.ndarray, defective: np.ndarray, shares: np.ndarray | None = None) -> Ranking:
    """Ranking of finite scores, higher is more anomalous.

    Args:
        good: (m,), sorted in place, to spare the memory of a copy.
        defective: (n,), of the same dtype.
        shares: (n,), the weight of each defective item in the per-region overlap; 1/n each if not given.
    """
    good.sort()
    order = np.argsort(defective)
    rising = defective[order]
    if shares is None:
        shares = np.full(len(defective), 1 / max(len(defective), 1))
    return Ranking(
        n_good=len(good),
        above=(len(good) - np.searchsorted(good, rising, side="right"))[::-1],
        reached=(len(good) - np.searchsorted(good, rising, side="left"))[::-1],
        hits=(len(rising) - np.searchsorted(rising, rising, side="left"))[::-1],
        shares=shares[order][::-1],
    )


def _check_max_fpr(max_fpr: float) -> None:
    if not 0 < max_fpr <= 1:
        raise SettingsError(f"got max_fpr={max_fpr}; need a rate above 0 and at most 1, 0.3 in the literature")


def _cut(x: np.ndarray, y: np.ndarray, end: float) -> Curve:
    """The curve up to x = `end`, which becomes its last point."""
    inside = int(np.searchsorted(x, end, side="right"))
    if inside == len(x):
        return x, y
    along = (end - x[inside - 1]) / (x[inside] - x[inside - 1])
    last = y[inside - 1] + along * (y[inside] - y[inside - 1])
    return np.append(x[:inside], end), np.append(y[:inside], last)


def _thin(x: np.ndarray, y: np.ndarray, points: int) -> Curve:
    """At most `points` of the points, both ends among them, evenly spaced by the way travelled along both axes."""
    travelled = x / x[-1] + y
    moved = np.diff(travelled, prepend=-1) > 0
    x, y, travelled = x[moved], y[moved], travelled[moved]
    if len(x) <= points:
        return x, y
    last = len(x) - 1
    stops = np.searchsorted(travelled, np.linspace(0, travelled[-1], points))
    keep = np.unique(np.append(stops[:-1], last))
    return x[keep], y[keep]
