"""Whole predictions against the slow oracle: image scores and maps within 1e-5 in fp32.

Both recipes, zero-shot and few-shot; square, landscape and portrait; three architectures, the default one among
them, with random weights read from a file. What costs is the oracle's own pass over a tile, so tiles recur.
"""

from __future__ import annotations

import itertools
from functools import cache
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
from checkpoints import SHALLOW, SMALL, register_small, save_checkpoint
from conftest import EXAMPLES

from winspect import PromptEnsemble, WinCLIP
from winspect.backbones.open_clip_models import load
from winspect.pictures.decoding import read_rgb

TOLERANCE = 1e-5
# Encoding a prompt over all 77 tokens in float64 is what costs the oracle most; two states and two templates reach
# every line. The 242 prompts of the default are held to their list in test_prompts.py.
PROMPTS = PromptEnsemble(
    normal_states=("{}", "flawless {}"),
    anomalous_states=("damaged {}", "{} with flaw"),
    templates=("a photo of the {}.", "a close-up photo of a {} for visual inspection."),
)
# Cut from one corner: the square is the first tile of the other two, and the oracle encodes a tile once.
# The landscape is cut as 1562 x 960 is: starts 0, 76, 76.
SHAPES = {"square": (96, 96), "landscape": (96, 172), "portrait": (136, 96)}


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
        self.clip = SimpleNamespace(visual=loaded.model.visual.double())
        self.preprocess = loaded.preprocess
        self.known: dict = {}

    def expect(self, rgb, recipe, references=(), **how):
        p = self.preprocess
        with torch.inference_mode():
            vectors = [
                [
                    oracle.vectors_of(self.clip, tile, self.known)
                    for tile in oracle.cut(good, recipe, p.size, p.mean, p.std)[0]
                ]
                for good in references
            ]
            text = [side.double() for side in self.text[recipe]]
            return oracle.predict(
                self.clip, text, rgb, recipe, p.size, p.mean, p.std, references=vectors, known=self.known, **how
            )

    def check(self, rgb, recipe, references=(), how=None, **options):
        options = {"precision": "fp32", **options}
        model = WinCLIP(self.name, weights=self.path, device="cpu", recipe=recipe, prompts=PROMPTS, **options)
        if references:
            model.reference(references, "metal_nut")
        result = model.predict(rgb, "metal_nut")
        score, anomaly_map = self.expect(rgb, recipe, references, **(how or {}))
        assert abs(result.anomaly_score - score) <= TOLERANCE
        assert result.anomaly_map.dtype == np.float32
        assert result.anomaly_map.shape == anomaly_map.shape == rgb.shape[:2]
        np.testing.assert_allclose(result.anomaly_map, anomaly_map, rtol=0, atol=TOLERANCE)
        # A comparison of maps that are all alike would prove nothing.
        assert np.ptp(anomaly_map) > 100 * TOLERANCE


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory):
    """The pair of an architecture, made once."""
    register_small()
    return cache(lambda name: Pair(name, save_checkpoint(name, tmp_path_factory.mktemp("weights"))))


# What a picture's shape changes comes before and behind the layers: two of a real architecture's twelve are enough.
SHAPED = [*itertools.product([SMALL, *SHALLOW], SHAPES), ("ViT-B-32", "square")]


@pytest.mark.parametrize("recipe", ["paper", "tiles"])
@pytest.mark.parametrize(("name", "shape"), SHAPED)
def test_zero_shot_is_the_oracles(pair_of, name, shape, recipe):
    pair_of(name).check(picture(shape), recipe)


@pytest.mark.parametrize("recipe", ["paper", "tiles"])
@pytest.mark.parametrize("name", [SMALL, "ViT-B-32"])
def test_few_shot_is_the_oracles(pair_of, name, recipe):
    # The larger tower judges a square alone: each reference tile costs the oracle many seconds.
    shape = "landscape" if name == SMALL else "square"
    pair_of(name).check(picture(shape), recipe, references=[picture(shape, 1), picture("square", 2)])


SETTINGS = {
    "repeat_last": ({"repeat_last": False}, {"repeats": False}),
    "tile_references": ({"tile_references": "same"}, {"same_tile": True}),
    "patch_norm": ({"patch_norm": True}, {"norm": True}),
    "all": (
        {"repeat_last": False, "tile_references": "same", "patch_norm": True},
        {"repeats": False, "same_tile": True, "norm": True},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_of_tiles_is_the_oracles(pair_of, name):
    settings, how = SETTINGS[name]
    references = [picture("landscape", 1), picture("landscape", 2)]
    pair_of(SMALL).check(picture("landscape"), "tiles", references, how=how, settings=settings)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_normed_patch_tokens_are_the_oracles_in_graphs(pair_of, engine):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    references = [picture("square", 1)]
    options = {"engine": engine, "settings": {"patch_norm": True}}
    pair_of(SMALL).check(picture("square"), "paper", references, how={"norm": True}, **options)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
@pytest.mark.parametrize("plan", ["serial", "tile-batch"])
@pytest.mark.parametrize("name", [SMALL, "ViT-B-32"])
def test_every_engine_and_plan_is_the_oracles(pair_of, name, engine, plan):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    if name == SMALL:
        pair_of(name).check(picture("landscape"), "tiles", [picture("landscape", 1)], engine=engine, plan=plan)
    else:
        pair_of(name).check(picture("square"), "paper", engine=engine, plan=plan)


def test_the_default_architecture_is_the_oracles(tmp_path):
    path = save_checkpoint("ViT-B-16-plus-240", tmp_path)
    pair = Pair("ViT-B-16-plus-240", path)
    for recipe in ("paper", "tiles"):
        pair.check(picture("square"), recipe)
    path.unlink()  # 800 MB
