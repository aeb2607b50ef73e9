"""The service with recipes that need good samples, and whose scores do not end at 1: a real model, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason='the service needs: pip install "winspect[serve]"')
import timm_models
from service.running import png

from winspect import WinCLIP
from winspect.errors import SettingsError
from winspect.service.backend import Backend
from winspect.service.http.app import create_app
from winspect.service.settings import ModelSpec, ServiceSettings

MEMORY = {"recipe": "memory", "settings": {"size": 64, "rotations": 2}}
SUBSPACE = {"recipe": "subspace", "settings": {"size": 64, "rotations": 2, "blocks": (2, 3)}}


class Served:
    """The application on a real backend, in this thread's own loop."""

    def __init__(self, folder, options):
        self.loop = asyncio.new_event_loop()
        self.run = self.loop.run_until_complete
        settings = ServiceSettings(folder, port=0)
        self.backend = Backend(settings, ModelSpec({"device": "cpu", "engine": "torch", "workers": 1, **options}))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(self.backend, settings)), base_url="http://service"
        )

    def __enter__(self):
        self.run(self.started())
        return self

    async def started(self):
        await self.backend.start()
        await self.backend.wait_ready()

    def __exit__(self, *error):
        self.run(self.backend.drain(5))
        self.run(self.client.aclose())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def ask(self, method, path, **options):
        return self.run(self.client.request(method, path, timeout=60, **options))

    def refer(self, *pictures, name="part", **fields):
        files = [("pictures", (file, content)) for file, content in pictures]
        return self.ask("POST", "/v1/references", files=files, data={"class": name, **fields})

    def predict(self, content, name="part", **fields):
        return self.ask("POST", "/v1/predict", files={"pictures": ("p.png", content)}, data={"class": name, **fields})

    def score(self, content, name="part", **fields):
        answer = self.predict(content, name, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"][0]


@pytest.fixture(scope="module")
def model_name(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("timm") / "plain"
    timm_models.save_folder("vit_tiny_patch16_224", {"depth": 3, "img_size": 64}, folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def memory(model_name, tmp_path_factory):
    with Served(tmp_path_factory.mktemp("memory"), {"model": model_name, **MEMORY}) as served:
        yield served


def picture(seed: int, size_wh=(96, 64)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (8, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC))


GOOD, OTHER, PART = (png(picture(seed)) for seed in (1, 2, 3))


def expected(model_name, recipe, part, *references) -> float:
    model = WinCLIP(model_name, device="cpu", engine="torch", **recipe)
    model.reference([Image.open(io.BytesIO(each)) for each in references], "part")
    return model.predict(Image.open(io.BytesIO(part)), "part").anomaly_score


def test_a_class_without_references_is_refused_with_the_reason(memory):
    for fields in ({}, {"zero_shot": "true"}):
        answer = memory.predict(PART, "bare", **fields)
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "ReferencesError")
        assert "recipe memory compares with good samples, and 'bare' has none" in answer.json()["error"]["message"]
    described = memory.ask("GET", "/v1/model").json()
    assert (described["zero_shot"], described["score_range"]) == (False, [0.0, 2.0])
    memory.refer(("a.png", GOOD), name="seen")
    answer = memory.predict(PART, "seen", zero_shot="true")
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "ReferencesError")


def test_references_are_added_and_a_single_one_removed(memory, model_name):
    memory.refer(("good.png", GOOD))
    assert memory.score(PART)["anomaly_score"] == pytest.approx(expected(model_name, MEMORY, PART, GOOD), abs=1e-5)
    assert memory.refer(("other.png", OTHER), add="true").json()["shots"] == 2
    both = memory.score(PART)
    assert both["shots"] == 2
    assert both["anomaly_score"] == pytest.approx(expected(model_name, MEMORY, PART, GOOD, OTHER), abs=1e-5)
    answer = memory.ask("DELETE", "/v1/references", params={"class": "part", "name": "good.png"})
    assert (answer.status_code, answer.json()["shots"]) == (200, 1)
    listed = memory.ask("GET", "/v1/references", params={"class": "part"}).json()["references"]
    assert [each["name"] for each in listed] == ["other.png"]
    left = memory.score(PART)["anomaly_score"]
    assert left == pytest.approx(expected(model_name, MEMORY, PART, OTHER), abs=1e-5)
    assert abs(left - both["anomaly_score"]) > 1e-4 or left >= both["anomaly_score"]
    assert memory.score(GOOD)["anomaly_score"] > 0.01, "it is in the memory no more"


def test_which_reference_is_removed_is_never_guessed(memory):
    memory.refer(("same.png", GOOD), ("same.png", OTHER), name="twice")

    def remove(**which):
        return memory.ask("DELETE", "/v1/references", params={"class": "twice", **which})

    hashes = [hashlib.sha256(each).hexdigest() for each in (GOOD, OTHER)]
    refused = remove(name="same.png")
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "ReferencesError")
    assert all(each in refused.json()["error"]["message"] for each in hashes)
    unknown = remove(name="gone.png")
    assert unknown.status_code == 404
    assert "'twice' has no reference 'gone.png'" in unknown.json()["error"]["message"]
    assert remove(name="gone.png", sha256=hashes[0]).status_code == 404
    assert remove(sha256=hashes[0]).json()["shots"] == 1
    assert remove(name="same.png").json()["shots"] == 0, "now it names one alone"
    assert memory.predict(PART, "twice").status_code == 422
    assert remove(name="same.png").status_code == 404


