"""The patch memory, held to a slow float64 oracle; what it keeps, adds, removes and refuses."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

from tests.methods import oracle_memory as oracle
from winspect.backbones.embeddings import Embeddings
from winspect.errors import ReferencesError, SettingsError
from winspect.methods.foreground import foreground
from winspect.methods.memory import Memory
from winspect.methods.method import CutPicture
from winspect.methods.registry import get_method, method_of
from winspect.pictures.tiles import Preprocess

SHAPES = [(8, 8), (6, 21), (13, 5)]
TEXT = np.zeros((2, 0), np.float32)
KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def embeddings(seed, shape, *, views=1, width=16, kind=np.asarray, scale=1.0):
    """Patches around a few common vectors, as those of a part are."""
    random = np.random.default_rng(seed)
    common = np.random.default_rng(0).standard_normal((6, width))
    patches = common[random.integers(0, 6, (views, *shape))] + 0.5 * random.standard_normal((views, *shape, width))
    patches = kind((scale * patches).astype(np.float32))
    return Embeddings(kind(np.zeros((views, 4), np.float32)), patches={"last_norm": patches}, grid_hw=shape)


def scored(method, samples, picture):
    (scores,) = method.score(picture, [CutPicture(1)], text=TEXT, references=method.fit(samples))
    return scores


@KINDS
@pytest.mark.parametrize("shape", SHAPES, ids=["square", "landscape", "portrait"])
@pytest.mark.parametrize("mask", [False, True], ids=["all", "part"])
def test_against_the_oracle(kind, shape, mask):
    samples = [embeddings(seed, other, views=2, kind=kind, scale=4) for seed, other in enumerate(SHAPES)]
    picture = embeddings(9, shape, kind=kind, scale=4)
    background = picture.patches["last_norm"][0, :4] if shape[0] > 6 else picture.patches["last_norm"][0, :, :4]
    background -= 40
    scores = scored(Memory(mask=mask), samples, picture)
    known = [np.asarray(sample.patches["last_norm"]) for sample in samples]
    expected = oracle.patch_scores(np.asarray(picture.patches["last_norm"])[0], known, mask)
    assert scores.tile_maps.dtype == np.float32
    np.testing.assert_allclose(scores.tile_maps[0], expected, atol=1e-5)
    assert scores.score == pytest.approx(oracle.picture_score(expected), abs=1e-5)
    assert scores.upsampling.sigma == 4
    if mask:
        assert 0 < (expected == 0).sum() < expected.size


def test_by_hand():
    """Two known directions; a patch of one, one between them, one opposite, and one without any."""
    known = Embeddings(np.zeros((1, 1)), patches={"last_norm": np.array([[[[2, 0], [0, 3]]]], np.float32)})
    patches = np.array([[[[5, 0], [1, 1]], [[-1, 0], [0, 0]]]], np.float32)
    scores = scored(Memory(), [known], Embeddings(np.zeros((1, 1)), patches={"last_norm": patches}))
    np.testing.assert_allclose(scores.tile_maps[0], [[0, 1 - np.sqrt(0.5)], [1, 1]], atol=1e-6)
    assert scores.score == 1


def test_a_share_of_the_patches_is_the_score():
    samples, picture = [embeddings(1, (10, 20))], embeddings(2, (10, 20))
    ordered = np.sort(scored(Memory(), samples, picture).tile_maps.ravel())
    for share, count in ((0.01, 2), (0.1, 20), (0.004, 1), (0, 1), (1, 200)):
        score = scored(Memory(top_share=share), samples, picture).score
        assert score == pytest.approx(ordered[-count:].mean(), abs=1e-6)


def test_several_pictures_are_scored_each_by_itself():
    method, sample = Memory(), embeddings(1, (5, 4))
    pictures = [embeddings(seed, (5, 4)) for seed in (2, 3)]
    together = method.score(
        Embeddings.concatenate(pictures), [CutPicture(1)] * 2, text=TEXT, references=method.fit([sample])
    )
    for found, picture in zip(together, pictures, strict=True):
        alone = scored(method, [sample], picture)
        assert found.score == pytest.approx(alone.score, abs=1e-6)
        np.testing.assert_allclose(found.tile_maps, alone.tile_maps, atol=1e-6)


def test_the_foreground_turns_round_where_the_centre_would_be_dropped():
    patches = np.zeros((16, 16, 3), np.float32)
    patches[4:12, 4:12, 0] = 100
    np.testing.assert_array_equal(foreground(patches), oracle.part_of(patches))
    turned = foreground(-patches)
    np.testing.assert_array_equal(turned, oracle.part_of(-patches))
    assert turned[4:12, 4:12].all()
    assert not turned[0].any()


@pytest.mark.parametrize("seed", range(6))
def test_the_foreground_against_the_oracle(seed):
    patches = 6 * np.random.default_rng(seed).standard_normal((12, 9, 5)).astype(np.float32)
    patches[2:9, 2 : 3 + seed] += 12
    np.testing.assert_array_equal(foreground(patches), oracle.part_of(patches))


def test_settings_as_published():
    method = get_method("memory")
    assert method == Memory()
    assert method_of(method.document()) == method
    assert (method.size, method.layer, method.top_share, method.mask, method.sigma) == (
        448,
        "last_norm",
        0.01,
        False,
        4,
    )
    assert list(method.angles(0)) == [45, 90, 135, 180, 225, 270, 315]
    assert not Memory(rotations=0).angles(0)
    assert not Memory(rotations=1).angles(0)
    assert get_method("memory", {"rotations": 0, "size": 224}) == Memory(rotations=0, size=224)
    assert (method.zero_shot, method.reads_text, method.score_range) == (False, False, (0, 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0), ("size", 448.0), ("size", True), ("size", 20_000), ("layer", ""), ("layer", 3), ("rotations", -1),
        ("rotations", 1000), ("top_share", -0.1), ("top_share", 1.1), ("top_share", np.nan), ("mask", 1),
        ("sigma", -1), ("sigma", np.inf), ("coreset", 0), ("coreset", 1.5), ("coreset", "half"), ("seed", -1),
        ("seed", 0.5), ("limit_gb", -1), ("strict", "no"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=f"^{name}: got "):
        get_method("memory", {name: value})


def test_an_unknown_setting():
    with pytest.raises(SettingsError, match=r"recipe memory: .*colour"):
        get_method("memory", {"colour": 1})


def test_the_size_in_whole_patches(caplog):
    with caplog.at_level(logging.WARNING):
        seen = Memory(size=450).preprocess(Preprocess(), 14)
        assert (seen.size, seen.aspect, seen.patch) == (448, True, 14)
        assert "size: 450 is no multiple of the patch of 14 pixels; pictures are seen at 448" in caplog.text
        caplog.clear()
        assert Memory(size=450).for_model({}, "m", depth=12, patch=14).size == 448
        assert caplog.records
        caplog.clear()
        assert Memory().preprocess(Preprocess(), 14).size == 448
    assert not caplog.records
    for method in (Memory(size=450, strict=True), Memory(size=10)):
        with pytest.raises(SettingsError, match=r"^size: got .* need a multiple of the patch of 14 pixels, such as"):
            method.preprocess(Preprocess(), 14)


@KINDS
def test_samples_are_added_and_removed(kind):
    method = Memory()
    samples = [embeddings(seed, shape, views=2, kind=kind) for seed, shape in enumerate(SHAPES)]
    references = method.fit(samples)
    assert [int(count) for count in references["rows"]] == [128, 252, 130]

    def same(found, expected):
        for name in ("memory", "rows"):
            np.testing.assert_array_equal(found[name], expected[name])

    same(method.join([method.fit(samples[:1]), method.fit(samples[1:])]), references)
    for number in range(3):
        same(method.remove(references, number), method.fit(samples[:number] + samples[number + 1 :]))
    alone = method.fit(samples[:1])
    with pytest.raises(ReferencesError, match="the last good sample cannot be removed"):
        method.remove(alone, 0)


@KINDS
def test_a_coreset_keeps_its_share_of_the_samples_rows(kind):
    samples = [embeddings(seed, (8, 8), kind=kind) for seed in range(4)]
    whole, kept = Memory().fit(samples), Memory(coreset=0.25).fit(samples)
    assert len(kept["memory"]) == 64 == int(sum(kept["rows"]))
    known = {tuple(row) for row in np.asarray(whole["memory"])}
    start = 0
    for number, count in enumerate(np.asarray(kept["rows"])):
        its = {tuple(row) for row in np.asarray(Memory().fit(samples[number : number + 1])["memory"])}
        assert {tuple(row) for row in np.asarray(kept["memory"])[start : start + count]} <= its <= known
        start += count


def test_many_samples_are_thinned_in_groups(monkeypatch):
    monkeypatch.setattr("winspect.methods.coreset._GROUP", 150)
    samples = [embeddings(seed, (8, 8)) for seed in range(5)]
    method = Memory(coreset=0.5)
    kept = method.fit(samples)
    parts = method.join([method.fit(samples[:2]), method.fit(samples[2:4]), method.fit(samples[4:])])
    np.testing.assert_array_equal(kept["memory"], parts["memory"])
    np.testing.assert_array_equal(kept["rows"], parts["rows"])
    assert len(kept["memory"]) == 160


def test_a_memory_that_does_not_fit():
    samples = [embeddings(seed, (8, 8)) for seed in range(4)]
    with pytest.raises(ReferencesError, match=r" 16384 bytes .*limit_gb=1e-05 .*with coreset=0.61, "):
        Memory(limit_gb=1e-5).fit(samples)
    assert Memory(limit_gb=1e-5, coreset=0.61).fit(samples)["memory"].nbytes <= 1e4
    with pytest.raises(ReferencesError, match="take fewer samples or rotations"):
        Memory(limit_gb=1e-9).fit(samples)
    with pytest.raises(ReferencesError, match="16384 bytes"):
        Memory(limit_gb=1e-5).join([Memory().fit(samples[:2])] * 2)


def test_ten_thousand_samples_are_refused_before_anything_is_allocated():
    """10,000 samples in 8 views of 32 x 32 patches: 126 GB."""
    sample = embeddings(1, (32, 32), views=8, width=384)
    assert re.search(r"125829120000 bytes at coreset=1.*coreset=0.031", Memory().samples_refusal(10_000, sample))
    assert Memory(coreset=0.031).samples_refusal(10_000, sample) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_numbers(value):
    broken = embeddings(1, (4, 4))
    broken.patches["last_norm"][0, 1, 2, 3] = value
    with pytest.raises(ReferencesError, match=r"good sample 2 has vectors that are not numbers"):
        Memory().fit([embeddings(2, (4, 4)), broken])


@pytest.mark.parametrize("mask", [False, True])
def test_a_picture_whose_vectors_are_not_numbers_fails_by_its_map(mask):
    broken = embeddings(1, (4, 4))
    broken.patches["last_norm"][0, 1, 2, 3] = np.nan
    scores = scored(Memory(mask=mask), [embeddings(2, (4, 4))], broken)
    assert np.isnan(scores.tile_maps).sum() == 1


def test_a_constant_sample_is_a_memory_like_any_other():
    constant = Embeddings(np.zeros((1, 1)), patches={"last_norm": np.ones((1, 4, 4, 3), np.float32)})
    scores = scored(Memory(mask=True), [constant], constant)
    assert scores.score == 0
    assert scored(Memory(), [constant], embeddings(1, (4, 4), width=3)).score > 0


def test_without_good_samples():
    with pytest.raises(ReferencesError, match="recipe memory compares with good samples"):
        Memory().score(embeddings(1, (4, 4)), [CutPicture(1)], text=TEXT)
