"""Recipe ``log`` through the predictor: what the fusion gives tile by tile, and its settings from the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from winspect import WinCLIP
from winspect.backbones.open_clip_models import load
from winspect.methods.winclip.fusion import FusionSettings, log_fusion
from winspect.methods.winclip.recipes import Recipe
from winspect.methods.winclip.scoring import class_score, zero_shot_map
from winspect.pictures.tiles import prepare
from winspect.weights import TINY


def tiny(**settings) -> WinCLIP:
    return WinCLIP(TINY, device="cpu", recipe="log", settings=settings)


def expected(model: WinCLIP, picture, references, stride=1):
    """The fusion by hand for every tile of a picture: scores (tiles,) and maps (tiles, 15, 15)."""

    def encode(source):
        tiles = torch.from_numpy(prepare(source, model.preprocess, model.cut).tiles)
        return model.engine.encode(tiles, model.method.needs(few_shot=True, maps=True))

    embeddings = encode(picture)
    text = model._class_text("textile")
    scores, *windows = (
        class_score(vectors, text, temperature=model.recipe.temperature)
        for vectors in (embeddings.image, *embeddings.windows.values())
    )
    maps = zero_shot_map(scores, dict(zip(embeddings.windows, windows, strict=True)), model.grid_hw, stride=stride)
    settings = FusionSettings(**load(TINY).scoring["log_fusion"])
    good = model.method.fit([encode(reference) for reference in references])
    return log_fusion(embeddings, scores, maps, good, settings, stride=stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_few_shot_is_the_fusion(textile, stride):
    model = tiny(stride=stride)
    model.reference(textile[-2:], "textile")
    result = model.predict(textile[3], "textile")
    score, maps = expected(model, textile[3], textile[-2:], stride)
    assert result.anomaly_score == pytest.approx(float(score[0]), abs=1e-5)
    np.testing.assert_allclose(result.tile_maps, maps.numpy(), atol=1e-5)


def test_a_long_picture_is_as_bad_as_its_worst_tile(textile):
    model = tiny(tiling=True)
    model.reference(textile[-1:], "textile")
    long = np.hstack([np.asarray(prepare(p, model.preprocess, keep_rgb=True).rgb) for p in (textile[0], textile[3])])
    scores, maps = expected(model, long, textile[-1:])
    result = model.predict(long, "textile")
    assert len(scores) == 3
    assert result.anomaly_score == pytest.approx(float(scores.max()), abs=1e-5)
    np.testing.assert_allclose(result.tile_maps, maps.numpy(), atol=1e-5)


def test_the_model_brings_its_temperature_unless_one_is_given():
    own = load(TINY).scoring["temperature"]
    assert tiny().recipe.temperature == own
    assert tiny(temperature=0.2).recipe.temperature == 0.2
    given = Recipe("mine", fusion="log", temperature=0.3)
    assert WinCLIP(TINY, device="cpu", recipe=given).recipe == given