def test_scores_maps_and_thresholds_are_in_the_recipes_range(memory):
    memory.refer(("good.png", GOOD), ("other.png", OTHER), name="ranged")
    assert memory.score(PART, "ranged", threshold="1.5")["verdict"] == "normal"
    refused = memory.predict(PART, "ranged", threshold="2.5")
    assert refused.status_code == 422
    assert "scores of this recipe run from 0 to 2" in refused.json()["error"]["message"]
    row = memory.score(PART, "ranged", map="true", overlay="true")
    low, high = row["map"]["range"]
    values = np.frombuffer(base64.b64decode(row["map"]["data"]), "<f4").reshape(row["map"]["shape"])
    assert values.shape == (64, 96) and 0 <= low < high < 2
    with Image.open(io.BytesIO(base64.b64decode(row["overlay_png"]))) as overlay:
        assert overlay.size == (96, 64)
    body = {
        "inputs": [{"name": "pictures", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PART).decode()]}],
        "parameters": {"class": "ranged"},
        "outputs": [{"name": "anomaly_score"}, {"name": "anomaly_map"}],
    }
    score, heat = memory.ask("POST", "/v2/models/winspect/infer", json=body).json()["outputs"]
    assert score["data"] == [pytest.approx(row["anomaly_score"], rel=1e-5)]
    np.testing.assert_allclose(heat["data"], values.ravel(), atol=1e-5)


def test_scores_without_an_upper_end(model_name, tmp_path):
    with Served(tmp_path, {"model": model_name, **SUBSPACE}) as subspace:
        assert subspace.ask("GET", "/v1/model").json()["score_range"] == [0.0, None]
        subspace.refer(("good.png", GOOD), ("other.png", OTHER))
        row = subspace.score(PART, map="true", overlay="true", threshold="3.5")
        assert row["anomaly_score"] > 3.5 and row["verdict"] == "anomalous"
        assert row["anomaly_score"] == pytest.approx(expected(model_name, SUBSPACE, PART, GOOD, OTHER), rel=1e-4)
        assert row["map"]["range"][1] > 1
        refused = subspace.predict(PART, threshold="-1")
        assert "scores of this recipe are 0 or more" in refused.json()["error"]["message"]
        # Calibrated on what it has seen least: colours follow the calibration, beyond 1.
        good = [("pictures", (f"{seed}.png", png(picture(seed)))) for seed in range(10, 20)]
        subspace.ask("POST", "/v1/calibrations/pictures", files=good, data={"class": "part"})
        started = subspace.ask("POST", "/v1/calibrations", data={"class": "part", "max_false_alarms": "0.1"})
        assert started.status_code == 202

        async def done():
            while (state := await subspace.backend.calibration("part")).state == "running":
                await asyncio.sleep(0.02)
            return state

        state = subspace.run(asyncio.wait_for(done(), 60))
        assert (state.state, state.pictures) == ("ready", 10) and state.threshold > 1
        row = subspace.score(PART, map="true")
        assert row["threshold"] == state.threshold and 0 < row["p_value"] <= 1
        low, high = row["map"]["range"]
        assert 1 < low < high and row["boxes"] is not None


def test_a_recipe_for_batches_is_refused_at_the_start(model_name, tmp_path):
    served = Served(tmp_path, {"model": model_name, "recipe": "mutual", "settings": {"size": 64}})
    try:
        with pytest.raises(SettingsError, match=r"a service has no batch: choose references with `winspect references"):
            served.run(served.started())
    finally:
        served.__exit__()
