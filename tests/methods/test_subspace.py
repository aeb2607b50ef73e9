"""The subspace of good patches, held to a slow float64 oracle; its settings, and samples that do not vary."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.methods import oracle_subspace as oracle
from winspect.backbones.embeddings import Embeddings
from winspect.errors import ReferencesError, SettingsError
from winspect.methods.method import CutPicture
from winspect.methods.registry import get_method, method_of
from winspect.methods.subspace import Subspace, middle_blocks
from winspect.pictures.tiles import Preprocess

TEXT = np.zeros((2, 0), np.float32)
KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def embeddings(seed, shape=(6, 6), *, views=1, width=20, kind=np.asarray):
    """Patches of two blocks; most of their variance lies in five directions, far from the origin."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((5, width))
    common = 3 * random.standard_normal((views, *shape, 5)) @ directions + 10
    patches = {
        name: kind((common + 0.3 * random.standard_normal(common.shape)).astype(np.float32))
        for name in ("block_8", "block_9")
    }
    return Embeddings(kind(np.zeros((views, 0), np.float32)), patches=patches, grid_hw=shape)


def features(sample):
    return (np.asarray(sample.patches["block_8"], np.float64) + np.asarray(sample.patches["block_9"])) / 2


def scored(method, samples, picture):
    (scores,) = method.score(picture, [CutPicture(1)], text=TEXT, references=method.fit(samples))
    return scores


@KINDS
@pytest.mark.parametrize("variance", [0.99, 0.5, 0.999])
def test_against_the_oracle(kind, variance):
    samples = [embeddings(seed, views=3, kind=kind) for seed in range(3)]
    picture = embeddings(9, kind=kind)
    method = Subspace(size=48, variance=variance).for_model({}, "m", depth=12, patch=8)
    scores = scored(method, samples, picture)
    expected = oracle.picture_map(features(picture)[0], [*map(features, samples)], side=48, variance=variance)
    assert scores.tile_maps.dtype == np.float32
    np.testing.assert_allclose(scores.tile_maps[0], expected, rtol=1e-4)
    assert scores.score == pytest.approx(oracle.picture_score(expected), rel=1e-4)
    assert scores.upsampling.sigma == 0


def test_a_grid_that_is_not_square():
    samples, picture = [embeddings(1, (4, 9))], embeddings(2, (4, 9))
    found = scored(Subspace(size=36, blocks=(8, 9)), samples, picture)
    expected = oracle.picture_map(features(picture)[0], [*map(features, samples)], side=36)
    np.testing.assert_allclose(found.tile_maps[0], expected, rtol=1e-4)


def test_by_hand():
    """Good patches vary along one axis alone; a patch is 3 beside it."""
    good = Embeddings(np.zeros((1, 0)), patches={"block_1": np.array([[[[0, 1], [2, 1], [4, 1]]]], np.float32)})
    patches = {"block_1": np.array([[[[9, 1], [2, 4]]]], np.float32)}
    scores = scored(Subspace(size=1, blocks=(1,), sigma=0), [good], Embeddings(np.zeros((1, 0)), patches=patches))
    np.testing.assert_allclose(scores.tile_maps, [[[4.5]]], atol=1e-6)  # between 0 and 9
    whole = scored(Subspace(size=2, blocks=(1,), sigma=0), [good], Embeddings(np.zeros((1, 0)), patches=patches))
    np.testing.assert_allclose(whole.tile_maps, [[[0, 9], [0, 9]]], atol=1e-6)
    assert whole.score == pytest.approx(9)


def test_blocks_by_depth():
    assert middle_blocks(12) == (8, 9)  # hidden states -5 and -4
    assert middle_blocks(24) == (14, 15, 16, 17, 18)  # -11 to -7
    assert middle_blocks(40) == tuple(range(23, 30))  # -18 to -12
    for depth in range(1, 50):
        blocks = middle_blocks(depth)
        assert blocks
        assert all(1 <= number <= depth for number in blocks)
    method = Subspace().for_model({}, "m", depth=24, patch=14)
    assert method.needs(few_shot=True, maps=True).layers == tuple(f"block_{n}" for n in range(14, 19))
    assert method_of(method.document()) == method
    assert Subspace(blocks=[3]).for_model({}, "m", depth=24, patch=14).blocks == (3,)
    with pytest.raises(SettingsError, match=r"^blocks: they depend on the tower"):
        Subspace().needs(few_shot=True, maps=True)


