"""Recipe ``tiles`` as its base program counts: the last tile's repeats, tile against tile, and each turned off."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import part

from winspect import WinCLIP
from winspect.calibration import Calibration
from winspect.errors import PictureError, ReferencesError, SettingsError
from winspect.inspector.calibrating import calibrate
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.pictures.tiles import prepare

LONG = (170, 100)  # cut at 0, 70, 70, as 1562 x 960 at 0, 602, 602


def new_model(checkpoint, **settings):
    return WinCLIP(SMALL, weights=checkpoint, device="cpu", precision="fp32", recipe="tiles", settings=settings)


def long_part(number, size_wh=LONG):
    return part(number, defective=False, size_wh=size_wh)[0]


def test_a_repeated_tile_is_computed_once_and_counts_twice(small_checkpoint, monkeypatch):
    model = new_model(small_checkpoint)
    encoded = []
    encode = model.engine.encode
    monkeypatch.setattr(model.engine, "encode", lambda tiles, needs: encoded.append(len(tiles)) or encode(tiles, needs))
    picture = long_part(1)
    result = model.predict(picture)
    assert encoded == [2]
    assert result.tile_boxes == ((0, 0, 100, 100), (70, 0, 170, 100))
    first, last = (model.predict(np.ascontiguousarray(picture[:, x : x + 100])).anomaly_score for x in (0, 70))
    assert abs(first - last) > 1e-4
    assert result.anomaly_score == pytest.approx((first + 2 * last) / 3, abs=1e-6)
    once = new_model(small_checkpoint, repeat_last=False).predict(picture)
    assert once.anomaly_score == pytest.approx((first + last) / 2, abs=1e-6)
    # A place is as anomalous however often its tile counts.
    np.testing.assert_allclose(result.anomaly_map, once.anomaly_map, atol=1e-6)


def test_the_score_without_maps_counts_repeats_too(small_checkpoint):
    model = new_model(small_checkpoint)
    pictures = [long_part(1), long_part(2, (100, 100)), long_part(3, (100, 170))]
    with_maps, without = (
        [result.anomaly_score for result in model.predict_many(pictures, maps=maps)] for maps in (True, False)
    )
    assert with_maps == pytest.approx(without, abs=1e-6)


def test_pictures_that_were_prepared_elsewhere_count_repeats_too(small_checkpoint):
    """As in the service: what scores has the tiles and the picture's size alone."""
    model = new_model(small_checkpoint)
    picture = long_part(1)
    item = prepare(picture, model.preprocess, model.cut)
    (result,) = model.predict_prepared([item])
    assert result.anomaly_score == pytest.approx(model.predict(picture).anomaly_score, abs=1e-6)


def test_pooled_and_same_references_differ(small_checkpoint):
    # The good sample is the picture's two tiles in turned order: pooled finds them, tile against tile does not.
    picture = long_part(1, (200, 100))
    turned = np.ascontiguousarray(np.hstack([picture[:, 100:], picture[:, :100]]))
    scores = {}
    for how in ("pooled", "same"):
        model = new_model(small_checkpoint, tile_references=how, tile_stride=1.0)
        model.reference([turned], "bolt")
        scores[how] = model.predict(picture, "bolt").tile_maps
    zero_shot = new_model(small_checkpoint, tile_stride=1.0).predict(picture, "bolt").tile_maps
    np.testing.assert_allclose(scores["pooled"], zero_shot / 2, atol=1e-5)
    assert (scores["same"] - zero_shot / 2).max() > 1e-3


def test_same_tiles_need_pictures_of_one_shape(small_checkpoint):
    model = new_model(small_checkpoint, tile_references="same")
    with pytest.raises(
        ReferencesError, match=r"'bolt': the good samples have 2, 1 tiles, and tile_references is same.*pooled"
    ):
        model.reference([long_part(1), long_part(2, (100, 100))], "bolt")
    model.reference([long_part(1), long_part(2)], "bolt")
    square, fits = model.predict_many([long_part(3, (100, 100)), long_part(4)], "bolt")
    assert isinstance(square.error, PictureError)
    assert "it has 1 tiles, each reference 2, and tile_references is same" in str(square.error)
    assert fits.error is None


def test_a_bundle_takes_same_tiles_and_repeats_along(small_checkpoint, tmp_path):
    settings = {"tile_references": "same", "patch_norm": True}
    how = {"device": "cpu", "engine": "openvino", "precision": "fp32", "recipe": "tiles", "settings": settings}
    model = WinCLIP(SMALL, weights=small_checkpoint, **how)
    model.reference([long_part(1), long_part(2)], "bolt")
    export(model, ["bolt"], tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    ours, theirs = model.predict(long_part(3), "bolt"), bundle.predict(long_part(3), "bolt")
    assert ours.anomaly_score == pytest.approx(theirs.anomaly_score, abs=1e-5)
    np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-5)


def test_a_calibration_of_another_way_to_count_is_refused(small_checkpoint):
    goods = [long_part(number) for number in range(12)]
    calibration = calibrate(new_model(small_checkpoint), goods, "bolt", max_false_alarms=0.1)
    calibration.check_model(new_model(small_checkpoint))
    with pytest.raises(SettingsError, match=r"recipe: calibrated with \{'repeat_last': True\}, now .*False"):
        calibration.check_model(new_model(small_checkpoint, repeat_last=False))
    # An earlier release's calibration did not repeat, and did not say so.
    document = calibration.document()
    del document["recipe"]["repeat_last"]
    calibration = Calibration.read(document)
    calibration.check_model(new_model(small_checkpoint, repeat_last=False))
    with pytest.raises(SettingsError, match="repeat_last"):
        calibration.check_model(new_model(small_checkpoint))
