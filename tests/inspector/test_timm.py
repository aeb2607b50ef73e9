"""timm's vision transformers from picture to score, in every engine and in an edge bundle."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timm_models
from PIL import Image

from winspect import WinCLIP
from winspect.bundle.manifest import Manifest
from winspect.errors import PictureError
from winspect.inspector.export import export

RECIPES = {
    "memory": {"size": 70, "rotations": 2},
    "subspace": {"size": 98, "rotations": 2, "blocks": (2, 3)},
}


@pytest.fixture(scope="module")
def model_name(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("timm") / "registers"
    timm_models.save_folder(*timm_models.KINDS["registers"], folder)
    return f"local-dir:{folder}"


def pictures(count: int, height: int = 90, width: int = 90, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_every_engine_scores_as_torch_does(model_name, recipe, engine):
    pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    options = {"recipe": recipe, "settings": RECIPES[recipe], "device": "cpu", "precision": "fp32"}
    models = [WinCLIP(model_name, engine=name, **options) for name in ("torch", engine)]
    for model in models:
        model.reference(pictures(2, seed=1), "part")
    shots = [*pictures(2), *pictures(1, 90, 130), *pictures(1, 120, 90)]
    for expected, found in zip(*(model.predict_many(shots, "part") for model in models), strict=True):
        assert found.anomaly_score == pytest.approx(expected.anomaly_score, rel=1e-4)
        scale = np.abs(expected.anomaly_map).max()
        assert np.abs(found.anomaly_map - expected.anomaly_map).max() < 1e-4 * scale


@pytest.mark.parametrize(("recipe", "engine"), [("memory", "openvino"), ("subspace", "openvino"), ("subspace", "onnx")])
def test_a_bundle_scores_as_the_model_does(model_name, recipe, engine, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    model = WinCLIP(model_name, engine=engine, device="cpu", precision="fp32", recipe=recipe, settings=RECIPES[recipe])
    model.reference(pictures(2, seed=1), "part")
    assert export(model, ["part"], tmp_path / "bundle") < 1e-4
    graphs = {path.name for path in (tmp_path / "bundle" / "graphs").iterdir()}
    assert graphs == ({"tower.xml", "tower.bin"} if engine == "openvino" else {"tower.onnx"})
    bundle = WinCLIP.load(tmp_path / "bundle")
    for shot in pictures(2):
        expected, found = model.predict(shot, "part"), bundle.predict(shot, "part")
        assert found.anomaly_score == pytest.approx(expected.anomaly_score, rel=1e-4)
        assert np.abs(found.anomaly_map - expected.anomaly_map).max() < 1e-4 * np.abs(expected.anomaly_map).max()


def test_a_bundle_runs_without_torch_and_refuses_another_shape(model_name, tmp_path):
    model = WinCLIP(model_name, engine="openvino", device="cpu", recipe="memory", settings=RECIPES["memory"])
    model.reference(pictures(2, seed=1), "part")
    export(model, ["part"], tmp_path / "bundle")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['timm'] = None\n"
        "import numpy as np; from winspect import WinCLIP\n"
        f"model = WinCLIP.load({str(tmp_path / 'bundle')!r})\n"
        "print(model.predict(np.zeros((90, 90, 3), np.uint8), 'part').anomaly_score)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(PictureError, match=r"becomes 98x70 pixels in front of the model, .* is for 70x70"):
        WinCLIP.load(tmp_path / "bundle").predict(pictures(1, 90, 130)[0], "part")


def test_a_bundle_for_long_pictures(model_name, tmp_path):
    options = {"engine": "openvino", "device": "cpu", "recipe": "memory", "settings": RECIPES["memory"]}
    model = WinCLIP(model_name, **options)
    long = pictures(2, 90, 130, seed=1)
    model.reference(long, "part")
    export(model, ["part"], tmp_path / "bundle", picture_wh=(130, 90))
    again = WinCLIP(model_name, **options)  # it knows nothing of the shape
    again.reference(long, "other")
    export(again, ["other"], tmp_path / "bundle", add=True)
    bundle = WinCLIP.load(tmp_path / "bundle")
    for category, expected in (("part", model), ("other", again)):
        (shot,) = pictures(1, 90, 130)
        score = bundle.predict(shot, category).anomaly_score
        assert score == pytest.approx(expected.predict(shot, category).anomaly_score, abs=1e-4)
    with pytest.raises(PictureError, match=r"becomes 70x70 pixels in front of the model, .* is for 98x70"):
        bundle.predict(pictures(1)[0], "part")


def test_a_picture_of_another_shape_fails_alone(model_name, tmp_path):
    model = WinCLIP(model_name, engine="openvino", device="cpu", recipe="memory", settings=RECIPES["memory"])
    model.reference(pictures(2, seed=1), "part")
    export(model, ["part"], tmp_path / "bundle")
    first, long, last = WinCLIP.load(tmp_path / "bundle").predict_many(
        [*pictures(1), *pictures(1, 90, 130), *pictures(1, seed=2)], "part"
    )
    assert "graph of this bundle is for 70x70" in str(long.error)
    assert first.error is None and last.error is None


def test_a_bundles_weights_take_three_bytes_each(model_name, tmp_path):
    model = WinCLIP(model_name, engine="openvino", device="cpu", recipe="subspace", settings=RECIPES["subspace"])
    model.reference(pictures(2, seed=1), "part")
    export(model, ["part"], tmp_path / "bundle")
    weights = 4 * sum(weight.numel() for weight in model.engine.tower.parameters())
    assert 0.7 * weights < (tmp_path / "bundle" / "graphs" / "tower.bin").stat().st_size < 0.8 * weights
    bundle, needs = WinCLIP.load(tmp_path / "bundle"), model.method.needs(few_shot=True, maps=True)
    tiles = np.stack([model.preprocess(picture) for picture in pictures(2)])
    found, expected = bundle.engine.encode(tiles, needs), model._encode(tiles, needs)
    for layer in needs.layers:
        exact = expected.patches[layer].numpy()
        apart = np.abs(found.patches[layer] - exact).max() / np.abs(exact).max()
        assert 0 < apart < 2e-5  # a float16 alone: 1e-3


def test_export_takes_the_shape_of_the_good_samples(cli, model_name, tmp_path):
    for number, picture in enumerate(pictures(3, 90, 130)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    good = [tmp_path / "0.png", tmp_path / "1.png"]
    model = ("--model", model_name, "--recipe", "memory", "--set", "size=70", "--set", "rotations=0")
    ran = cli("export", "--class", "part", "--reference", *good, "--out", tmp_path / "bundle", *model)
    assert ran.code == 0, ran.err
    assert Manifest.read(tmp_path / "bundle").traced_hw == (70, 98)
    ran = cli("predict", tmp_path / "2.png", "--bundle", tmp_path / "bundle", "--class", "part", "--json")
    assert ran.code == 0, ran.err
