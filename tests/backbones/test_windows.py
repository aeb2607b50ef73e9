"""Windows of the grid, against plain loops and cases worked by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracle
import pytest
import torch

from winspect.backbones.windows import covering_windows, harmonic_mean, spread_to_patches, window_indices
from winspect.errors import SettingsError


def test_windows_by_hand():
    expected = [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    assert window_indices((3, 3), 2).tolist() == expected
    assert window_indices((2, 3), 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]
    assert window_indices((3, 3), 3).tolist() == [list(range(9))]


def test_the_papers_grid_has_196_and_169_windows():
    assert window_indices((15, 15), 2).shape == (196, 4)
    assert window_indices((15, 15), 3).shape == (169, 9)
    assert window_indices((15, 15), 2).dtype == np.int64


def test_the_last_window_of_a_stride_is_flush_with_the_edge():
    assert window_indices((1, 6), 1, 1).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    columns = window_indices((3, 6), 3, 2)[:, 0].tolist()
    assert columns == [0, 2, 3]


@pytest.mark.parametrize(("scale", "stride"), [(0, 1), (4, 1), (2, 0), (2, 3)])
def test_windows_that_do_not_fit_are_refused(scale, stride):
    with pytest.raises(SettingsError, match=f"scale {scale}"):
        window_indices((3, 5), scale, stride)


def test_covering_windows_by_hand():
    # On 1 x 3 with windows of one row there is no 2 x 2; on 2 x 3 the middle column lies in both windows.
    assert covering_windows((2, 3), 2).tolist() == [[0, 2], [0, 1], [1, 2], [0, 2], [0, 1], [1, 2]]


def test_windows_that_all_callers_share_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        window_indices((3, 3), 2)[0, 0] = 7


@pytest.mark.parametrize("kind", [np.float32, torch.tensor])
def test_harmonic_mean_by_hand_and_with_zero(kind):
    values = kind([[1.0, 3.0], [0.5, 0.0], [0.0, 0.0]])
    assert harmonic_mean(values, axis=1).tolist() == [1.5, 0.0, 0.0]


@pytest.mark.parametrize("scale", [2, 3])
def test_spread_is_the_oracles(scale):
    rows, columns = 5, 7
    scores = torch.rand(2, (rows - scale + 1) * (columns - scale + 1), dtype=torch.float64)
    scores[0, 3] = 0
    ours = spread_to_patches(scores, (rows, columns), scale)
    places = [(r, c) for r in range(rows - scale + 1) for c in range(columns - scale + 1)]
    for picture in range(2):
        expected = oracle.spread(dict(zip(places, scores[picture].tolist(), strict=True)), scale, (rows, columns))
        np.testing.assert_allclose(ours[picture].numpy(), expected, rtol=1e-12)
    assert ours.dtype == torch.float64
    assert ours[0].min() == 0


@pytest.mark.parametrize("full", [partial(np.full, dtype=np.float32), torch.full])
def test_scores_that_vanish_in_float32_give_zero_not_nan(full):
    scores = full((1, 4), 1e-45)
    assert spread_to_patches(scores, (3, 3), 2).tolist() == [[[0.0] * 3] * 3]


def test_scores_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 5\), need \(batch, 4\)"):
        spread_to_patches(torch.ones(1, 5), (3, 3), 2)
