"""What the recipes that compare patches say of input that they cannot use, or that is suspicious."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm_models
import torch
from checkpoints import SMALL
from miniature import part, product, save
from safetensors.torch import load_file, save_file

NO_VIEWS = ("--set", "rotations=0")
RECIPES = {
    "memory": ("--recipe", "memory", *NO_VIEWS),
    "subspace": ("--recipe", "subspace", *NO_VIEWS),
    "mutual": ("--recipe", "mutual"),
}
COMPARING = ("memory", "subspace")


@pytest.fixture
def parts(tmp_path):
    """Six pictures to score, the last defective, and four good samples."""
    for number in range(6):
        save(tmp_path / f"parts/{number}.png", part(number, defective=number == 5)[0])
    for number in range(4):
        save(tmp_path / f"good/{number}.png", part(20 + number, defective=False)[0])
    return tmp_path / "parts"


@pytest.fixture
def good(parts):
    return parts.parent / "good"


@pytest.fixture
def predict(cli, parts, good, small_checkpoint):
    """``winspect predict`` on the small model; with good samples where the recipe takes some."""

    def run(recipe, *arguments, size=64, model=(SMALL, small_checkpoint), references=None, pictures=parts):
        shown = ("--reference", references or good) if recipe in COMPARING else ()
        options = ("--model", model[0], *(("--weights", model[1]) if model[1] else ()), "--device", "cpu")
        options += ("--engine", "torch", *RECIPES[recipe], "--set", f"size={size}")
        return cli("predict", pictures, *options, *shown, *arguments, "--json")

    return run


def results_in(done):
    return json.loads(done.out)["results"]


# The backbone


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_network_without_patch_tokens(predict, recipe, tmp_path):
    """Whatever the recipe: none of these needs windows."""
    for model in ("RN50", "timm/resnet18"):
        refused = predict(recipe, model=(model, None))
        assert refused.code == 2 and refused.out == ""
        assert f"model '{model}' cannot be used: " in refused.err and "window" not in refused.err
        assert "ResNet" in refused.err or "resnet is no plain ViT" in refused.err


def test_the_name_alone_on_a_backbone_without_text(cli, parts, tmp_path):
    timm_models.save_folder("vit_tiny_patch16_224", {"depth": 2, "img_size": 64}, tmp_path / "timm")
    options = ("--model", f"local-dir:{tmp_path / 'timm'}", "--device", "cpu")
    refused = cli("predict", parts, *options, "--recipe", "paper")
    assert refused.code == 2 and "choose recipe memory, subspace or mutual" in refused.err
    refused = cli("predict", parts, *options, "--recipe", "memory")
    assert refused.code == 2 and "recipe memory compares with good samples, and 'object' has none" in refused.err


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_size_that_is_no_multiple_of_the_patch_is_rounded_and_reported_or_refused(predict, recipe):
    rounded, whole = predict(recipe, size=70), predict(recipe)
    assert rounded.code == whole.code == 0
    assert "size: 70 is no multiple of the patch of 16 pixels; pictures are seen at 64" in rounded.err
    assert results_in(rounded) == results_in(whole)
    refused = predict(recipe, "--set", "strict=true", size=70)
    assert refused.code == 2 and refused.out == ""
    assert "size: got 70, need a multiple of the patch of 16 pixels, such as 64" in refused.err
    assert "need a multiple of the patch of 16 pixels, such as 16" in predict(recipe, size=9).err


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_that_are_not_numbers(predict, recipe, small_checkpoint, tmp_path):
    tensors = load_file(small_checkpoint)
    tensors["visual.transformer.resblocks.0.mlp.c_fc.bias"][3] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    done = predict(recipe, model=(SMALL, tmp_path / "nan.safetensors"))
    if recipe == "mutual":
        assert done.code == 3
        rows = results_in(done)
        assert len(rows) == 6
        assert all("score in fp32 is not a number: " in row["error"]["message"] for row in rows)
    else:
        assert done.code == 2
        assert "good/0.png: its vectors in fp32 are not numbers: " in done.err and "check the weights" in done.err


# A batch


def test_few_pictures_are_no_batch(predict, parts):
    refused = predict("mutual", pictures=parts / "[012].png")
    assert refused.code == 2 and results_in(refused) == []
    assert "got 3, need at least 4" in refused.err


def test_a_picture_that_fails_leaves_the_batch(predict, parts):
    before = results_in(predict("mutual"))
    (parts / "broken.png").write_bytes(b"no picture")
    done = predict("mutual")
    assert done.code == 3
    *rows, broken = results_in(done)
    assert broken["error"]["message"].startswith(f"{parts / 'broken.png'}: ")
    assert [row["anomaly_score"] for row in rows] == pytest.approx([row["anomaly_score"] for row in before], abs=1e-6)


def test_where_too_few_are_left_each_says_why(predict, parts, tmp_path):
    for number in range(3):
        (parts / f"{number}.png").write_bytes(b"no picture")
    done = predict("mutual", "--out", tmp_path / "out")
    assert done.code == 3
    messages = [row["error"]["message"] for row in results_in(done)]
    assert len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == 6
    for number in range(3):
        assert messages[number].startswith(f"{parts / f'{number}.png'}: ") and "at least 4" not in messages[number]
        assert "got 3, need at least 4; 3 cannot be used: " in messages[3 + number]


# Good samples


@pytest.mark.parametrize("recipe", COMPARING)
def test_one_reference_and_references_of_different_sizes(predict, recipe, good):
    save(good / "wide.png", part(31, defective=False, size_wh=(200, 70))[0])
    save(good / "small.png", part(32, defective=False, size_wh=(30, 40))[0])
    for references in (good / "0.png", good):
        done = predict(recipe, references=references)
        assert done.code == 0, done.err
        scores = [row["anomaly_score"] for row in results_in(done)]
        assert np.argmax(scores) == 5


@pytest.mark.parametrize("recipe", COMPARING)
def test_a_constant_reference_is_reported_and_scores_are_numbers(predict, recipe, tmp_path):
    grey = save(tmp_path / "grey/grey.png", np.full((70, 90, 3), 128, np.uint8))
    done = predict(recipe, references=grey.parent)
    assert done.code == 0
    assert f"reference picture {grey}: a constant colour (RGB 128, 128, 128)" in done.err
    assert all(row["anomaly_score"] > 0 for row in results_in(done))


def test_without_variance_all_of_a_patch_counts(predict):
    done = predict("subspace", "--set", "variance=0")
    assert done.code == 0
    scores = [row["anomaly_score"] for row in results_in(done)]
    assert np.argmax(scores) == 5 and np.isfinite(scores).all()


def test_a_memory_that_does_not_fit_names_its_bytes_and_the_coreset_that_would(predict):
    """Four samples of 4 x 5 patches, 64 wide: 20,480 bytes."""
    refused = predict("memory", "--set", "limit_gb=0.00001")
    assert refused.code == 2 and refused.out == ""
    assert "20480 bytes" in refused.err and "keep a share of them with coreset=0.488" in refused.err
    kept = predict("memory", "--set", "limit_gb=0.00001", "--set", "coreset=0.488")
    assert kept.code == 0, kept.err


@pytest.mark.parametrize("recipe", COMPARING)
def test_a_reference_that_stands_apart_is_named(predict, cli, recipe, parts, tmp_path, small_checkpoint):
    """By every verb that shows good samples."""
    good = tmp_path / "products"
    for number in range(4):
        save(good / f"{number}.png", product(0, number))
    assert "stands apart" not in predict(recipe, references=good).err
    bad = save(good / "bad.png", product(1, 0))
    done = predict(recipe, references=good)
    assert done.code == 0
    named = [line for line in done.err.splitlines() if "stands apart from the other good samples" in line]
    assert len(named) == 1 and f"reference picture {bad}: " in named[0]
    options = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu", "--engine", "torch")
    options += (*RECIPES[recipe], "--set", "size=64", "--max-false-alarms", "0.5", "--reference", good)
    done = cli("calibrate", parts, "--out", tmp_path / "c.json", *options)
    assert done.code == 0 and f"reference picture {bad}: stands apart" in done.err
