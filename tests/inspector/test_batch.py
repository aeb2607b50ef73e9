"""Recipe mutual through the public calls, on the bundled model's stem."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from miniature import part

from winspect import WinCLIP
from winspect.errors import SettingsError, SourceError
from winspect.weights import TINY

PICTURES = [part(number, defective=number % 4 == 3)[0] for number in range(8)]
SETTINGS = {"blocks": ["stem_8"], "size": 96, "neighbours": []}


@pytest.fixture(scope="module")
def model() -> WinCLIP:
    return WinCLIP(TINY, device="cpu", engine="torch", recipe="mutual", settings=SETTINGS)


def test_a_batch_is_scored_as_its_method_scores_the_embeddings(model):
    results = list(model.predict_many(PICTURES, "bolt"))
    batch = model.method.batch(len(PICTURES))
    needs = model.method.needs(few_shot=False, maps=True)
    tiles = np.concatenate([model.preprocess(picture)[None] for picture in PICTURES])
    batch.add(model.engine.encode(torch.from_numpy(tiles), needs))
    expected = batch.scores().pictures
    assert [result.anomaly_score for result in results] == pytest.approx([found.score for found in expected], abs=1e-6)
    for result, found, picture in zip(results, expected, PICTURES, strict=True):
        np.testing.assert_allclose(result.tile_maps, found.tile_maps, atol=1e-6)
        assert result.anomaly_map.shape == picture.shape[:2]


def test_a_picture_that_fails_is_a_row_and_the_rest_goes_on(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with_it = list(model.predict_many([*PICTURES[:4], tmp_path / "bad.png", *PICTURES[4:]], "bolt"))
    assert [result.error is not None for result in with_it] == [False] * 4 + [True] + [False] * 4
    without = [result.anomaly_score for result in model.predict_many(PICTURES, "bolt")]
    assert [result.anomaly_score for result in with_it if result.error is None] == pytest.approx(without, abs=1e-6)


def test_what_a_batch_is_needed_for_is_refused_before_a_picture_is_read(model):
    with pytest.raises(SourceError, match="4"):
        model.predict_many(["no_such.png"] * 3, "bolt")
    with pytest.raises(SettingsError, match="and a single picture has no batch: choose references"):
        model.predict("no_such.png", "bolt")
    with pytest.raises(SettingsError, match="takes no good samples"):
        model.reference(["no_such.png"], "bolt")


def test_pictures_of_two_halves_carry_the_warning(caplog):
    """Black pictures and white ones: neither half says anything of the other."""
    random = np.random.default_rng(0)
    dark = [random.integers(0, 40, (96, 96, 3), np.uint8) for _ in range(5)]
    light = [np.repeat(np.repeat(random.integers(90, 255, (12, 12, 3), np.uint8), 8, 0), 8, 1) for _ in range(5)]
    model = WinCLIP(TINY, device="cpu", engine="torch", recipe="mutual", settings=SETTINGS)
    with caplog.at_level(logging.WARNING):
        results = list(model.predict_many([*dark, *light], "bolt"))
    assert all("one of 5 pictures, about half of the batch" in result.warning for result in results)
    clusters = ["cluster 1" if "(cluster 1 of 2)" in result.warning else "cluster 2" for result in results]
    assert clusters == ["cluster 1"] * 5 + ["cluster 2"] * 5
    assert "falls into two clusters of 5 and 5 pictures" in caplog.text


def test_colours_of_a_batch_have_one_scale(model):
    """Colour starts where half of the pictures reach."""
    results = list(model.predict_many(PICTURES, "bolt"))
    (scale,) = {result.heat_range for result in results}
    assert scale[0] == pytest.approx(np.median([result.tile_maps.max() for result in results]))
