"""Whole predictions against the slow oracle: image scores and maps within 1e-5 in fp32.

Both recipes, zero-shot and few-shot; square, landscape and portrait; three architectures, the default one among
them, with random weights read from a file.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import oracle
import pytest
import torch
from checkpoints import SMALL, register_small, save_checkpoint
from conftest import EXAMPLES

from winspect import PromptEnsemble, WinCLIP
from winspect.images import read_rgb
from winspect.weights import load

TOLERANCE = 1e-5
# Encoding a prompt over all 77 tokens in float64 is what costs the oracle most; two states and two templates reach
# every line. The 242 prompts of the default are held to their list in test_prompts.py.
PROMPTS = PromptEnsemble(
    normal_states=("{}", "flawless {}"),
    anomalous_states=("damaged {}", "{} with flaw"),
    templates=("a photo of the {}.", "a close-up photo of a {} for visual inspection."),
)
SHAPES = {"square": (96, 96), "landscape": (80, 144), "portrait": (130, 90)}


@cache
def picture(shape: str, number: int = 0) -> np.ndarray:
    """A part of a real picture of fabric, uint8 (height, width, 3)."""
    height, width = SHAPES[shape]
    return read_rgb(EXAMPLES / "textile" / f"local_000{number + 1}.jpg")[20 : 20 + height, 30 : 30 + width]


class Pair:
    """The predictor under test and the oracle, on the same weights file."""

    def __init__(self, name: str, path) -> None:
        self.name, self.path = name, path
        loaded = load(name, path)
        # The text embeddings are compared in test_text.py; here they are open_clip's own, in float32.
        self.text = {
            recipe: oracle.text_embeddings(loaded.model, loaded.tokenizer, *PROMPTS.prompts("metal_nut"), recipe)
            for recipe in ("paper", "tiles")
        }
        self.clip = loaded.model.double()
        self.preprocess = loaded.preprocess
        self.known: dict = {}

    def expect(self, rgb, recipe, references=()):
        p = self.preprocess
        vectors = [
            oracle.encode_tile(self.clip, tile)
            for good in references
            for tile in oracle.cut(good, recipe, p.size, p.mean, p.std)[0]
        ]
        with torch.inference_mode():
            text = [side.double() for side in self.text[recipe]]
            return oracle.predict(
                self.clip, text, rgb, recipe, p.size, p.mean, p.std, references=vectors, known=self.known
            )

    def check(self, rgb, recipe, references=(), **options):
        options = {"precision": "fp32", **options}
        model = WinCLIP(self.name, weights=self.path, device="cpu", recipe=recipe, prompts=PROMPTS, **options)
        if references:
            model.reference(references, "metal_nut")
        result = model.predict(rgb, "metal_nut")
        score, anomaly_map = self.expect(rgb, recipe, references)
        assert abs(result.anomaly_score - score) <= TOLERANCE
        assert result.anomaly_map.dtype == np.float32
        assert result.anomaly_map.shape == anomaly_map.shape == rgb.shape[:2]
        np.testing.assert_allclose(result.anomaly_map, anomaly_map, rtol=0, atol=TOLERANCE)
        # A comparison of maps that are all alike would prove nothing.
        assert np.ptp(anomaly_map) > 100 * TOLERANCE


@pytest.fixture(scope="module", params=[SMALL, "ViT-B-32"])
def pair(request, tmp_path_factory):
    register_small()
    return Pair(request.param, save_checkpoint(request.param, tmp_path_factory.mktemp("weights")))


@pytest.mark.parametrize("recipe", ["paper", "tiles"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_zero_shot_is_the_oracles(pair, shape, recipe):
    pair.check(picture(shape), recipe)


@pytest.mark.parametrize("recipe", ["paper", "tiles"])
def test_few_shot_is_the_oracles(pair, recipe):
    # The larger tower judges a square alone: each reference tile costs the oracle many seconds.
    shape = "landscape" if pair.name == SMALL else "square"
    pair.check(picture(shape), recipe, references=[picture(shape, 1), picture("square", 2)])


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
@pytest.mark.parametrize("plan", ["serial", "tile-batch"])
def test_every_engine_and_plan_is_the_oracles(pair, engine, plan):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    if pair.name == SMALL:
        pair.check(picture("landscape"), "tiles", [picture("landscape", 1)], engine=engine, plan=plan)
    else:
        pair.check(picture("square"), "paper", engine=engine, plan=plan)


@pytest.fixture(scope="module")
def default_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    yield Pair("ViT-B-16-plus-240", save_checkpoint("ViT-B-16-plus-240", folder))
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("recipe", ["paper", "tiles"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_default_architecture_is_the_oracles(default_pair, shape, recipe):
    default_pair.check(picture(shape), recipe)
