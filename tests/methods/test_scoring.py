"""Scores from embeddings, by hand and against the oracle."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
import scipy.ndimage
import torch

from winspect.methods.upsampling import Upsampling, upsample
from winspect.methods.winclip.scoring import association, class_score, combine, few_shot_map, zero_shot_map


def test_class_score_by_hand():
    text = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    scores = class_score(embeddings, text, temperature=0.5)
    expected = [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2)), 0.5]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_class_score_saturates_without_nan():
    text = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    scores = class_score(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), text, temperature=0.001)
    assert scores.tolist() == [0.0, 1.0]


def test_zero_shot_map_of_zero_scores_is_zero():
    maps = zero_shot_map(torch.zeros(1), {2: torch.zeros(1, 4)}, (3, 3))
    assert maps.tolist() == [[[0.0] * 3] * 3]


def test_zero_shot_map_by_hand():
    # One window of scale 2 covers a 2 x 2 grid: every patch is the harmonic mean of 0.5 and 0.25.
    maps = zero_shot_map(torch.tensor([0.5]), {2: torch.tensor([[0.25]])}, (2, 2))
    torch.testing.assert_close(maps, torch.full((1, 2, 2), 2 / (2 + 4)))


def test_association_by_hand():
    references = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    queries = torch.tensor([[[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [-1.0, -1.0]]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(
        association(queries, references), torch.tensor([[0.0, 0.5, (1 - half) / 2, (1 + half) / 2]])
    )


def test_association_does_not_depend_on_chunks(monkeypatch):
    queries, references = torch.randn(3, 11, 8), torch.randn(5, 8)
    whole = association(queries, references)
    monkeypatch.setattr("winspect.methods.winclip.scoring._LARGEST_COSINE_MATRIX", 4 * 5)
    torch.testing.assert_close(association(queries, references), whole)
    assert whole.shape == (3, 11)


def test_few_shot_map_is_the_oracles():
    generator = torch.Generator().manual_seed(0)

    def tile():
        windows = {
            (s, r, c): torch.randn(6, generator=generator, dtype=torch.float64)
            for s in (2, 3)
            for r in range(5 - s)
            for c in range(5 - s)
        }
        patches = torch.randn(16, 9, generator=generator, dtype=torch.float64)
        return oracle.TileVectors(torch.zeros(6), windows, patches)

    def stacked(tiles, scale):
        return torch.stack([torch.stack(list(oracle.of_scale(tile.windows, scale).values())) for tile in tiles])

    query, references = tile(), [tile(), tile()]
    ours = few_shot_map(
        query.patches[None],
        {s: stacked([query], s) for s in (2, 3)},
        torch.cat([reference.patches for reference in references]),
        {s: stacked(references, s).flatten(0, 1) for s in (2, 3)},
        (4, 4),
    )
    np.testing.assert_allclose(ours[0].numpy(), oracle.associate(query, references, (4, 4)), atol=1e-12)


def test_a_picture_is_no_stranger_to_itself():
    patches, windows = torch.randn(1, 4, 8), {2: torch.randn(1, 1, 8)}
    maps = few_shot_map(patches, windows, patches[0], {2: windows[2][0]}, (2, 2))
    torch.testing.assert_close(maps, torch.zeros(1, 2, 2), atol=1e-6, rtol=0)


def test_combine_by_hand():
    scores, maps = torch.tensor([0.4]), torch.tensor([[[0.2, 0.6]]])
    associations = torch.tensor([[[0.1, 0.5]]])
    assert combine(scores, maps) == (scores, maps)
    score, combined = combine(scores, maps, associations)
    torch.testing.assert_close(score, torch.tensor([0.45]))
    torch.testing.assert_close(combined, torch.tensor([[[0.15, 0.55]]]))


@pytest.mark.parametrize("size", [(4, 6), (7, 5), (1, 1)])
def test_upsampling_is_the_oracles(size):
    grid = torch.rand(1, 3, 4, dtype=torch.float64)
    expected = oracle.bilinear(grid[0].numpy(), *size)
    np.testing.assert_allclose(upsample(grid, size)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(9, 12), (3, 4), (40, 31)])
def test_a_map_is_blurred_at_the_pictures_size(size):
    grid = torch.rand(1, 3, 4, dtype=torch.float64)
    sharp = torch.nn.functional.interpolate(grid[None], size, mode="bilinear", align_corners=False)[0, 0]
    expected = scipy.ndimage.gaussian_filter(sharp.numpy(), 4.0)
    np.testing.assert_allclose(Upsampling(sigma=4.0)(grid, size)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(9, 12), (1, 1), (3, 2)])
def test_corners_can_be_aligned(size):
    grid = torch.rand(1, 3, 4, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(grid[None], size, mode="bilinear", align_corners=True)[0, 0]
    np.testing.assert_allclose(Upsampling(align_corners=True)(grid, size)[0], expected, atol=1e-12)
