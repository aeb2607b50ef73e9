"""The three methods on towers of open_clip and timm, from the picture to the score, beside slow float64."""

from __future__ import annotations

import numpy as np
import pytest
import timm_models
import torch
from checkpoints import SMALL, build, register_small
from miniature import part
from PIL import Image

from tests.methods import oracle_memory, oracle_mutual, oracle_subspace
from tests.oracle import attention
from winspect import WinCLIP
from winspect.errors import ReferencesError
from winspect.pictures.tiles import prepare

SIZE, PATCH, TIMM_SIZE = 96, 16, 70
SHAPES = {"square": (80, 80), "landscape": (170, 75), "portrait": (70, 90)}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pixels(rgb, *, aspect, side=SIZE, patch=PATCH, mean=MEAN, std=STD):
    image = Image.fromarray(rgb)
    if aspect:
        width, height = (side * length // min(image.size) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        image = image.crop((0, 0, width - width % patch, height - height % patch))
    else:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    values = (np.asarray(image) / 255 - mean) / std
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


class Tower:
    """Every block's output, (rows, columns, width), counted from 1; ``norm`` of the last; the image embedding."""

    def __init__(self, visual, rgb, *, aspect):
        grid = visual.conv1(pixels(rgb, aspect=aspect)[None])[0]
        shape = grid.shape[1:]
        known = visual.positional_embedding[1:].unflatten(0, visual.grid_size).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(known, shape, mode="bicubic", antialias=True, align_corners=False)
        positions = torch.cat([visual.positional_embedding[:1], resized[0].flatten(1).T])
        x = visual.ln_pre(torch.cat([visual.class_embedding[None], grid.flatten(1).T]) + positions)
        self.blocks = [None]
        for block in visual.transformer.resblocks:
            x = x + block.ls_1(attention(block, block.ln_1(x), [len(x)]))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
            self.blocks.append(x[1:].unflatten(0, shape).numpy())
        self.norm = visual.ln_post(x[1:]).unflatten(0, shape).numpy()
        self.image = (visual.ln_post(x[0]) @ visual.proj).numpy()


@pytest.fixture(scope="module")
def visual():
    return build(SMALL).double().visual


@pytest.fixture
def model(small_checkpoint):
    register_small()

    def load(recipe, **settings):
        options = {"weights": small_checkpoint, "device": "cpu", "engine": "torch"}
        return WinCLIP(SMALL, recipe=recipe, settings={"size": SIZE, **settings}, **options)

    return load


def pictures(size_wh):
    return [part(seed, defective=seed == 4, size_wh=size_wh)[0] for seed in range(5)]


@pytest.mark.parametrize("size_wh", SHAPES.values(), ids=SHAPES)
def test_memory(visual, model, size_wh):
    *goods, picture = pictures(size_wh)
    goods.append(pictures(SHAPES["square"])[0])
    winspect = model("memory", rotations=0)
    winspect.reference(goods)
    result = winspect.predict(picture)
    patches = Tower(visual, picture, aspect=True).norm
    assert patches.shape[:2] == {80: (6, 6), 170: (6, 13), 70: (7, 6)}[size_wh[0]]
    expected = oracle_memory.patch_scores(patches, [Tower(visual, good, aspect=True).norm for good in goods])
    np.testing.assert_allclose(result.tile_maps[0], expected, atol=1e-5)
    assert result.anomaly_score == pytest.approx(oracle_memory.picture_score(expected), abs=1e-5)
    assert result.anomaly_map.shape == size_wh[::-1]


@pytest.mark.parametrize("size_wh", SHAPES.values(), ids=SHAPES)
def test_subspace(visual, model, size_wh):
    *goods, picture = pictures(size_wh)
    winspect = model("subspace", rotations=0, blocks=[1, 3])
    winspect.reference(goods)
    result = winspect.predict(picture)

    def features(rgb):
        tower = Tower(visual, rgb, aspect=False)
        return (tower.blocks[1] + tower.blocks[3]) / 2

    expected = oracle_subspace.picture_map(features(picture), [*map(features, goods)], side=SIZE)
    np.testing.assert_allclose(result.tile_maps[0], expected, rtol=1e-4)
    assert result.anomaly_score == pytest.approx(oracle_subspace.picture_score(expected), rel=1e-4)


@pytest.mark.parametrize("keep", ["fp32", "fp16"])
@pytest.mark.parametrize("size_wh", SHAPES.values(), ids=SHAPES)
def test_mutual(visual, model, size_wh, keep):
    winspect = model("mutual", keep=keep)
    assert winspect.method.blocks == (1, 2, 3)
    batch = winspect.method.batch(5)
    for picture in pictures(size_wh):
        tiles = prepare(picture, winspect.preprocess).tiles
        batch.add(winspect._encode(tiles, winspect.method.needs(few_shot=False, maps=True)))
    found = batch.scores().pictures
    towers = [Tower(visual, picture, aspect=False) for picture in pictures(size_wh)]
    expected = oracle_mutual.maps([np.array([tower.blocks[number] for tower in towers]) for number in (1, 2, 3)])
    tolerance = {"fp32": 1e-5, "fp16": 1e-4}[keep]
    np.testing.assert_allclose(np.concatenate([one.tile_maps for one in found]), expected, atol=tolerance)
    scores = oracle_mutual.picture_scores(expected, SIZE, np.array([tower.image for tower in towers]))
    # The lowest score of a batch becomes 0, the highest 1: a difference between them is enlarged.
    raw = oracle_mutual.picture_scores(expected, SIZE)
    np.testing.assert_allclose([one.score for one in found], scores, atol=max(1e-5, 3 * tolerance / np.ptp(raw)))


@pytest.mark.parametrize("recipe", ["memory", "subspace"])
def test_many_good_samples_are_fitted_in_parts(model, monkeypatch, recipe):
    """And a set that does not fit is refused after the first of them."""
    *goods, picture = pictures(SHAPES["landscape"])
    whole = model(recipe, rotations=3)
    whole.reference(goods)
    monkeypatch.setattr("winspect.inspector.classes._FITTED_BYTES", 100_000)
    calls = []
    fit = type(whole.method).fit
    monkeypatch.setattr(
        type(whole.method), "fit", lambda self, samples: calls.append(len(samples)) or fit(self, samples)
    )
    parts = model(recipe, rotations=3)
    parts.reference(goods)
    assert max(calls) < len(goods)
    ours, theirs = parts.predict(picture), whole.predict(picture)
    np.testing.assert_allclose(ours.tile_maps, theirs.tile_maps, rtol=1e-4, atol=1e-6)


def test_a_memory_that_does_not_fit_is_refused_after_the_first_sample(model, monkeypatch):
    small = model("memory", rotations=2, limit_gb=1e-4)
    encoded = []
    encode = small._encode
    monkeypatch.setattr(small, "_encode", lambda *given: encoded.append(1) or encode(*given))
    with pytest.raises(ReferencesError, match=r"'object': .* of 147456 bytes .* limit_gb=0.0001 .*coreset=0.678"):
        small.reference(pictures(SHAPES["square"])[:4] * 2)
    assert len(encoded) == 1


class TimmTower:
    """The same of a model of timm, by timm itself in float64."""

    def __init__(self, timm_model, rgb, *, aspect):
        config = timm_model.pretrained_cfg
        given = pixels(rgb, aspect=aspect, side=TIMM_SIZE, patch=14, mean=config["mean"], std=config["std"])[None]
        _, blocks = timm_model.forward_intermediates(given, norm=False, output_fmt="NCHW")
        self.blocks = [None, *(block[0].permute(1, 2, 0).numpy() for block in blocks)]
        tokens = timm_model.forward_features(given)[0, timm_model.num_prefix_tokens :]
        self.norm = tokens.numpy().reshape(self.blocks[1].shape)


@pytest.mark.parametrize("size_wh", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("recipe", ["memory", "subspace"])
def test_on_timm(tmp_path, recipe, size_wh):
    tower = timm_models.save_folder(*timm_models.KINDS["registers"], tmp_path / "model").double()
    settings = {"size": TIMM_SIZE, "rotations": 0}
    winspect = WinCLIP(
        f"local-dir:{tmp_path / 'model'}", recipe=recipe, settings=settings, device="cpu", engine="torch"
    )
    *goods, picture = pictures(size_wh)
    winspect.reference(goods)
    result = winspect.predict(picture)
    towers = [TimmTower(tower, rgb, aspect=recipe == "memory") for rgb in (*goods, picture)]
    if recipe == "memory":
        expected = oracle_memory.patch_scores(towers[-1].norm, [good.norm for good in towers[:-1]])
        score, tolerance = oracle_memory.picture_score(expected), {"atol": 1e-5}
    else:
        assert winspect.method.blocks == (2,)  # of three
        features = [each.blocks[2] for each in towers]
        expected = oracle_subspace.picture_map(features[-1], features[:-1], side=TIMM_SIZE)
        score, tolerance = oracle_subspace.picture_score(expected), {"rtol": 1e-4}
    np.testing.assert_allclose(result.tile_maps[0], expected, **tolerance)
    assert result.anomaly_score == pytest.approx(score, rel=1e-4, abs=1e-5)
