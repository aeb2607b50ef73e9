"""The report of an evaluation: one file that says all, and stands alone."""

from __future__ import annotations

import io
import json
import re
import shutil
from base64 import b64decode
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageDraw

from winspect.datasets import Dataset, open_dataset
from winspect.errors import OutputError, SettingsError
from winspect.evaluation.published import matching_tables
from winspect.evaluation.report import PICTURES_PER_LIST, read_parts, write_evaluation_report
from winspect.evaluation.results import METRICS
from winspect.evaluation.run import evaluate
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.methods.winclip.recipes import get_recipe

BIGGEST_CATEGORY_BYTES = 10_000_000 / 15


class Page(HTMLParser):
    """What a browser would see: words, tags, and everything a page could load."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.sources = "", [], []
        self.feed(text)
        self.words = re.sub(r"\s+", " ", self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory, textile):
    """Two categories in the MVTec AD layout: one with masks and a broken picture, one with good pictures only."""
    root = tmp_path_factory.mktemp("set")
    for inside in ("a/train/good", "a/test/good", "a/test/hole", "a/ground_truth/hole", "b/test/good"):
        (root / inside).mkdir(parents=True)
    for path in textile[6:9]:
        shutil.copy(path, root / "a/train/good")
    for path in textile[9:12]:
        shutil.copy(path, root / "a/test/good")
        shutil.copy(path, root / "b/test/good")
    for number, path in enumerate(textile[:3]):
        with Image.open(path) as picture:
            mask = Image.new("L", picture.size)
            ImageDraw.Draw(mask).ellipse((30 + 20 * number, 40, 90 + 20 * number, 80), fill=255)
            picture.convert("RGB").save(root / f"a/test/hole/{number}.png")
            mask.save(root / f"a/ground_truth/hole/{number}_mask.png")
    (root / "a/test/hole/broken.png").write_bytes(b"no picture")
    shutil.copy(root / "a/ground_truth/hole/0_mask.png", root / "a/ground_truth/hole/broken_mask.png")
    return root


@pytest.fixture(scope="module")
def dataset(folder):
    return open_dataset("mvtec", folder)


def report(out, results, dataset, model):
    text = write_evaluation_report(out, results, read_parts(out, results), dataset, model).read_text()
    return text, Page(text)


@pytest.fixture(scope="module")
def evaluated(small_model, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    results = evaluate(small_model, dataset, out)
    return out, results, *report(out, results, dataset, small_model)


def pictures_of(page):
    uris = [source for source in page.sources if source.startswith("data:")]
    return [np.asarray(Image.open(io.BytesIO(b64decode(uri.partition(",")[2])))).astype(int) for uri in uris]


def test_the_page_stands_alone(evaluated):
    out, _, text, page = evaluated
    assert sorted(path.name for path in out.glob("*.html")) == ["report.html"]
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(source.startswith(("data:image/jpeg;base64,", "#category-")) for source in page.sources)
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_says_what_was_run(evaluated):
    _, results, _, page = evaluated
    for value in (results["model"], results["weights_sha256"], results["recipe"], results["precision"]):
        assert value in page.words
    assert {"zero-shot", "mvtec"} <= set(re.split(r"[ ,:]+", page.words))
    assert f"cores {results['machine']['cores']}" in page.words


def test_figures_are_in_percent_and_what_is_undefined_has_a_reason(evaluated):
    _, results, _, page = evaluated
    for metric in METRICS:
        assert f"{100 * results['categories']['a'][metric]:.2f}" in page.words
    assert page.words.count("undefined1") == len(METRICS)  # category b, all for one reason
    assert "only normal pictures were judged" in page.words
    assert "undefined for b" in page.words
    assert "None" not in page.words


def test_charts_and_pictures(evaluated):
    _, results, text, page = evaluated
    figures = results["categories"]["a"]
    for title, metric in (
        ("Image ROC", "image_auroc"),
        ("Pixel ROC", "pixel_auroc"),
        ("PRO to FPR 0.3", "pixel_aupro"),
    ):
        assert f"{title}, area {100 * figures[metric]:.2f} %" in page.words
    assert text.count("<svg") == 4 + 1  # a has every chart, b only scores
    # a: three defective and three normal pictures; b: three normal ones; each with its map.
    assert text.count("<figure>") == 3 + 3 + 3
    assert page.tags.count("img") == 2 * (3 + 3 + 3)
    assert text.count("with the outline of the defect") == 3
    assert "Worst misses" in page.words
    assert "hole · rank" in page.words


def test_failed_pictures_are_named_without_this_machines_folders(evaluated, folder):
    _, _, text, page = evaluated
    assert "1 failed" in page.words
    assert "a/test/hole/broken.png: not a picture" in page.words
    assert str(folder) not in text


def test_the_page_is_small_and_the_same_every_time(evaluated, dataset, small_model):
    out, results, text, _ = evaluated
    assert len(text) < 2 * BIGGEST_CATEGORY_BYTES
    again, _ = report(out, results, dataset, small_model)
    undated = [re.sub(r"reported [\d:UTC -]+", "", one) for one in (text, again)]
    assert undated[0] == undated[1]


def test_few_shot_over_seeds_shows_the_first_seed_and_says_so(small_model, dataset, tmp_path):
    only = Dataset(dataset.name, dataset.root, ("a",), dataset.select(category="a"))
    results = evaluate(small_model, only, tmp_path, shots=1, seeds=(3, 4))
    _, page = report(tmp_path, results, only, small_model)
    deviation = results["categories"]["a"]["std"]["pixel_auroc"]
    assert f"± {100 * deviation:.2f}" in page.words
    assert "of seed 3 alone" in page.words
    assert "means over the seeds 3, 4" in page.words
    assert results["categories"]["a"]["references"]["3"][0] in page.words
    assert "1 failed" in page.words  # one picture, whatever the number of seeds


def test_raw_maps_on_disk_are_used_and_need_no_model(small_model, dataset, evaluated, tmp_path):
    results = evaluate(small_model, dataset, tmp_path, raw_maps=True)
    _, page = report(tmp_path, results, dataset, None)
    assert page.tags.count("img") == 2 * (3 + 3 + 3)
    # The same maps as judging again gives, up to rounding: the same pictures on the page.
    for own, judged in zip(pictures_of(page), pictures_of(evaluated[3]), strict=True):
        assert np.abs(own - judged).mean() < 0.5
    shutil.rmtree(tmp_path / "maps")
    _, page = report(tmp_path, results, dataset, None)
    assert page.tags.count("img") == 3 + 3 + 3


def test_another_model_is_refused(evaluated, dataset, small_model):
    out, results, *_ = evaluated
    with pytest.raises(SettingsError, match="weights_sha256"):
        report(out, {**results, "weights_sha256": "0" * 64}, dataset, small_model)
    with pytest.raises(SettingsError, match="got a model with recipe paper"):
        report(out, {**results, "recipe": "tiles"}, dataset, small_model)


def test_a_part_that_is_gone(evaluated, tmp_path):
    with pytest.raises(OutputError, match=r"a-seed0\.json"):
        read_parts(tmp_path, evaluated[1])


def made_up(name="part", **changes):
    """Results and parts of one category, by hand."""
    figures = {metric: None for metric in METRICS}
    reasons = dict.fromkeys(METRICS, "no picture of this category was judged")
    category = {"n_normal": 0, "n_anomalous": 0, **figures, "reasons": reasons, "alarm": None, "failed": []}
    part = {"figures": figures, "reasons": reasons, "references": [], "rows": [], "curves": {}}
    for key, value in changes.items():
        (part if key in part else category)[key] = value
    results = {
        **{key: "x" for key in ("dataset", "recipe", "model", "engine", "precision", "device")},
        "shots": 0,
        "seed": 0,
        "categories": {name: category},
        "mean": figures,
        "scores": "scores.csv",
    }
    return results, {name: part}


def empty_set(root):
    return Dataset("folder", root, (), ())


def test_no_pictures_at_all(tmp_path):
    page = Page(write_evaluation_report(tmp_path, *made_up(), empty_set(tmp_path), None).read_text())
    assert "0 normal and 0 defective pictures" in page.words
    assert not {"svg", "img"} & set(page.tags)
    assert page.words.count("no picture of this category was judged") == 1 + 1  # in the notes, and for all charts


def test_an_alarm_is_loud(tmp_path):
    alarm = "9 of 9 anomaly maps are constant"
    results, parts = made_up(alarm=alarm, reasons=dict.fromkeys(METRICS, f"alarm: {alarm}"))
    text = write_evaluation_report(tmp_path, results, parts, empty_set(tmp_path), None).read_text()
    page = Page(text)
    assert text.count('role="alert"') == 2
    assert page.words.index("ALARM: this run has broken maps") < page.words.index("Data set")
    assert page.words.count("ALARM") == 3  # on top, in the table, and at its category
    assert page.words.count(alarm) >= 3


def test_names_are_text_whatever_they_hold(tmp_path):
    evil = "<script>alert(1)</script>\"'&{{ undefined }}"
    rows = [{"path": evil, "label": "anomalous", "defect_type": evil, "score": 0.5, "map": None}]
    failed = [{"path": evil, "type": "PictureError", "message": f"/x/{evil}: {evil}"}]
    results, parts = made_up(evil, rows=rows, failed=failed, alarm=evil, references=[evil])
    results |= {"class": evil, "machine": {"system": evil}}
    text = write_evaluation_report(tmp_path, results, parts, empty_set(tmp_path), None).read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert page.words.count(evil) >= 9


def test_names_that_are_no_valid_text_are_shown_as_escapes(tmp_path):
    results, parts = made_up("part\udcff")
    text = write_evaluation_report(tmp_path, results, parts, empty_set(tmp_path), None).read_text("utf-8")
    assert r"part\udcff" in text


def test_many_pictures_and_failures_are_bounded(tmp_path):
    rows = [
        {"path": f"{number}", "label": label, "defect_type": "x", "score": number / 100, "map": None}
        for number, label in enumerate(["normal", "anomalous"] * 50)
    ]
    failed = [{"path": f"f{number}", "type": "PictureError", "message": "bad"} for number in range(50)]
    results, parts = made_up(rows=rows, failed=failed)
    text = write_evaluation_report(tmp_path, results, parts, empty_set(tmp_path), None).read_text()
    assert text.count("<figure>") == 2 * PICTURES_PER_LIST
    assert text.count("<li>f") == 20
    assert "and 30 more" in text
    assert "50 failed" in text


def test_a_lost_reference_leaves_the_pictures(evaluated, dataset, small_model):
    out, results, *_ = evaluated
    parts = json.loads(json.dumps(read_parts(out, results)))
    parts["a"]["references"] = ["a/train/good/gone.png"]
    page = Page(write_evaluation_report(out, results, parts, dataset, small_model).read_text())
    assert "no heat maps" in page.words
    assert page.tags.count("img") == 3 + 3 + 2 * 3


def test_published_figures_stand_beside_ours(tmp_path):
    results, parts = made_up("candle")
    results |= {
        "dataset": "visa",
        "model": "ViT-B-16-plus-240",
        "weights_sha256": "8fb26589" + 56 * "0",
        "recipe": "paper",
        "recipe_settings": asdict(get_recipe("paper")),
        "prompts": asdict(PromptEnsemble()),
    }
    results = json.loads(json.dumps(results))
    (table, entry), *_ = matching_tables(results)
    page = Page(write_evaluation_report(tmp_path, results, parts, empty_set(tmp_path), None).read_text())
    assert f"published: {table.title}" in page.words
    assert "AUPR: ours is average precision; theirs: not said there" in page.words
    assert all(f"{100 * figure:.2f}" in page.words for figure in entry.mean.values())


def test_a_full_category_of_real_pictures_is_small(tmp_path, small_model, textile):
    """Fabric is nearly noise, which compresses badly; so fifteen full categories stay below 10 MB."""
    for path in textile:
        kind = "good" if "nominal" in path.name else "hole"
        (tmp_path / "c" / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "c" / kind)
    fabric = open_dataset("folder", tmp_path / "c")
    results = evaluate(small_model, fabric, tmp_path / "out")
    text, page = report(tmp_path / "out", results, fabric, small_model)
    assert page.tags.count("img") == 2 * 2 * PICTURES_PER_LIST
    assert len(text) < BIGGEST_CATEGORY_BYTES


# Verdicts


def verdicts(words):
    """Found, missed, false alarms, passed."""
    cells = r"(\d+) found\s*(\d+) missed\s*normal\s*(\d+) false alarms\s*(\d+) passed"
    return [int(number) for number in re.search(cells, words).groups()]


def test_the_confusion_matrix_is_that_of_the_largest_f1_without_a_calibration(evaluated):
    _, _, _, page = evaluated
    chosen = "the threshold of the largest F1, chosen on these very pictures"
    assert page.words.count(chosen) == 1  # b has good pictures only
    found, missed, alarms, passed = verdicts(page.words)
    assert (found + missed, alarms + passed) == (3, 3)


def test_the_confusion_matrix_at_a_calibrated_threshold_by_hand(small_model, dataset, evaluated, tmp_path):
    """The threshold is put between the scores of the category."""
    out, results, *_ = evaluated
    rows = read_parts(out, results)["a"]["rows"]
    scores = sorted(row["score"] for row in rows if row["score"] is not None)
    threshold = (scores[2] + scores[3]) / 2
    good = [item.path for item in dataset.items if item.category == "a" and item.split == "train"]
    made = small_model.calibrate(good, "a", max_false_alarms=0.4)
    calibration = replace(made, scores=(threshold,) * len(made.scores), map_maxima=None)
    assert calibration.threshold == threshold
    text = write_evaluation_report(
        out, results, read_parts(out, results), dataset, small_model, calibrations=[calibration]
    ).read_text()
    words = Page(text).words
    above = [row["label"] for row in rows if row["score"] is not None and row["score"] > threshold]
    found, alarms = above.count("anomalous"), above.count("normal")
    assert found + alarms == 3
    assert "calibrated for at most 0.4 of good pictures flagged" in words
    assert verdicts(words) == [found, 3 - found, alarms, 3 - alarms]


def test_a_calibration_made_with_something_else_is_not_used(small_model, dataset, evaluated):
    out, results, *_ = evaluated
    good = [item.path for item in dataset.items if item.category == "a" and item.split == "train"]
    made = small_model.calibrate(good, "a", max_false_alarms=0.4)
    other = replace(made, identity=replace(made.identity, weights_sha256="0" * 64))
    path = write_evaluation_report(out, results, read_parts(out, results), dataset, small_model, calibrations=[other])
    words = Page(path.read_text()).words
    assert "The calibration was not used: the calibration was made with something else: weights_sha256" in words
    assert "the threshold of the largest F1" in words


def test_missing_masks_are_one_line(tmp_path):
    why = "the data set has no masks for this category"
    rows = [
        {"path": f"{n}.png", "label": kind, "defect_type": "x", "score": n / 9, "map": None}
        for n, kind in enumerate(("normal", "anomalous") * 3)
    ]
    reasons = {metric: why for metric in METRICS if metric.startswith("pixel")}
    results, parts = made_up(rows=rows, reasons=reasons)
    page = Page(write_evaluation_report(tmp_path, results, parts, empty_set(tmp_path), None).read_text())
    assert page.words.count(f"Pixel ROC, PRO to FPR 0.3undefined: {why}") == 1


def test_pictures_are_named_by_their_files(evaluated):
    _, _, text, _ = evaluated
    assert 'alt="a/test/hole/0.png with the outline of the defect"' in text
    assert 'alt="heat map over the picture a/test/hole/0.png"' in text
