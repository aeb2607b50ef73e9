"""Two runs side by side, and a run beside published figures: what is compared, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from miniature import Changed, make_mvtec
from scipy import stats

from winspect.datasets import open_dataset
from winspect.errors import SettingsError, UsageError
from winspect.evaluation.compare import Pair, compare_published, compare_runs, side_by_side
from winspect.evaluation.compare_scores import best_threshold, spearman
from winspect.evaluation.published import get_table
from winspect.evaluation.results import METRICS, open_run
from winspect.evaluation.run import evaluate
from winspect.metrics import f1_max


@pytest.fixture(scope="module")
def baseline(small_model, tmp_path_factory):
    """The folder of a zero-shot run of two categories."""
    folder = tmp_path_factory.mktemp("baseline")
    data = open_dataset("mvtec", make_mvtec(folder / "parts", good=6, defective=6))
    evaluate(small_model, data, folder / "run")
    return folder / "run"


@pytest.fixture
def other(baseline, tmp_path):
    """A copy of the baseline, to be changed."""
    for name in ("results.json", "scores.csv"):
        shutil.copy(baseline / name, tmp_path / name)
    return tmp_path


def change(folder, function):
    """Rewrite the results of a run."""
    results = json.loads((folder / "results.json").read_text())
    function(results)
    (folder / "results.json").write_text(json.dumps(results))


def change_scores(folder, function):
    """Rewrite the rows of a run's scores."""
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    function(rows)
    with (folder / "scores.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def compared(baseline, other, **options):
    return compare_runs(open_run(baseline), open_run(other), **options)


# Figures


def test_a_run_equals_itself(baseline, other):
    comparison = compared(baseline, other, tolerance=0)
    assert comparison.within
    assert comparison.worst[2].difference == 0
    assert (comparison.pictures.count, comparison.pictures.flips) == (24, 0)
    assert (comparison.pictures.largest_difference, comparison.pictures.spearman) == (0, 1)
    for category in comparison.categories.values():
        assert category.pictures.count == 12
        assert all(category.figures[metric].difference == 0 for metric in METRICS)


def test_shuffled_scores_are_not_within(baseline, small_model, tmp_path_factory):
    """The run itself with the scores of its pictures shuffled: its figures follow."""

    def shuffled(stream):
        results = list(stream)
        scores = np.random.default_rng(1).permutation([result.anomaly_score for result in results])
        for result, score in zip(results, scores, strict=True):
            yield replace(result, anomaly_score=float(score))

    out = tmp_path_factory.mktemp("shuffled")
    evaluate(Changed(small_model, shuffled), open_dataset("mvtec", baseline.parent / "parts"), out)
    comparison = compared(baseline, out)
    assert not comparison.within
    assert abs(comparison.worst[2].difference) > 0.01
    assert comparison.pictures.spearman < 0.9
    assert comparison.pictures.largest_difference > 0
    assert any("image_auroc differs by" in reason for own in comparison.categories.values() for reason in own.reasons)


def test_the_tolerance_counts_both_ways_and_to_the_digit(baseline, other):
    def nudge(by):
        def function(results):
            results["categories"]["bolt"]["pixel_auroc"] = 0.5 + by

        return function

    change(other, nudge(0))
    base = other / "base"
    base.mkdir()
    for name in ("results.json", "scores.csv"):
        shutil.copy(other / name, base / name)
    for by, tolerance, within in [(0.01, 0.01, True), (-0.01, 0.01, True), (0.0101, 0.01, False), (-0.02, 0.01, False)]:
        change(other, nudge(by))
        comparison = compared(base, other, tolerance=tolerance)
        assert comparison.within is within, by
        assert comparison.worst[:2] == ("bolt", "pixel_auroc")
        assert comparison.worst[2].difference == pytest.approx(by)
        assert comparison.to_json()["categories"]["bolt"]["within"] is within
        assert comparison.to_json()["categories"]["metal_nut"]["within"]


def test_undefined_in_one_run_only_is_not_within(baseline, other):
    change(other, lambda results: results["categories"]["bolt"].update(pixel_auroc=None))
    comparison = compared(baseline, other)
    assert comparison.categories["bolt"].reasons == ("pixel_auroc is undefined in one run only",)
    change(other, lambda results: results["categories"]["bolt"].update(alarm="broken"))
    assert compared(other, other).categories["bolt"].reasons == ("baseline: alarm: broken", "other: alarm: broken")


def test_pairs():
    assert Pair(None, None).within(0)
    assert not Pair(None, 0.5).within(1)
    assert Pair(0.85, 0.84).within(0.01)
    assert Pair(0.5, None).difference is None


# Pictures


def test_score_differences_and_flips_by_hand(baseline, other):
    """The lowest defective picture of a perfect ranking falls below every good one: its verdict alone flips."""
    base = other / "base"
    base.mkdir()
    shutil.copy(baseline / "results.json", base)
    shutil.copy(baseline / "scores.csv", base)

    def perfect(rows):
        for number, row in enumerate(rows):
            row["score"] = 0.7 + number / 1000 if row["label"] == "anomalous" else 0.3 + number / 1000

    def fallen(rows):
        perfect(rows)
        row = next(row for row in rows if row["label"] == "anomalous")
        row["score"] = 0.1

    change_scores(base, perfect)
    change_scores(other, fallen)
    comparison = compared(base, other)
    bolt = comparison.categories["bolt"].pictures
    assert bolt.largest_difference == pytest.approx(0.7 + 6 / 1000 - 0.1)
    assert bolt.where.endswith("scratch/000.png")
    assert (bolt.flips, comparison.categories["metal_nut"].pictures.flips, comparison.pictures.flips) == (1, 0, 1)
    assert 0 < bolt.spearman < 1
    # A scale of its own is no flip: each run has its own threshold.
    change_scores(other, lambda rows: [row.update(score=float(row["score"]) / 9) for row in rows])
    assert compared(other, other).pictures.flips == 0


def test_a_picture_that_failed_in_one_run_is_not_within(baseline, other):
    change_scores(other, lambda rows: rows[3].update(score=""))
    comparison = compared(baseline, other)
    assert "1 pictures were judged in one run only" in comparison.categories["bolt"].reasons
    assert comparison.pictures.failed_in_one == 1
    assert comparison.pictures.count == 23
    change_scores(other, lambda rows: [row.update(score="") for row in rows])
    assert compared(other, other).pictures.largest_difference is None


def test_spearman_equals_scipy():
    random = np.random.default_rng(0)
    for size in (2, 5, 200):
        one, two = random.random(size), random.integers(0, 4, size).astype(float)
        two[0] += 0.5
        assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == -1
    assert spearman(np.ones(3), np.arange(3.0)) is None


def test_best_threshold_gives_the_largest_f1():
    random = np.random.default_rng(1)
    for _ in range(20):
        scores, labels = random.integers(0, 9, 30) / 9, random.random(30) < 0.4
        called = scores >= best_threshold(scores, labels)
        f1 = 2 * (called & labels).sum() / (called.sum() + labels.sum())
        assert f1 == pytest.approx(f1_max(scores, labels), abs=1e-12)
        for lower, upper in pairwise([*np.unique(scores)]):
            assert upper > lower
            assert 2 * ((scores >= upper) & labels).sum() / ((scores >= upper).sum() + labels.sum()) <= f1 + 1e-12
    assert best_threshold(np.array([0.2, 0.5]), np.array([True, True])) is None


# What is refused


@pytest.mark.parametrize(
    ("key", "value"),
    [("dataset", "visa"), ("recipe", "tiles"), ("shots", 4), ("seeds", [1]), ("class", "bolt"), ("prompts", {})],
)
def test_other_runs_are_refused_by_name(key, value, baseline, other):
    change(other, lambda results: results.update({key: value}))
    with pytest.raises(UsageError, match=rf"cannot be compared: different {key} \("):
        compared(baseline, other)


def test_all_that_differs_is_named(baseline, other):
    change(other, lambda results: results.update(recipe="tiles", shots=2))
    with pytest.raises(UsageError, match=r'recipe \("paper" and "tiles"\); different shots \(0 and 2\)'):
        compared(baseline, other)


def test_other_data_are_refused(baseline, other):
    change_scores(other, lambda rows: rows[0].update(path="bolt/test/good/new.png"))
    with pytest.raises(UsageError, match="different data"):
        compared(baseline, other)
    shutil.copy(baseline / "scores.csv", other)
    change_scores(other, lambda rows: rows[0].update(label="anomalous"))
    with pytest.raises(UsageError, match=r"different data \(2 pictures or labels"):
        compared(baseline, other)
    shutil.copy(baseline / "scores.csv", other)
    change(other, lambda results: results["categories"]["bolt"].update(references={"0": ["x.png"]}))
    with pytest.raises(UsageError, match=r"different references \(of bolt\)"):
        compared(baseline, other)
    change(other, lambda results: results["categories"].pop("bolt"))
    with pytest.raises(UsageError, match=r"different categories \(bolt, metal_nut and metal_nut\)"):
        compared(baseline, other)


def test_nothing_to_compare_is_refused(other):
    def empty(results):
        for category in results["categories"].values():
            category.update(dict.fromkeys(METRICS))

    change(other, empty)
    with pytest.raises(UsageError, match="nothing to compare"):
        compared(other, other)


@pytest.mark.parametrize("tolerance", [-0.1, 2, float("nan")])
def test_a_tolerance_out_of_range(tolerance, baseline):
    with pytest.raises(SettingsError, match="tolerance: got"):
        compared(baseline, baseline, tolerance=tolerance)


# Published figures


@pytest.fixture
def as_published(other):
    """A run that claims VisA's published zero-shot figures, to four digits."""
    table = get_table("winclip")
    entry = table.entry("visa", 0)

    def function(results):
        category = {**results["categories"]["bolt"], "alarm": None}
        results.update(model=table.model, dataset="visa", weights_sha256="8fb26589" + 56 * "0")
        results["categories"] = {name: {**category, **figures} for name, figures in entry.categories.items()}
        results["mean"] = dict(entry.mean)

    change(other, function)
    return other


def test_against_published_figures(as_published):
    comparison = compare_published(open_run(as_published), get_table("winclip"), tolerance=0)
    assert comparison.within
    assert set(comparison.categories["candle"].figures) == {"image_auroc", "pixel_auroc"}
    assert comparison.mean["pixel_aupro"].difference == 0
    assert comparison.pictures is None
    change(as_published, lambda results: results["categories"]["candle"].update(image_auroc=0.9))
    comparison = compare_published(open_run(as_published), get_table("winclip"))
    assert not comparison.within
    assert comparison.worst[:2] == ("candle", "image_auroc")
    change(as_published, lambda results: results["categories"]["pcb1"].update(alarm="broken"))
    comparison = compare_published(open_run(as_published), get_table("winclip"))
    assert comparison.categories["pcb1"].reasons == ("alarm: broken",)
    assert json.dumps(comparison.to_json())


def test_where_only_means_are_published_they_are_compared(as_published):
    def four_shot(results):
        results.update(shots=4, mean=dict(get_table("winclip").entry("visa", 4).mean))

    change(as_published, four_shot)
    comparison = compare_published(open_run(as_published), get_table("winclip"), tolerance=0)
    assert (comparison.within, list(comparison.categories)) == (True, ["mean"])


def test_some_categories_have_no_published_mean(as_published):
    change(as_published, lambda results: results["categories"].pop("candle"))
    comparison = compare_published(open_run(as_published), get_table("winclip"))
    assert (comparison.mean, len(comparison.categories)) == ({}, 11)


def test_a_run_of_another_kind_is_refused(baseline):
    with pytest.raises(UsageError, match=r"different model \(winspect-test-vit, published ViT-B-16-plus-240\)"):
        compare_published(open_run(baseline), get_table("winclip"))
    with pytest.raises(UsageError, match=r"different recipe .*; different data set and shots \(mvtec 0-shot"):
        compare_published(open_run(baseline), get_table("tiles-ascend"))


def test_scores_that_are_not_the_results_own_are_not_within(baseline, tmp_path):
    """Only the scores file is shuffled: the figures beside it are no longer its own."""
    folder = tmp_path / "copy"
    shutil.copytree(open_run(baseline).path.parent, folder)
    lines = (folder / "scores.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    scores = sorted((row["score"] for row in rows), reverse=True)
    for row, score in zip(sorted(rows, key=lambda row: row["label"]), scores, strict=True):
        row["score"] = score
    with (folder / "scores.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    comparison = compare_runs(open_run(baseline), open_run(folder))
    assert not comparison.within
    reasons = [reason for category in comparison.categories.values() for reason in category.reasons]
    assert any("the two files differ in origin" in reason for reason in reasons)


# Side by side


def test_zero_shot_beside_few_shot(baseline, small_model, tmp_path):
    """Several seeds count with their mean; by hand from the two score files."""
    few = tmp_path / "few"
    evaluate(small_model, open_dataset("mvtec", baseline.parent / "parts"), few, shots=1, seeds=(0, 1))
    comparison = side_by_side(open_run(baseline), open_run(few))
    assert comparison.within is None and comparison.tolerance is None
    assert any("shots (0 and 1)" in remark for remark in comparison.remarks)
    zero, several = ({}, {})
    for folder, found in ((baseline, zero), (few, several)):
        with (folder / "scores.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault((row["category"], row["path"]), []).append(float(row["score"]))
    apart = {key: abs(scores[0] - sum(several[key]) / 2) for key, scores in zero.items()}
    assert all(len(scores) == 2 for scores in several.values())
    for name, category in comparison.categories.items():
        assert category.pictures.count == 12
        largest = max(value for (of, _), value in apart.items() if of == name)
        assert category.pictures.largest_difference == pytest.approx(largest, abs=1e-12)
        ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (baseline, few))
        pair = category.figures["image_auroc"]
        assert (pair.baseline, pair.other) == tuple(run["categories"][name]["image_auroc"] for run in (ours, theirs))
    assert json.dumps(comparison.to_json())


def test_only_common_pictures_of_one_label_are_compared(baseline, other):
    def fewer(rows):
        del rows[0]  # not in the other run
        rows[0].update(label="anomalous" if rows[0]["label"] == "normal" else "normal")

    change_scores(other, fewer)
    change(other, lambda results: results["categories"].pop("metal_nut"))
    comparison = side_by_side(open_run(baseline), open_run(other))
    assert list(comparison.categories) == ["bolt"]
    assert comparison.categories["bolt"].pictures.count == 10
    assert comparison.mean == {}


def test_runs_of_other_pictures_are_not_put_side_by_side(baseline, other):
    change_scores(other, lambda rows: [row.update(path=f"new/{number}") for number, row in enumerate(rows)])
    with pytest.raises(UsageError, match=r"no pictures in common \(mvtec and mvtec\)"):
        side_by_side(open_run(baseline), open_run(other))
    shutil.copy(baseline / "scores.csv", other)
    change(other, lambda results: results.update(dataset="visa"))
    with pytest.raises(UsageError, match=r"no pictures in common \(mvtec and visa\)"):
        side_by_side(open_run(baseline), open_run(other))