def test_settings_as_published(caplog):
    method = get_method("subspace")
    assert method == Subspace()
    assert (method.size, method.rotations, method.variance, method.top_share, method.sigma) == (672, 30, 0.99, 0.01, 4)
    assert (method.zero_shot, method.reads_text, method.score_range) == (False, False, (0, np.inf))
    seen = method.preprocess(Preprocess(), 14)
    assert (seen.size, seen.aspect) == (672, False)
    with caplog.at_level(logging.WARNING):
        assert Subspace(size=230).for_model({}, "m", depth=12, patch=16).size == 224
    assert "size: 230 is no multiple of the patch of 16 pixels" in caplog.text
    with pytest.raises(SettingsError, match=r"^size: got 230"):
        Subspace(size=230, strict=True).for_model({}, "m", depth=12, patch=16)


def test_angles_are_drawn_from_the_seed():
    method = Subspace()
    angles = method.angles(0)
    assert len(angles) == 30
    assert 0 <= min(angles) < 60
    assert 285 < max(angles) <= 345
    assert method.angles(0) == angles != method.angles(1)
    assert Subspace(seed=1).angles(0) != angles
    assert Subspace(rotations=0).angles(0) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0), ("blocks", []), ("blocks", [0]), ("blocks", [1, 1]), ("blocks", 3), ("blocks", "middle"),
        ("rotations", -1), ("rotations", 3.0), ("variance", -0.1), ("variance", 1.1), ("variance", "all"),
        ("top_share", 2), ("sigma", -1), ("seed", -1), ("strict", 0),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=f"^{name}: got "):
        get_method("subspace", {name: value})


@KINDS
def test_samples_are_added(kind):
    method = Subspace(blocks=(8, 9))
    samples = [embeddings(seed, (4, seed + 3), kind=kind) for seed in range(4)]
    whole = method.fit(samples)
    joined = method.join([method.fit(samples[:1]), method.fit(samples[1:3]), method.fit(samples[3:])])
    assert int(joined["count"][0]) == 72 == int(whole["count"][0])
    np.testing.assert_allclose(joined["mean"], whole["mean"])
    np.testing.assert_allclose(joined["scatter"], whole["scatter"])
    assert whole["outside"].dtype in (np.float32, torch.float32)
    alike = [np.asarray(found["outside"] @ found["outside"].T) for found in (joined, whole)]
    np.testing.assert_allclose(*alike, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3)])
def test_a_constant_sample_leaves_the_distance_from_its_mean(rows, columns):
    """Also a single patch, of which there is no variance at all."""
    patches = np.full((1, rows, columns, 4), 2, np.float32)
    constant = Embeddings(np.zeros((1, 0)), patches={"block_1": patches})
    other = Embeddings(np.zeros((1, 0)), patches={"block_1": patches + 1})
    method = Subspace(size=rows, blocks=(1,))
    np.testing.assert_allclose(scored(method, [constant], constant).tile_maps, 0, atol=1e-10)
    assert scored(method, [constant], other).score == pytest.approx(4)


def test_no_and_all_variance():
    samples, picture = [embeddings(seed) for seed in range(3)], embeddings(5)
    nothing = scored(Subspace(size=6, blocks=(8, 9), variance=0, sigma=0), samples, picture)
    mean = np.concatenate([features(sample).reshape(-1, 20) for sample in samples]).mean(axis=0)
    np.testing.assert_allclose(nothing.tile_maps, ((features(picture) - mean) ** 2).sum(axis=-1), rtol=1e-4)
    everything = scored(Subspace(size=6, blocks=(8, 9), variance=1), samples, picture)
    np.testing.assert_allclose(everything.tile_maps, 0, atol=1e-6)


def test_vectors_that_are_not_numbers():
    broken = embeddings(1)
    broken.patches["block_9"][0, 1, 2, 3] = np.nan
    with pytest.raises(ReferencesError, match="good sample 1 has vectors that are not numbers"):
        Subspace(blocks=(8, 9)).fit([broken])
    found = scored(Subspace(size=48, blocks=(8, 9)), [embeddings(2)], broken)
    assert np.isnan(found.tile_maps).any()


def test_without_good_samples():
    with pytest.raises(ReferencesError, match="recipe subspace compares with good samples"):
        Subspace(blocks=(8, 9)).score(embeddings(1), [CutPicture(1)], text=TEXT)
