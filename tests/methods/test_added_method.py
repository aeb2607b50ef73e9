"""A method of a user's own goes wherever WinCLIP goes: predict, calibrate, bundle, service."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL, register_small
from miniature import part
from PIL import Image
from service.running import Running

from tests.methods import centre
from tests.methods.centre import Centre
from winspect import WinCLIP
from winspect.calibration import Calibration
from winspect.errors import BundleError, SettingsError
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.methods.registry import METHODS
from winspect.service.settings import ModelSpec
from winspect.weights import TINY

GOODS = [part(number, defective=False)[0] for number in range(14)]
PICTURE = part(20, defective=True)[0]


@pytest.fixture(autouse=True)
def added(monkeypatch):
    register_small()
    monkeypatch.setitem(METHODS, "centre", Centre)


@pytest.fixture
def model(small_checkpoint) -> WinCLIP:
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="openvino", recipe=Centre(power=0.5))
    model.reference(GOODS[:2], "bolt")
    return model


def test_it_is_written_in_under_40_lines():
    assert len(Path(centre.__file__).read_text().splitlines()) < 40


def test_predict_by_hand(model):
    def patches(picture):
        tiles = next(model._prepare([picture], model.cut)).tiles
        vectors = model._encode(tiles, model.method.needs(few_shot=True, maps=True)).vectors("last")[0].numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    mean = np.concatenate([patches(good) for good in GOODS[:2]]).mean(axis=0)
    expected = (np.linalg.norm(patches(PICTURE) - mean, axis=1) / 2) ** 0.5
    result = model.predict(PICTURE, "bolt")
    np.testing.assert_allclose(result.tile_maps.ravel(), expected, atol=1e-5)
    assert result.anomaly_score == pytest.approx(expected.max(), abs=1e-5)
    assert model.describe()["recipe"] == {"name": "centre", "power": 0.5}
    assert len(model.good_levels("bolt")) == 2


def test_by_name(model, small_checkpoint):
    options = {"weights": small_checkpoint, "device": "cpu", "engine": "openvino"}
    named = WinCLIP(SMALL, recipe="centre", settings={"power": 0.5}, **options)
    assert named.method == model.method
    with pytest.raises(SettingsError, match=r"recipe centre: .*colour"):
        WinCLIP(SMALL, recipe="centre", settings={"colour": 1}, **options)
    with pytest.raises(SettingsError, match="settings power beside a method"):
        WinCLIP(SMALL, recipe=Centre(), settings={"power": 2}, **options)


def test_calibrate(model, tmp_path, small_checkpoint):
    calibration = model.calibrate(GOODS[2:], "bolt", max_false_alarms=0.1)
    calibration.save(tmp_path / "calibration.json")
    read = Calibration.load(tmp_path / "calibration.json")
    read.check_model(model)
    assert read.model_options({})["recipe"] == Centre(power=0.5)
    other = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="openvino", recipe=Centre(power=2))
    other.reference(GOODS[:2], "bolt")
    with pytest.raises(SettingsError, match=r"recipe: calibrated with \{'power': 0.5\}, now \{'power': 2\}"):
        read.check_model(other)


def test_bundle(model, tmp_path):
    export(model, ["bolt", "nut"], tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.method == model.method
    for name in ("bolt", "nut"):
        ours, theirs = bundle.predict(PICTURE, name), model.predict(PICTURE, name)
        assert ours.anomaly_score == pytest.approx(theirs.anomaly_score, abs=1e-5)
        np.testing.assert_allclose(ours.tile_maps, theirs.tile_maps, atol=1e-5)


def test_a_program_that_does_not_have_it_says_so(model, tmp_path, monkeypatch):
    export(model, ["bolt"], tmp_path / "bundle")
    monkeypatch.delitem(METHODS, "centre")
    with pytest.raises(BundleError, match="got 'centre' with power, which is none of paper, tiles, log"):
        load_bundle(tmp_path / "bundle")


def png(rgb: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def test_service(tmp_path):
    """In a model process, which has the method by value."""
    options = {"model": TINY, "device": "cpu", "engine": "torch", "recipe": Centre(power=0.5)}
    expected = WinCLIP(**options)
    expected.reference(list(map(png, GOODS[:2])), "bolt")
    with Running(tmp_path, ModelSpec(options), hang_s=300.0, load_s=300.0) as service:
        service.ask(service.backend.set_references("bolt", [(f"{n}.png", png(GOODS[n])) for n in range(2)]))
        answer = service.predict(png(PICTURE), "bolt")
        assert answer.shots == 2
        score = expected.predict(png(PICTURE), "bolt").anomaly_score
        assert answer.result.anomaly_score == pytest.approx(score, abs=1e-6)
        assert service.ask(service.backend.info())["recipe"] == {"name": "centre", "power": 0.5}
    assert os.getpid() != service.model_pid
