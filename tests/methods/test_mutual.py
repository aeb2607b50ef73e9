"""Mutual scoring, held to a slow float64 oracle; what it keeps where, and batches that it refuses."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.methods import oracle_mutual as oracle
from winspect.backbones.embeddings import Embeddings
from winspect.errors import SettingsError, SourceError
from winspect.methods.mutual import halves, pairs
from winspect.methods.mutual.method import Mutual, quarter_blocks
from winspect.methods.mutual.room import room
from winspect.methods.registry import get_method, method_of
from winspect.pictures.tiles import Preprocess

KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
BLOCKS = (3, 6)


def features(seed, count, shape=(5, 6), width=12):
    """Pictures of a part whose patches differ by place; some with a defect."""
    random = np.random.default_rng(seed)
    part = 2 * np.random.default_rng(0).standard_normal((len(BLOCKS), 1, *shape, width))
    found = part + random.standard_normal((len(BLOCKS), count, *shape, width)) + 1
    found[:, 0, 2, 2] += 4
    return found.astype(np.float32)


def embeddings(layers, images, kind=np.asarray):
    patches = {f"block_{number}": kind(layer) for number, layer in zip(BLOCKS, layers, strict=True)}
    return Embeddings(kind(images), patches=patches, grid_hw=layers[0].shape[1:3])


def scored(method, layers, images, *, kind=np.asarray, step=3):
    """In passes of a few pictures."""
    batch = method.batch(len(images))
    for start in range(0, len(images), step):
        batch.add(embeddings([layer[start : start + step] for layer in layers], images[start : start + step], kind))
    return batch.scores()


def images_of(count, width=8, seed=1):
    return (np.random.default_rng(seed).standard_normal((count, width)) + 1).astype(np.float32)


@KINDS
@pytest.mark.parametrize("count", [4, 9])
@pytest.mark.parametrize("with_image", [True, False])
def test_against_the_oracle(kind, count, with_image):
    layers, images = features(2, count), images_of(count, 8 if with_image else 0)
    method = Mutual(blocks=BLOCKS, size=60, keep="fp32")
    found = scored(method, layers, images, kind=kind)
    maps = np.concatenate([picture.tile_maps for picture in found.pictures])
    expected = oracle.maps(layers)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    scores = [picture.score for picture in found.pictures]
    np.testing.assert_allclose(scores, oracle.picture_scores(expected, 60, images if with_image else None), atol=1e-5)
    assert found.pictures[0].upsampling.align_corners


def test_fp16_moves_scores_by_less_than_1e_4():
    layers, images = features(3, 8), images_of(8, 0)
    half, whole = (scored(Mutual(blocks=BLOCKS, keep=keep), layers, images) for keep in ("fp16", "fp32"))
    for ours, theirs in zip(half.pictures, whole.pictures, strict=True):
        np.testing.assert_allclose(ours.tile_maps, theirs.tile_maps, atol=2e-4)


@pytest.mark.parametrize(("limit_gb", "dtype"), [(2.4e-5, np.float32), (2.2e-5, np.float16)])
def test_features_that_fit_are_kept_as_they_are(limit_gb, dtype):
    """4 pictures of two layers of 5 x 6 patches, 12 wide: 11,520 bytes in fp32."""
    batch = Mutual(blocks=BLOCKS, limit_gb=limit_gb).batch(4)
    batch.add(embeddings(features(1, 4), images_of(4)))
    assert {kept.dtype for kept in batch._features.values()} == {np.dtype(dtype)}


def test_settings_change_what_they_name():
    layers, images = features(4, 7), images_of(7)
    found = scored(
        Mutual(blocks=BLOCKS, size=60, keep="fp32", neighbourhoods=[3], share=0.7, neighbours=[2, 5]), layers, images
    )
    expected = oracle.maps(layers, sides=(3,), share=0.7)
    np.testing.assert_allclose(np.concatenate([p.tile_maps for p in found.pictures]), expected, atol=1e-5)
    scores = oracle.picture_scores(expected, 60, images, (2, 5))
    np.testing.assert_allclose([p.score for p in found.pictures], scores, atol=1e-5)
    alone = scored(Mutual(blocks=BLOCKS, size=60, keep="fp32", neighbours=()), layers, images)
    expected = oracle.picture_scores(oracle.maps(layers), 60)
    np.testing.assert_allclose([p.score for p in alone.pictures], expected, atol=1e-5)


@KINDS
def test_copies_of_a_picture_are_at_distance_0(kind):
    """Where rounding in a product would be 4e-4."""
    layers = np.repeat(features(5, 2, width=400), 2, axis=1)
    found = scored(Mutual(blocks=BLOCKS, share=0.1), layers, images_of(4, 0), kind=kind)
    for picture in found.pictures:
        assert picture.tile_maps.max() == 0


def test_a_blank_picture_is_at_distance_1():
    """Its vectors are 0: their distance from vectors of length 1 is 1."""
    layers = features(6, 5)
    layers[:, 1] = 7
    method = Mutual(blocks=BLOCKS, keep="fp32")
    found = scored(method, layers, images_of(5, 0))
    np.testing.assert_allclose(found.pictures[1].tile_maps, 1, atol=1e-5)
    maps = np.concatenate([picture.tile_maps for picture in found.pictures])
    np.testing.assert_allclose(maps, oracle.maps(layers), atol=1e-5)


def test_in_small_blocks_and_from_a_file_scores_are_the_same(monkeypatch):
    layers, images = features(7, 7), images_of(7)
    whole = scored(Mutual(blocks=BLOCKS, keep="fp16"), layers, images)
    monkeypatch.setattr(pairs, "_PRODUCTS", 2000)  # two pictures
    method = Mutual(blocks=BLOCKS, limit_gb=2e-5)  # one picture
    batch = method.batch(7)
    batch.add(embeddings(layers, images))
    assert all(isinstance(kept, np.memmap) and kept.dtype == np.float16 for kept in batch._features.values())
    for ours, theirs in zip(batch.scores().pictures, whole.pictures, strict=True):
        np.testing.assert_allclose(ours.tile_maps, theirs.tile_maps, atol=1e-6)
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_room_is_a_file_beyond_the_limit(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert not isinstance(room((10, 3), np.float16, limit_bytes=60), np.memmap)
    beyond = room((10, 3), np.float16, limit_bytes=59)
    assert isinstance(beyond, np.memmap)
    assert (beyond.shape, beyond.dtype) == ((10, 3), np.float16)
    beyond[:] = 2
    assert beyond.sum() == 60
    assert not [*tmp_path.iterdir()]  # it goes with the array, however the process ends
    with pytest.raises(Exception, match=r"no room for .* bytes of features .*TMPDIR"):
        room((2**60,), np.float16, limit_bytes=0)


def test_groups_are_scored_each_by_itself():
    layers, images = features(8, 10), images_of(10, 0)
    method = Mutual(blocks=BLOCKS, groups=2, seed=3)
    found = scored(method, layers, images)
    groups = np.array_split(np.random.default_rng(3).permutation(10), 2)
    for group in map(np.sort, groups):
        alone = scored(Mutual(blocks=BLOCKS), layers[:, group], images[group])
        for number, expected in zip(group, alone.pictures, strict=True):
            np.testing.assert_allclose(found.pictures[number].tile_maps, expected.tile_maps, atol=1e-6)
    assert np.isnan(found.apart[groups[0][0], groups[1][0]])
    assert found.apart[groups[0][0], groups[0][1]] > 0


def test_where_too_many_failed_the_others_are_compared_in_fewer_groups(caplog):
    layers, images = features(8, 9), images_of(9, 0)
    layers[0, 4:6] = np.nan
    with caplog.at_level(logging.WARNING):
        found = scored(Mutual(blocks=BLOCKS, groups=2), layers, images)
    assert "groups: 7 pictures can be used, and are compared in 1 groups" in caplog.text
    others = [0, 1, 2, 3, 6, 7, 8]
    alone = scored(Mutual(blocks=BLOCKS), layers[:, others], images[others])
    for number, expected in zip(others, alone.pictures, strict=True):
        np.testing.assert_allclose(found.pictures[number].tile_maps, expected.tile_maps, atol=1e-6)


def test_a_picture_that_failed_is_left_out():
    layers, images = features(9, 6), images_of(6)
    broken = layers.copy()
    broken[1, 3, 2, 2, 5] = np.nan
    found = scored(Mutual(blocks=BLOCKS), broken, images)
    others = [0, 1, 2, 4, 5]
    expected = scored(Mutual(blocks=BLOCKS), layers[:, others], images[others])
    assert np.isnan(found.pictures[3].score)
    assert found.pictures[3].tile_maps is None
    for number, alone in zip(others, expected.pictures, strict=True):
        assert found.pictures[number].score == pytest.approx(alone.score, abs=1e-6)
        np.testing.assert_allclose(found.pictures[number].tile_maps, alone.tile_maps, atol=1e-6)


def test_too_few_pictures():
    with pytest.raises(SourceError, match="got 3, need at least 4"):
        Mutual(blocks=BLOCKS).batch(3)
    with pytest.raises(SettingsError, match=r"^groups: got 3 for 10 pictures, need at least 4 pictures a group"):
        Mutual(blocks=BLOCKS, groups=3).batch(10)
    layers = features(1, 4)
    layers[0, 2] = np.nan
    with pytest.raises(SourceError, match=r"got 3 \(1 failed\), need at least 4"):
        scored(Mutual(blocks=BLOCKS), layers, images_of(4))


def test_pictures_that_do_not_differ_score_0():
    layers = np.repeat(features(5, 1), 5, axis=1)
    found = scored(Mutual(blocks=BLOCKS), layers, images_of(5))
    assert [picture.score for picture in found.pictures] == [0] * 5


def test_grids_that_differ():
    batch = Mutual(blocks=BLOCKS).batch(8)
    batch.add(embeddings(features(1, 4), images_of(4)))
    with pytest.raises(SettingsError, match=r"patches on one grid, got \(4, 6\), \(5, 6\)"):
        batch.add(embeddings(features(1, 4, (4, 6)), images_of(4)))


def test_good_samples_and_single_pictures_are_refused():
    method = Mutual(blocks=BLOCKS)
    sample = embeddings(features(1, 4), images_of(4))
    with pytest.raises(
        SettingsError, match=r"recipe mutual .* takes no good samples; choose recipe memory or subspace"
    ):
        method.fit([sample])
    with pytest.raises(SettingsError, match=r"recipe mutual .*, and a single picture has no batch"):
        method.score(sample, [], text=None)


def test_settings_as_published(caplog):
    method = get_method("mutual")
    assert method == Mutual()
    assert (method.neighbourhoods, method.share, method.neighbours, method.groups) == ((1, 3, 5), 0.3, (1, 2, 3), 1)
    assert (quarter_blocks(12), quarter_blocks(24)) == ((3, 6, 9, 12), (6, 12, 18, 24))
    assert all(quarter_blocks(depth)[-1] == depth and quarter_blocks(depth)[0] >= 1 for depth in range(1, 50))
    known = Mutual(size=518).for_model({}, "m", depth=24, patch=14)
    assert known.needs(few_shot=False, maps=True).layers == ("block_6", "block_12", "block_18", "block_24")
    assert method_of(known.document()) == known
    assert Mutual(size=512).preprocess(Preprocess(), 16).size == 512
    with caplog.at_level(logging.WARNING):
        assert method.for_model({}, "m", depth=12, patch=32).size == 224
    assert "size: 240 is no multiple of the patch of 32 pixels" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0), ("blocks", []), ("blocks", [0]), ("blocks", [[1]]), ("blocks", [""]), ("neighbourhoods", [2]),
        ("neighbourhoods", []), ("neighbourhoods", 3), ("share", 0), ("share", 1.5), ("neighbours", [0]),
        ("neighbours", [1, 1]), ("groups", 0), ("groups", 1.5), ("seed", -1), ("keep", "int8"), ("limit_gb", -1),
        ("strict", 1),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=f"^{name}: got "):
        get_method("mutual", {name: value})


def test_two_halves_are_named():
    """A change at one patch that half of the batch shares: normal for each, so that no score says so."""
    layers, images = features(10, 16), images_of(16, 0)
    odd = np.arange(16) % 2 == 1
    assert scored(Mutual(blocks=BLOCKS), layers, images).halves is None
    changed = layers.copy()
    changed[:, odd, 3, 3] += 8 * np.random.default_rng(1).standard_normal(12).astype(np.float32)
    found = scored(Mutual(blocks=BLOCKS), changed, images)
    assert found.halves == (tuple(range(0, 16, 2)), tuple(range(1, 16, 2)))
    warning = found.warning([f"{number}.png" for number in range(16)])
    assert warning.startswith("the batch falls into two clusters of 8 and 8 pictures")
    assert "First: 0.png, 2.png, 4.png, 6.png, 8.png and 3 more. " in warning
    assert warning.endswith("Second: 1.png, 3.png, 5.png, 7.png, 9.png and 3 more")
    grouped = scored(Mutual(blocks=BLOCKS, groups=2), changed, images)
    assert {number % 2 for number in grouped.halves[0]} == {0} != {number % 2 for number in grouped.halves[1]}


@pytest.mark.parametrize("bad", [1, 3])
def test_a_few_that_are_alike_are_no_half(bad):
    layers = features(11, 16)
    layers[:, :bad, 3, 3] += 8 * np.random.default_rng(1).standard_normal(12).astype(np.float32)
    found = scored(Mutual(blocks=BLOCKS), layers, images_of(16, 0))
    assert found.halves is None
    assert found.warning([""] * 16) is None


def test_separation_by_hand():
    """Two clusters on a line; one picture of the second is nearer to the first than to its farthest own."""
    places = np.array([0, 1, 2, 3, 13, 10, 11, 30.0])
    apart = np.abs(places[:, None] - places)
    ranks = halves._ranks(apart)
    aurocs = []
    for number in range(8):
        own = [other for other in range(8) if other != number and (other < 4) == (number < 4)]
        others = [other for other in range(8) if (other < 4) != (number < 4)]
        nearer = [apart[number, a] < apart[number, b] for a in own for b in others]
        aurocs.append(np.mean(nearer))
    assert halves._separation(ranks, 4) == pytest.approx(np.mean(aurocs))
    assert np.mean(aurocs) < 1
    assert halves.find_halves(apart[:7, :7]) is None  # too few to say
