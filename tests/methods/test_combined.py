"""Recipe paper+memory: WinCLIP's zero-shot score and a patch memory from one pass, beside float64."""

from __future__ import annotations

import io

import numpy as np
import pytest
from checkpoints import SMALL, build, register_small
from miniature import part, save
from PIL import Image
from service.running import Running

from tests import oracle
from tests.methods import oracle_memory
from winspect import WinCLIP
from winspect.calibration import Calibration
from winspect.errors import ArchitectureError, ReferencesError, SettingsError
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.methods.combined import PaperAndMemory
from winspect.methods.registry import get_method, method_of
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.service.http.inspecting import to_json
from winspect.service.http.models import Row
from winspect.service.settings import ModelSpec
from winspect.weights import TINY

SHAPES = {"square": (80, 80), "landscape": (170, 75), "portrait": (70, 90)}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
GOODS = [part(number, defective=False)[0] for number in range(14)]
PICTURE = part(20, defective=True)[0]


def png(rgb):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def load(small_checkpoint):
    register_small()

    def function(recipe="paper+memory", engine="torch", **settings):
        options = {"weights": small_checkpoint, "device": "cpu", "engine": engine}
        return WinCLIP(SMALL, recipe=recipe, settings=settings, **options)

    return function


@pytest.mark.parametrize("size_wh", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_against_float64(load, size_wh, weight):
    import open_clip

    *goods, picture = [part(seed, defective=seed == 3, size_wh=size_wh)[0] for seed in range(4)]
    winspect = load(weight=weight, sigma=0)
    winspect.reference(goods, "bolt")
    result = winspect.predict(picture, "bolt")

    clip = build(SMALL).double()
    prompts = PromptEnsemble().prompts("bolt")
    text = oracle.text_embeddings(clip, open_clip.get_tokenizer(SMALL), *prompts, "paper")
    (tile,), _ = oracle.cut(picture, "paper", 64, MEAN, STD)
    whole = oracle.encode_tile(clip, tile)
    score, zero_shot = oracle.zero_shot(whole, text, 0.07, (4, 4))

    def normed(rgb):
        (its,), _ = oracle.cut(rgb, "paper", 64, MEAN, STD)
        return clip.visual.ln_post(oracle.encode_tile(clip, its).patches).reshape(4, 4, -1).numpy()

    distances = oracle_memory.patch_scores(normed(picture), [*map(normed, goods)])
    far = oracle_memory.picture_score(distances)
    assert result.anomaly_score == pytest.approx((1 - weight) * score + weight * far / 2, abs=1e-5)
    assert result.parts == pytest.approx({"paper": score, "memory": far}, abs=1e-5)
    np.testing.assert_allclose(result.tile_maps[0], (1 - weight) * zero_shot + weight * distances / 2, atol=1e-5)


def test_one_pass_gives_what_two_recipes_give(load, monkeypatch):
    """And the picture is encoded once, also where both are asked for."""
    winspect, paper = load(rotations=3), load("paper")
    memory = load("memory", size=64, rotations=3)
    *goods, picture = [part(seed, defective=seed == 3, size_wh=SHAPES["square"])[0] for seed in range(4)]  # seen alike
    for model in (winspect, memory):
        model.reference(goods, "bolt")
    encoded = []
    encode = winspect.engine.encode
    monkeypatch.setattr(winspect.engine, "encode", lambda *given: encoded.append(given) or encode(*given))
    result = winspect.predict(picture, "bolt")
    assert len(encoded) == 1
    expected = paper.predict(picture, "bolt")
    assert result.parts["paper"] == pytest.approx(expected.anomaly_score, abs=1e-6)
    apart = memory.predict(picture, "bolt")
    assert result.parts["memory"] == pytest.approx(apart.anomaly_score, abs=1e-6)
    np.testing.assert_allclose(result.tile_maps, (expected.tile_maps + apart.tile_maps / 2) / 2, atol=1e-6)
    assert result.upsampling == apart.upsampling


def test_scores_alone_need_no_windows(load):
    winspect = load()
    winspect.reference(GOODS[:2], "bolt")
    (whole,), (alone,) = (winspect.predict_many([PICTURE], "bolt", maps=maps) for maps in (True, False))
    assert alone.anomaly_score == pytest.approx(whole.anomaly_score, abs=1e-6)
    assert (alone.tile_maps, whole.tile_maps is None) == (None, False)
    assert not winspect.method.needs(few_shot=True, maps=False).scales


def test_settings():
    method = get_method("paper+memory", {"weight": 0.3, "coreset": 0.5})
    assert method == PaperAndMemory(weight=0.3, coreset=0.5) == method_of(method.document())
    assert (method.memory.coreset, method.memory.rotations, method.memory.size) == (0.5, 0, 448)
    assert method.score_range == (0, 1)
    for settings, message in (
        ({"weight": 1.5}, "weight: got 1.5, need a number from 0 to 1"),
        ({"weight": True}, "weight: got True"),
        ({"coreset": 0}, "coreset: got 0"),
        ({"temperature": 0}, "temperature: got 0"),
        ({"size": 448}, r"recipe paper\+memory: .*size"),
    ):
        with pytest.raises(SettingsError, match=message):
            get_method("paper+memory", settings)


def test_it_needs_text_and_good_samples(load, tmp_path):
    with pytest.raises(ReferencesError, match=r"recipe paper\+memory compares with good samples"):
        load().predict(PICTURE, "bolt")
    import timm_models

    timm_models.save_folder(*timm_models.KINDS["plain"], tmp_path / "model")
    with pytest.raises(ArchitectureError, match="windows, which compare with text"):
        WinCLIP(f"local-dir:{tmp_path / 'model'}", recipe="paper+memory", device="cpu")


def test_calibrate_and_bundle(load, tmp_path):
    model = load(engine="openvino", rotations=2)
    model.reference(GOODS[:2], "bolt")
    assert len(model.good_levels("bolt")) == 2
    calibration = model.calibrate(GOODS[2:], "bolt", max_false_alarms=0.1)
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json").model_options({})["recipe"] == model.method
    export(model, ["bolt"], tmp_path / "bundle", calibrations={"bolt": calibration})
    bundle = load_bundle(tmp_path / "bundle")
    ours, theirs = bundle.predict(PICTURE, "bolt"), model.predict(PICTURE, "bolt")
    assert ours.anomaly_score == pytest.approx(theirs.anomaly_score, abs=1e-5)
    assert ours.parts == pytest.approx(theirs.parts, abs=1e-5)
    np.testing.assert_allclose(ours.tile_maps, theirs.tile_maps, atol=1e-5)


def test_command_line(cli, small_checkpoint, tmp_path):
    import json

    register_small()
    goods = [save(tmp_path / "good" / f"{number}.png", GOODS[number]) for number in range(3)]
    picture = save(tmp_path / "bad.png", PICTURE)
    given = ("predict", picture, "--model", SMALL, "--weights", small_checkpoint, "--device", "cpu", "--class", "bolt")
    done = cli(*given, "--recipe", "paper+memory", "--set", "weight=0.25", "--reference", *goods, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["results"]
    combined = 0.75 * row["parts"]["paper"] + 0.25 * row["parts"]["memory"] / 2
    assert row["anomaly_score"] == pytest.approx(combined, abs=1e-9)
    done = cli(*given, "--recipe", "memory", "--set", "size=64", "--reference", *goods, "--json")
    assert "parts" not in json.loads(done.out)["results"][0]


def test_service(tmp_path):
    """In a model process; good samples are added and removed."""
    options = {"model": TINY, "device": "cpu", "engine": "torch", "recipe": "paper+memory"}
    expected = WinCLIP(**options)
    expected.reference([png(good) for good in GOODS[:2]], "bolt")
    with Running(tmp_path, ModelSpec(options), hang_s=300.0, load_s=300.0) as service:
        samples = [(f"{number}.png", png(GOODS[number])) for number in range(2)]
        service.ask(service.backend.set_references("bolt", samples))
        answer = service.predict(png(PICTURE), "bolt")
        assert answer.shots == 2
        result = expected.predict(png(PICTURE), "bolt")
        assert answer.result.anomaly_score == pytest.approx(result.anomaly_score, abs=1e-6)
        assert answer.result.parts == pytest.approx(result.parts, abs=1e-6)
        assert Row.model_validate(to_json(answer, overlay=False, map_pixels=None)).parts == answer.result.parts
