"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from winspect.metrics import auroc


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 10_000])
def test_auroc_is_scikit_learns(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < 0.3
    scores = rng.integers(0, levels, 200) / 7 + labels  # few levels: many ties
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_by_hand():
    assert auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1
    assert auroc([4, 3, 2, 1], [0, 0, 1, 1]) == 0
    assert auroc([5, 5, 5], [0, 1, 1]) == 0.5


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_auroc_of_one_class_is_undefined(labels):
    assert auroc([0.5] * len(labels), labels) is None


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [0], r"\(2,\) and labels of shape \(1,\)"),
        ([0.1, float("nan")], [0, 1], "not finite"),
        ([0.1, 0.2], [0, 2], "neither 0"),
    ],
)
def test_bad_input_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)
