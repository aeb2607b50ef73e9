"""memory, subspace and mutual as command lines: from files to JSON and maps, beside an oracle outside of winspect."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm_models
import torch
from checkpoints import SHALLOW, register_small, save_checkpoint
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from tests.methods import oracle_outside as oracle

TIMM = "vit_tiny_patch16_224"
CLIP = next(name for name, deep in SHALLOW.items() if deep == "ViT-B-32")
BLOCKS = {"timm": (8, 9), "clip": (1,)}
QUARTERS = (1, 2)
"""Of the two blocks of the small ViT-B-32."""
SHAPES = {
    "square": (0, 0, 200, 200),
    "landscape": (10, 30, 350, 190),
    "portrait": (30, 20, 170, 330),
    "odd": (5, 5, 242, 298),
}


@pytest.fixture(scope="module")
def pictures(textile, tmp_path_factory):
    """Real pictures of several shapes, as PNG, JPEG and grey: a folder of good ones, one of others."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("good", "test"):
        (folder / name).mkdir()
    for number, path in enumerate(textile[:8]):
        name, box = list(SHAPES.items())[number % len(SHAPES)]
        with Image.open(path) as file:
            image = file.convert("L" if number == 5 else "RGB").resize((360, 340)).crop(box)
        suffix = "jpg" if number % 3 == 1 else "png"
        image.save(folder / ("good" if number < 3 else "test") / f"{number}-{name}.{suffix}", quality=90)
    return folder


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory):
    """All of the real architecture, its classifier too, in timm's format."""
    import timm

    model = timm.create_model(TIMM)
    state = model.state_dict() | timm_models.build(TIMM, {}).state_dict()
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def clip_weights(tmp_path_factory):
    register_small()
    return save_checkpoint(CLIP, tmp_path_factory.mktemp("clip"))


def scored(cli, out, *arguments):
    """Scores and maps of the command line; its JSON and the files are the same."""
    done = cli("predict", *arguments, "--device", "cpu", "--json", "--out", out, "--raw-maps", "--no-overlays")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["results"]
    assert all(row["error"] is None for row in rows)
    assert rows == [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    maps = [np.load(out / row["map"])["anomaly_map"] for row in rows]
    return [row["path"] for row in rows], np.array([row["anomaly_score"] for row in rows]), maps


def test_memory(cli, pictures, timm_weights, tmp_path):
    model = ("--model", f"timm/{TIMM}", "--weights", timm_weights)
    settings = ("--recipe", "memory", "--set", "size=224", "--set", "rotations=0")
    paths, scores, maps = scored(
        cli, tmp_path / "out", pictures / "test", *model, *settings, "--reference", pictures / "good"
    )
    assert len(paths) == 5
    tower = oracle.Timm(TIMM, timm_weights)
    expected = oracle.memory(tower, sorted((pictures / "good").iterdir()), paths, size=224)
    np.testing.assert_allclose(scores, [score for score, _ in expected], atol=1e-5)
    for ours, (_, theirs) in zip(maps, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.ptp(scores) > 0.01


@pytest.mark.parametrize("kind", ["timm", "clip"])
def test_subspace(cli, pictures, kind, request, tmp_path):
    weights = request.getfixturevalue(f"{kind}_weights")
    name, tower = (
        (f"timm/{TIMM}", oracle.Timm(TIMM, weights)) if kind == "timm" else (CLIP, oracle.OpenClip(CLIP, weights))
    )
    model = ("--model", name, "--weights", weights)
    settings = ("--recipe", "subspace", "--set", "size=224", "--set", "rotations=0")
    paths, scores, maps = scored(
        cli, tmp_path / "out", pictures / "test", *model, *settings, "--reference", pictures / "good"
    )
    goods = sorted((pictures / "good").iterdir())
    expected = oracle.subspace(tower, goods, paths, size=224, blocks=BLOCKS[kind])
    np.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-4)
    for path, ours, (_, theirs) in zip(paths, maps, expected, strict=True):
        whole = torch.from_numpy(theirs)[None, None]
        enlarged = functional.interpolate(whole, oracle.hw_of(path), mode="bilinear")[0, 0]
        np.testing.assert_allclose(ours, enlarged, rtol=1e-4)


def test_mutual(cli, pictures, clip_weights, tmp_path):
    model = ("--model", CLIP, "--weights", clip_weights)
    given = (pictures / "good", pictures / "test")
    paths, scores, maps = scored(cli, tmp_path / "out", *given, *model, "--recipe", "mutual", "--set", "size=224")
    expected, grids = oracle.mutual(oracle.OpenClip(CLIP, clip_weights), paths, size=224, blocks=QUARTERS)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    for path, ours, grid in zip(paths, maps, grids, strict=True):
        whole = torch.from_numpy(grid)[None, None]
        enlarged = functional.interpolate(whole, oracle.hw_of(path), mode="bilinear", align_corners=True)
        np.testing.assert_allclose(ours, enlarged[0, 0], atol=1e-5)
