"""Evaluation as a library: draws, figures, what is null and why, alarms, and going on after an interruption."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import Changed, make_folder, make_mvtec, part, save
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from winspect import WinCLIP
from winspect.datasets import official, open_dataset
from winspect.errors import OutputError, ReferencesError, SettingsError, SourceError, UsageError
from winspect.evaluation.alarms import map_alarm, mean_cosine
from winspect.evaluation.pixels import reduce_mask, square_map
from winspect.evaluation.published import different_conditions, get_table, matching_tables, published_tables
from winspect.evaluation.results import IMAGE_METRICS, METRICS, PIXEL_METRICS, open_run
from winspect.evaluation.run import evaluate
from winspect.evaluation.shots import draw
from winspect.methods.result import Result, map_spread

CONTRACT = {
    "schema": int,
    "dataset": str,
    "recipe": str,
    "model": str,
    "weights_sha256": str,
    "engine": str,
    "precision": str,
    "device": str,
    "shots": int,
    "seed": int,
    "machine": dict,
    "categories": dict,
    "mean": dict,
    "scores": str,
}
FILES = ("results.json", "scores.csv")
PINNED = ["003.png", "000.png", "004.png", "001.png", "002.png"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two categories in the MVTec AD layout."""
    return make_mvtec(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def zero_shot(parts, small_model, tmp_path_factory):
    """The folder of a whole zero-shot run."""
    out = tmp_path_factory.mktemp("zero")
    evaluate(small_model, open_dataset("mvtec", parts), out)
    return out


def rows_in(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def interrupted_after(model, count):
    """The model; Ctrl-C arrives when ``count`` pictures have been scored."""
    left = itertools.count(1)

    def interrupted(results):
        for result in results:
            yield result
            if next(left) == count:
                raise KeyboardInterrupt

    return Changed(model, interrupted)


# The contract, and figures held to others


def test_results_are_the_contracts(zero_shot):
    results = json.loads((zero_shot / "results.json").read_text())
    for key, kind in CONTRACT.items():
        assert type(results[key]) is kind, key
    assert (results["schema"], results["dataset"], results["recipe"], results["model"]) == (1, "mvtec", "paper", SMALL)
    assert (results["shots"], results["seed"], len(results["weights_sha256"])) == (0, 0, 64)
    assert list(results["categories"]) == ["bolt", "metal_nut"]
    for category in results["categories"].values():
        assert (category["n_normal"], category["n_anomalous"]) == (4, 4)
        assert all(type(category[metric]) is float and 0 <= category[metric] <= 1 for metric in METRICS)
        assert (category["reasons"], category["alarm"], category["failed"]) == ({}, None, [])
    for metric in METRICS:
        figures = [category[metric] for category in results["categories"].values()]
        assert results["mean"][metric] == pytest.approx(sum(figures) / 2, abs=1e-15)
    assert "seconds" not in json.dumps(results)
    assert results["pixel_side"] == 64
    assert set(json.loads((zero_shot / "timing.json").read_text())["categories"]) == {"bolt-seed0", "metal_nut-seed0"}


def test_scores_and_figures_equal_a_plain_loop(zero_shot, parts, small_model):
    rows = [row for row in rows_in(zero_shot) if row["category"] == "bolt"]
    assert list(rows[0]) == ["path", "category", "label", "defect_type", "score", "seed", "map", "warning"]
    results = [small_model.predict(parts / row["path"], "bolt") for row in rows]
    assert [float(row["score"]) for row in rows] == pytest.approx([r.anomaly_score for r in results], abs=1e-6)
    labels = [row["defect_type"] == "scratch" for row in rows]
    assert labels == [row["label"] == "anomalous" for row in rows]
    scores = [float(row["score"]) for row in rows]
    figures = json.loads((zero_shot / "results.json").read_text())["categories"]["bolt"]
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert figures["image_aupr"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)

    heats, masks = [], []
    for row, result in zip(rows, results, strict=True):
        heats.append(square_map(result, 64))
        mask = Image.new("L", (90, 70))
        if row["label"] == "anomalous":
            name = row["path"].rpartition("/")[2].removesuffix(".png")
            mask = Image.open(parts / f"bolt/ground_truth/scratch/{name}_mask.png")
        masks.append(np.asarray(mask.resize((64, 64), Image.Resampling.NEAREST)) > 0)
    truth, heat = np.stack(masks).ravel(), np.stack(heats).ravel()
    assert figures["pixel_auroc"] == pytest.approx(roc_auc_score(truth, heat), abs=1e-5)
    assert figures["pixel_aupr"] == pytest.approx(average_precision_score(truth, heat), abs=1e-5)


def test_figures_by_hand(tmp_path, small_model):
    """Two good and two defective pictures with scores and maps that are given."""
    root = make_mvtec(tmp_path / "parts", categories=("bolt",), train=0, good=2, defective=2)
    given = iter([0.1, 0.6, 0.4, 0.9])  # good, good, defective, defective: 3 of 4 pairs in order

    def made_up(results):
        for result in results:
            tile_map = np.full((1, 4, 4), 0.2, np.float32)
            if Path(result.path).parent.name == "scratch":
                tile_map[0, 1:3, 1:3] = 0.8
            else:
                tile_map[0, 0, 0] = 0.3
            yield Result(result.path, result.category_name, next(given), tile_map, ((0, 0, 90, 70),), (90, 70))

    for path in (root / "bolt/ground_truth/scratch").iterdir():
        mask = np.zeros((70, 90), np.uint8)
        mask[30:40, 40:50] = 200  # inside the hot spot
        save(path, mask)
    model = Changed(small_model, made_up)
    figures = evaluate(model, open_dataset("mvtec", root), tmp_path / "out")["categories"]["bolt"]
    assert figures["image_auroc"] == 0.75
    assert figures["image_f1_max"] == pytest.approx(0.8)  # 2 of 2 found, one false alarm
    assert figures["image_aupr"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["pixel_auroc"] > 0.98  # good pixels around the mask share its hot spot
    assert figures["pixel_aupro"] > 0.9


def test_square_maps_and_nearest_pixels():
    plain = Result("a", "b", 0.5, np.arange(4, dtype=np.float32).reshape(1, 2, 2), ((0, 0, 8, 4),), (8, 4))
    assert square_map(plain, 2).tolist() == [[0, 1], [2, 3]]
    two = np.stack([np.zeros((2, 2)), np.ones((2, 2))]).astype(np.float32)
    tiled = Result("a", "b", 0.5, two, ((0, 0, 4, 4), (4, 0, 8, 4)), (8, 4))
    assert square_map(tiled, 4).tolist() == [[0, 0, 1, 1]] * 4
    mask = np.random.default_rng(0).random((90, 120)) < 0.5
    pillow = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((64, 64), Image.Resampling.NEAREST))
    assert reduce_mask(mask, 64, keep_regions=False)[0].tolist() == pillow.astype(bool).tolist()
    with pytest.raises(ValueError, match="has no map"):
        square_map(Result("a", "b", error=OSError()), 4)


# References


def test_draws_are_reproducible_nested_and_never_judged(parts, tmp_path):
    data = open_dataset("mvtec", parts)
    four = draw(data, "bolt", shots=4, seed=0)
    assert four == draw(open_dataset("mvtec", parts), "bolt", shots=4, seed=0)
    assert draw(data, "bolt", shots=2, seed=0).references == four.references[:2]
    assert {item.path.parent.name for item in four.references} == {"good"}
    assert {item.split for item in four.references} == {"train"}
    assert len({draw(data, "bolt", shots=2, seed=seed).references for seed in range(8)}) > 3
    names = {name: [i.path.name for i in draw(data, name, shots=3).references] for name in data.categories}
    assert names["bolt"] != names["metal_nut"]

    plain = open_dataset("folder", make_folder(tmp_path / "plain"))
    drawn = draw(plain, "bolt", shots=2, seed=1)
    judged = {item.path for item in drawn.tested}
    assert len(judged) == 9 - 2
    assert not judged & {item.path for item in drawn.references}
    assert len(draw(plain, "bolt").tested) == 9


def test_a_draw_is_pinned(parts):
    """Other releases and machines must draw these very pictures."""
    drawn = draw(open_dataset("mvtec", parts), "bolt", shots=5, seed=0).references
    assert [item.path.name for item in drawn] == PINNED


def test_a_draw_is_the_same_in_another_layout(parts, tmp_path):
    lines = ["image,label,category,split"]
    for name in ("000", "001", "002", "003", "004"):
        save(tmp_path / f"elsewhere/{name}.png", part(int(name), defective=False)[0])
        lines.append(f"elsewhere/{name}.png,normal,bolt,train")
    (tmp_path / "manifest.csv").write_text("\n".join([*lines, "x.png,1,bolt,test"]))
    other = draw(open_dataset("manifest", tmp_path / "manifest.csv"), "bolt", shots=3, seed=5)
    here = draw(open_dataset("mvtec", parts), "bolt", shots=3, seed=5)
    assert [item.path.name for item in other.references] == [item.path.name for item in here.references]


def test_too_few_normals_are_said_before_anything_is_judged(parts, tmp_path, small_model):
    with pytest.raises(ReferencesError, match=r"asked for 6 reference pictures of 'bolt', found 5"):
        evaluate(small_model, open_dataset("mvtec", parts), tmp_path / "out", shots=6)
    assert not (tmp_path / "out").exists()


def test_few_shot_with_seeds(parts, small_model, tmp_path):
    data = open_dataset("mvtec", parts, categories=["bolt"])
    results = evaluate(small_model, data, tmp_path / "all", shots=1, seeds=(0, 3))
    one = evaluate(small_model, data, tmp_path / "one", shots=1, seeds=(3,))
    bolt = results["categories"]["bolt"]
    assert (results["seed"], results["seeds"]) == (0, [0, 3])
    assert bolt["references"]["3"] == one["categories"]["bolt"]["references"]["3"]
    assert bolt["references"]["3"] != bolt["references"]["0"]
    assert "std" not in one and "std" not in one["categories"]["bolt"]
    for metric in METRICS:
        first, second = (bolt["by_seed"][seed][metric] for seed in "03")
        assert second == one["categories"]["bolt"][metric]
        assert bolt[metric] == pytest.approx((first + second) / 2)
        assert bolt["std"][metric] == pytest.approx(abs(first - second) / math.sqrt(2))
        assert results["std"][metric] == pytest.approx(bolt["std"][metric])
    assert {row["seed"] for row in rows_in(tmp_path / "all")} == {"0", "3"}
    # The model is as it was: nothing of the references stays.
    assert small_model.references_of("bolt") == ()


def test_few_shot_scores_use_the_references(parts, small_model, tmp_path):
    evaluate(small_model, open_dataset("mvtec", parts, categories=["bolt"]), tmp_path, shots=2)
    run = open_run(tmp_path)
    small_model.reference([parts / path for path in run.results["categories"]["bolt"]["references"]["0"]], "bolt")
    try:
        expected = [small_model.predict(parts / score.path, "bolt").anomaly_score for score in run.scores]
    finally:
        small_model.forget("bolt")
    assert [score.score for score in run.scores] == pytest.approx(expected, abs=1e-6)


# Null, and why


def test_one_class_only_is_null_with_a_reason(tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts", defective=0)
    make_mvtec(root, categories=("screw",))
    results = evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")
    bolt = results["categories"]["bolt"]
    assert (bolt["n_normal"], bolt["n_anomalous"]) == (4, 0)
    assert all(bolt[metric] is None for metric in METRICS)
    assert "only normal pictures" in bolt["reasons"]["image_auroc"]
    assert results["categories"]["screw"]["image_auroc"] is not None
    # A mean over fewer categories would pass for one over all.
    assert all(figure is None for figure in results["mean"].values())
    assert results["mean_reasons"]["image_auroc"] == "undefined for bolt, metal_nut"
    assert open_run(tmp_path / "out").results == results


def test_no_masks_is_null_with_a_reason(tmp_path, small_model):
    results = evaluate(small_model, open_dataset("folder", make_folder(tmp_path / "parts")), tmp_path / "out")
    bolt = results["categories"]["bolt"]
    assert all(bolt[metric] is None and "no masks" in bolt["reasons"][metric] for metric in PIXEL_METRICS)
    assert all(type(bolt[metric]) is float for metric in IMAGE_METRICS)


@pytest.mark.parametrize("how", ["missing", "another size", "damaged"])
def test_a_bad_mask_takes_the_pixel_figures_of_its_category_alone(how, tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts")
    bad = root / "bolt/ground_truth/scratch/002_mask.png"
    if how == "missing":
        bad.unlink()
        named = "test/scratch/002.png"
    else:
        named = "002_mask.png"
        save(bad, np.ones((70, 91), np.uint8)) if how == "another size" else bad.write_bytes(bad.read_bytes()[:60])
    categories = evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")["categories"]
    assert all(categories["bolt"][metric] is None for metric in PIXEL_METRICS)
    assert all(named in categories["bolt"]["reasons"][metric] for metric in PIXEL_METRICS)
    assert type(categories["bolt"]["image_auroc"]) is float
    assert type(categories["metal_nut"]["pixel_aupro"]) is float


def test_unreadable_pictures_are_named_and_the_rest_is_kept(tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts")
    (root / "bolt/test/good/001.png").write_bytes(b"")
    results = evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")
    bolt = results["categories"]["bolt"]
    assert (bolt["n_normal"], bolt["n_anomalous"], bolt["n_failed"]) == (3, 4, 1)
    assert bolt["failed"][0]["path"] == "bolt/test/good/001.png"
    assert "001.png" in bolt["failed"][0]["message"]
    assert all(type(bolt[metric]) is float for metric in METRICS)
    scores = {row["path"]: row["score"] for row in rows_in(tmp_path / "out")}
    assert scores["bolt/test/good/001.png"] == ""
    assert len(scores) == 16


def test_an_unreadable_reference_takes_its_category_alone(tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts")
    data = open_dataset("mvtec", root)
    chosen = draw(data, "bolt", shots=1).references[0].path
    chosen.write_bytes(b"no picture")
    results = evaluate(small_model, data, tmp_path / "out", shots=1)
    bolt = results["categories"]["bolt"]
    assert all(bolt[metric] is None and chosen.name in bolt["reasons"][metric] for metric in METRICS)
    assert bolt["failed"][0]["path"] == f"bolt/train/good/{chosen.name}"
    assert type(results["categories"]["metal_nut"]["image_auroc"]) is float


# Alarms


@pytest.mark.parametrize("shots", [0, 1])
def test_equal_windows_raise_the_alarm(shots, parts, tmp_path, small_model, equal_windows, caplog):
    results = evaluate(small_model, open_dataset("mvtec", parts), tmp_path, shots=shots)
    for category in results["categories"].values():
        assert "all window embeddings of scale 2 are equal" in category["alarm"]
        assert all(category[metric] is None for metric in PIXEL_METRICS)
        assert category["reasons"]["pixel_aupro"].startswith("alarm: ")
        # Zero-shot image scores do not look at windows; few-shot ones hold the map's maximum.
        assert all((category[metric] is None) == bool(shots) for metric in IMAGE_METRICS)
    assert results["mean"]["pixel_auroc"] is None
    assert "ALARM: bolt" in caplog.text


def test_constant_maps_raise_the_alarm(parts, tmp_path, small_model):
    def constant(results):
        for result in results:
            result.tile_maps[:] = result.anomaly_score
            yield result

    categories = evaluate(Changed(small_model, constant), open_dataset("mvtec", parts), tmp_path)["categories"]
    assert "8 of 8 anomaly maps are constant" in categories["bolt"]["alarm"]
    assert categories["bolt"]["pixel_auroc"] is None
    assert type(categories["bolt"]["image_auroc"]) is float


def test_spreads_and_cosines_by_hand():
    import torch

    assert map_spread(np.full((2, 3, 3), 0.3)) == 0
    assert map_spread(np.array([[[0.5, 0.5]], [[0.5, 0.75]]])) == pytest.approx(math.log(3))
    tiny = np.array([[[1e-9, 2e-9]]])
    assert map_spread(tiny) == pytest.approx(math.log(2))  # scores near 0 are no alarm
    assert map_spread(np.zeros((1, 2, 2))) == 0
    for unit in (1, 600):  # no probabilities, however small they are
        scores = unit * np.array([[[0.5, 1.0]]])
        assert map_spread(scores, (0, math.inf)) == pytest.approx(math.log(2))
    assert map_alarm([0, 0, 1]) is not None
    assert map_alarm([0, 1]) is None
    assert map_alarm([]) is None
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert mean_cosine(vectors) == pytest.approx((0 + 2 * 0.5**0.5) / 3)


# Going on after an interruption


@pytest.mark.parametrize("count", [3, 8, 11])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(count, parts, zero_shot, small_model, tmp_path):
    data = open_dataset("mvtec", parts)
    with pytest.raises(KeyboardInterrupt):
        evaluate(interrupted_after(small_model, count), data, tmp_path)
    assert not (tmp_path / "results.json").exists()
    done = [path.name for path in (tmp_path / "categories").iterdir()]
    assert done == ([] if count <= 8 else ["bolt-seed0.json"])
    scored = []

    def noted(results):
        for result in results:
            scored.append(result.category_name)
            yield result

    evaluate(Changed(small_model, noted), data, tmp_path)
    assert list(dict.fromkeys(scored)) == (["bolt", "metal_nut"] if count <= 8 else ["metal_nut"])
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (zero_shot / name).read_bytes()


def test_other_settings_are_refused_and_named(parts, zero_shot, small_model, small_checkpoint, tmp_path):
    data = open_dataset("mvtec", parts)
    before = (zero_shot / "results.json").read_bytes()
    with pytest.raises(OutputError, match=r"other settings \(.*shots: 0 there, 1 asked for"):
        evaluate(small_model, data, zero_shot, shots=1)
    other = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", recipe="tiles")
    with pytest.raises(OutputError, match=r'recipe: "paper" there, "tiles" asked for; recipe_settings'):
        evaluate(other, data, zero_shot)
    with pytest.raises(OutputError, match=r'categories: \["bolt", "metal_nut"\] there, \["bolt"\] asked for; data: '):
        evaluate(small_model, open_dataset("mvtec", parts, categories=["bolt"]), zero_shot)
    assert (zero_shot / "results.json").read_bytes() == before
    out = tmp_path / "out"
    evaluate(small_model, data, out, raw_maps=True)
    assert evaluate(small_model, open_dataset("mvtec", parts, categories=["bolt"]), out, fresh=True)["mean"]
    assert [path.name for path in (out / "categories").iterdir()] == ["bolt-seed0.json"]


def test_two_evaluations_never_share_a_folder(parts, small_model, tmp_path):
    data = open_dataset("mvtec", parts, categories=["bolt"])
    refused = []

    def meanwhile(results):
        for fresh in (False, True):
            with pytest.raises(OutputError, match="another winspect run is writing there"):
                evaluate(small_model, data, tmp_path, fresh=fresh, raw_maps=True)
            refused.append(results["mean"])

    assert evaluate(small_model, data, tmp_path, report=meanwhile)["mean"] == refused[0] == refused[1]
    assert json.loads((tmp_path / "evaluation.json").read_text())["raw_maps"] is False


def test_references_are_told_by_their_contents(parts, small_model, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(parts, root)
    evaluate(small_model, open_dataset("mvtec", root, categories=["bolt"]), tmp_path / "out", shots=1)
    for picture in sorted((root / "bolt" / "train" / "good").iterdir()):
        pixels = np.asarray(Image.open(picture))
        Image.fromarray(255 - pixels).save(picture)
    with pytest.raises(OutputError, match="other settings"):
        evaluate(small_model, open_dataset("mvtec", root, categories=["bolt"]), tmp_path / "out", shots=1)


def test_zero_shot_draws_nothing_so_its_seed_does_not_count(parts, zero_shot, small_model):
    before = (zero_shot / "results.json").read_bytes()
    assert evaluate(small_model, open_dataset("mvtec", parts), zero_shot, seeds=(7,))["seed"] == 0
    assert (zero_shot / "results.json").read_bytes() == before


def test_changed_data_are_refused(tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts", categories=("bolt",))
    evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")
    (root / "bolt/test/good/000.png").rename(root / "bolt/test/good/010.png")
    with pytest.raises(OutputError, match="data: "):
        evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")


def test_a_moved_data_set_goes_on(tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts", categories=("bolt",))
    first = evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")
    moved = root.rename(tmp_path / "moved")
    assert evaluate(small_model, open_dataset("mvtec", moved), tmp_path / "out") == first


# What is written beside, and wrong use


def test_maps_on_request(parts, small_model, tmp_path):
    data = open_dataset("mvtec", parts, categories=["bolt"])
    evaluate(small_model, data, tmp_path, overlays=True, raw_maps=True)
    for row in rows_in(tmp_path):
        with Image.open(tmp_path / row["map"]) as overlay:
            assert overlay.size == (90, 70)
        heat = np.load((tmp_path / row["map"]).with_suffix(".npz"))["anomaly_map"]
        assert (heat.shape, heat.dtype) == ((70, 90), np.float32)
    assert len({row["map"] for row in rows_in(tmp_path)}) == 8
    curves = json.loads((tmp_path / "categories/bolt-seed0.json").read_text())["curves"]
    assert all(len(curves[name]) == 2 for name in ("image_roc", "pixel_roc", "pro"))


def test_any_category_name_makes_a_file(tmp_path, small_model):
    rgb = part(1, defective=False)[0]
    save(tmp_path / "a.png", rgb), save(tmp_path / "b.png", 255 - rgb)
    rows = [{"image": f"{name}.png", "label": name == "b", "category": "a/b: Ä"} for name in "ab"]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps({**row, "label": int(row["label"])}) for row in rows))
    results = evaluate(small_model, open_dataset("manifest", tmp_path / "manifest.jsonl"), tmp_path / "out")
    assert results["categories"]["a/b: Ä"]["n_anomalous"] == 1
    assert [score.path for score in open_run(tmp_path / "out").scores] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": -1}, "shots: got -1"),
        ({"seeds": ()}, "seeds: got"),
        ({"shots": 1, "seeds": (1, 1)}, "different whole numbers"),
        ({"seeds": (0, 1)}, "zero-shot, which draws nothing"),
        ({"class_name": "bolt"}, "for 2 categories; need one category"),
    ],
)
def test_wrong_use(options, message, parts, small_model, tmp_path):
    with pytest.raises(SettingsError, match=message):
        evaluate(small_model, open_dataset("mvtec", parts), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2, need 1"),
        ({"shots": "0"}, "shots is '0', need int"),
        ({"mean": {"image_auroc": 1.5}}, "image_auroc is 1.5, need a fraction"),
        ({"categories": {"bolt": {"pixel_auroc": float("nan")}}}, "pixel_auroc is nan"),
        ({"categories": {"bolt": 3}}, "got 3, need figures"),
    ],
)
def test_results_that_are_not_ours_are_refused(change, message, zero_shot, tmp_path):
    results = json.loads((zero_shot / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({**results, **change}))
    with pytest.raises(UsageError, match=message):
        open_run(tmp_path)


def test_files_that_are_no_results_are_refused(zero_shot, tmp_path):
    with pytest.raises(UsageError, match="no such results"):
        open_run(tmp_path)
    (tmp_path / "results.json").write_text("[1")
    with pytest.raises(UsageError, match="cannot read results"):
        open_run(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(UsageError, match="schema 'list'"):
        open_run(tmp_path)
    (tmp_path / "results.json").write_bytes((zero_shot / "results.json").read_bytes())
    with pytest.raises(UsageError, match="cannot read the scores"):
        _ = open_run(tmp_path).scores


# Published figures


def test_published_means_are_those_of_their_categories():
    checked = 0
    for table in published_tables().values():
        for entry in table.entries:
            for metric in set.intersection(*(set(figures) for figures in entry.categories.values() or [{}])):
                if metric in entry.mean:
                    figures = [category[metric] for category in entry.categories.values()]
                    assert sum(figures) / len(figures) == pytest.approx(entry.mean[metric], abs=1e-3)
                    checked += 1
    assert checked >= 8
    assert get_table("tiles-ascend").entry("visa", 0).mean["image_auroc"] == 0.7876
    assert get_table("winclip").entry("mvtec", 4).mean["pixel_aupro"] == 0.89
    assert all(table.sources for table in published_tables().values())
    with pytest.raises(SettingsError, match=r"'nothing', need one of winclip .*tiles-ascend"):
        get_table("nothing")


def test_only_equal_runs_stand_beside_published_figures(zero_shot):
    results = json.loads((zero_shot / "results.json").read_text())
    assert matching_tables(results) == []
    same = {**results, "model": "ViT-B-16-plus-240", "dataset": "mvtec"}
    assert matching_tables(same) == []
    same["weights_sha256"] = "8fb26589" + 56 * "0"
    assert [table.name for table, _ in matching_tables(same)] == ["winclip"]
    few = {**same, "shots": 2}
    assert matching_tables(few) == []  # Its table has means over all categories alone.
    few["categories"] = {name: {} for name in official.OFFICIAL["mvtec"]}
    assert [table.name for table, _ in matching_tables(few)] == ["winclip"]
    for change in ({"shots": 3}, {"dataset": "folder"}, {"recipe": "tiles"}, {"model": "winspect-tiny"}):
        assert matching_tables({**same, **change}) == []
    warmer = {**same, "recipe_settings": {**same["recipe_settings"], "temperature": 0.05}}
    assert different_conditions(get_table("winclip"), warmer) == ["settings of the recipe paper"]
    assert matching_tables({**same, "class": "thing"}) == []
    assert matching_tables({**same, "prompts": {}}) == []


def test_unknown_categories_say_which_exist(parts):
    with pytest.raises(SourceError, match="'screw', but it has: bolt, metal_nut"):
        open_dataset("mvtec", parts, categories=["screw"])
