"""Scoring gives the same on NumPy arrays as on torch tensors; and the few operations both lack, against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from winspect.backbones.embeddings import LAST, STEM, Embeddings
from winspect.methods.method import CutPicture
from winspect.methods.registry import get_method
from winspect.methods.upsampling import upsample
from winspect.system.arrays import logit, normalize, sigmoid, smallest, squared_distances

GRID = (4, 4)
RANDOM = np.random.default_rng(0)


def embeddings(tiles):
    def random(*shape):
        return torch.from_numpy(RANDOM.standard_normal((tiles, *shape)).astype(np.float32))

    return Embeddings(
        random(6), {2: random(9, 6), 3: random(4, 6)}, {LAST: random(*GRID, 8), STEM: random(*GRID, 5)}, GRID
    )


def arrays(tensor):
    return tensor.numpy()


@pytest.mark.parametrize("recipe", ["paper", "log"])
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_pictures_are_judged_alike(recipe, shots):
    tiles, text = embeddings(3), torch.tensor([[1.0, 0, 2, 0, 1, 0], [0, 1.0, 0, 2, 0, 1]])
    samples = [embeddings(1) for _ in range(shots)]
    method, pictures = get_method(recipe), [CutPicture(2, (200, 100)), CutPicture(1, (100, 100))]

    def scores(tiles, text, samples):
        references = method.fit(samples) if samples else None
        return method.score(tiles, pictures, text=text, references=references)

    expected = scores(tiles, text, samples)
    found = scores(tiles.map(arrays), text.numpy(), [sample.map(arrays) for sample in samples])
    for own, other in zip(found, expected, strict=True):
        assert own.score == pytest.approx(other.score, abs=1e-6)
        np.testing.assert_allclose(own.tile_maps, other.tile_maps, atol=1e-6)
        assert own.tile_maps.dtype == other.tile_maps.dtype == np.float32


def test_operations_are_torchs():
    x = torch.linspace(-120, 120, 97)
    np.testing.assert_allclose(sigmoid(x.numpy()), torch.sigmoid(x), rtol=3e-7, atol=1e-38)
    shares = torch.linspace(0, 1, 11)
    np.testing.assert_allclose(logit(shares.numpy(), 1e-3), torch.logit(shares, eps=1e-3), rtol=1e-4)
    rows, others = torch.randn(30, 7), torch.randn(40, 7)
    apart = np.sqrt(squared_distances(rows.numpy(), others.numpy()))
    np.testing.assert_allclose(apart, torch.cdist(rows, others), atol=1e-5)
    np.testing.assert_allclose(np.sort(smallest(rows.numpy(), 2)), rows.sort(dim=1).values[:, :2])
    np.testing.assert_allclose(normalize(rows.numpy()), torch.nn.functional.normalize(rows, dim=-1), atol=1e-6)
    assert not normalize(np.zeros((1, 3), np.float32)).any()


@pytest.mark.parametrize("size", [(15, 15), (240, 100), (7, 1)])
def test_upsampling_is_torchs(size):
    maps = torch.rand(2, 15, 15)
    expected = torch.nn.functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    ours = upsample(maps.numpy(), size)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert ours.dtype == np.float32


def test_upsampling_of_a_single_row():
    assert upsample(np.array([[[0.0, 1.0]]], np.float32), (2, 2)).tolist() == [[[0, 1], [0, 1]]]
