"""``winspect calibrate`` and ``winspect predict --calibration`` as a user meets them."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import SIZE_WH, part, save
from PIL import Image

from winspect import WinCLIP
from winspect.calibration import Calibration
from winspect.outputs.coco import run_lengths

ROOT = Path(__file__).parents[2]

# Nine good pictures are the fewest for 0.1.
RATE = ("--max-false-alarms", "0.1")


@pytest.fixture
def cli(cli, small_checkpoint):
    """Run ``winspect`` in this process on the small model."""
    model = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu", "--engine", "torch")
    return lambda *arguments: cli(*arguments, *model)


@pytest.fixture
def goods(tmp_path) -> Path:
    """A folder of nine good pictures."""
    for number in range(9):
        save(tmp_path / f"goods/good{number}.png", part(number, defective=False)[0])
    return tmp_path / "goods"


@pytest.fixture
def news(tmp_path) -> Path:
    """A folder of two new pictures, the second defective."""
    for number, bad in enumerate((False, True)):
        save(tmp_path / f"news/new{number}.png", part(300 + number, defective=bad)[0])
    return tmp_path / "news"


@pytest.fixture
def made(cli, goods, tmp_path) -> Path:
    """A calibration for the class "metal nut"."""
    out = tmp_path / "nut.json"
    assert cli("calibrate", goods, *RATE, "--class", "metal_nut", "--out", out).code == 0
    return out


def rewrite(path: Path, **changes) -> None:
    """Change entries of a calibration's file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]


# calibrate


def test_what_it_says_and_writes(cli, goods, tmp_path, small_model):
    out = tmp_path / "new" / "nut.json"
    done = cli("calibrate", goods, *RATE, "--class", "metal_nut", "--out", out)
    assert done.code == 0
    calibration = Calibration.load(out)
    scores = [small_model.predict(path, "metal nut").anomaly_score for path in goods.iterdir()]
    assert calibration.scores == pytest.approx(sorted(scores), abs=1e-5)
    first, second, third, last = done.out.splitlines()
    assert first == "9 good pictures of 'metal nut', zero-shot, at most 0.1 of new ones flagged"
    # Beta(1, 9) is below 1 - 0.05 ** (1 / 9) with 95 %.
    assert second == f"threshold        {calibration.threshold:.6g}; its own rate is at most 0.283 with 95 % confidence"
    assert third == f"pixel threshold  {calibration.pixel_threshold:.6g}"
    assert last == f"written to {out}"


def test_json_is_the_files_entries_without_its_lists(cli, goods, news, tmp_path):
    out = tmp_path / "nut.json"
    options = ("--out", out, "--json", "--held-out", news / "new0.png", "--defective", news / "new1.png")
    done = cli("calibrate", goods, *RATE, *options, "--scores-only")
    assert done.code == 0
    document = Calibration.load(out).document()
    assert json.loads(done.out) == {
        "out": str(out),
        **{name: value for name, value in document.items() if name not in ("scores", "map_maxima")},
    }
    assert document["pixel_threshold"] is None
    assert document["held_out"]["pictures"] == document["defective"]["pictures"] == 1


def test_references_labelled_pictures_and_what_is_left_out(cli, goods, news, tmp_path):
    out = tmp_path / "nut.json"
    more = [save(tmp_path / f"more{number}.png", part(90 + number, defective=False)[0]) for number in range(2)]
    options = ("--reference", goods, "--shots", 2, "--defective", news / "new1.png", "--held-out", news / "new0.png")
    done = cli("calibrate", goods, *more, *RATE, "--out", out, *options)
    assert done.code == 0
    calibration = Calibration.load(out)
    assert [Path(one.path).name for one in calibration.left_out] == ["good0.png", "good1.png"]
    assert [sample.path for sample in calibration.identity.references] == ["good0.png", "good1.png"]
    assert "9 good pictures of 'object', 2 references" in done.out
    assert "of 1 good pictures flagged" in done.out
    assert f"at --threshold {calibration.defective.f1_threshold:.6g}" in done.out
    assert f"left out (reference): {goods / 'good0.png'}: a reference picture" in done.err
    assert "2 pictures left out, 0 of them unreadable" in done.err


def test_an_unreadable_picture_is_named_and_told_by_the_exit_code(cli, goods, tmp_path):
    (goods / "good0b.png").write_bytes(b"")
    done = cli("calibrate", goods, *RATE, "--out", tmp_path / "nut.json")
    assert done.code == 3
    assert f"left out (unreadable): {goods / 'good0b.png'}: " in done.err
    assert Calibration.load(tmp_path / "nut.json").pictures == 9


def test_held_out_pictures_that_contradict_are_a_no(cli, goods, tmp_path, monkeypatch):
    """Twelve new pictures, all above the nine: one choice in C(21, 12)."""
    for number in range(12):
        save(tmp_path / f"changed/new{number}.png", part(600 + number, defective=True)[0])
    whole = WinCLIP.predict_many

    def brighter(self, pictures, *arguments, **options):
        for path, result in zip(pictures, whole(self, pictures, *arguments, **options), strict=True):
            if path.parent.name == "changed":
                object.__setattr__(result, "anomaly_score", 1.0)
            yield result

    monkeypatch.setattr(WinCLIP, "predict_many", brighter)
    out = tmp_path / "nut.json"
    refused = cli("calibrate", goods, *RATE, "--out", out, "--held-out", tmp_path / "changed", "--json")
    assert refused.code == 1
    assert not out.exists()
    summary = json.loads(refused.out)
    assert summary["out"] is None
    assert (summary["held_out"]["pictures"], summary["held_out"]["alarms"]) == (12, 12)
    assert summary["held_out"]["chance"] == pytest.approx(1 / 293930)
    assert "the held-out pictures are flagged more often than 0.1" in refused.err
    assert "was not written" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["got 9 usable good pictures, need at least 99", "9 allow 0.1"]),
        (("--max-false-alarms", "0"), ["max_false_alarms: got 0.0"]),
        (("--max-false-alarms", "nan"), ["max_false_alarms: got nan"]),
        ((*RATE, "--shots", "2"), ["--shots needs --reference"]),
        ((*RATE, "--reference", "GOODS"), ["got 0 usable good pictures beside the 9 that are references", "--shots"]),
        (
            (*RATE, "--reference", "GOODS", "--shots", "2"),
            ["got 7 usable good pictures beside the 2 that", "7 allow 0.125", "take fewer of them"],
        ),
        ((*RATE, "--reference", "nowhere"), ["--reference", "nowhere"]),
        ((*RATE, "--held-out", "nowhere"), ["nowhere", "no such file"]),
        ((*RATE, "--defective", "nowhere"), ["nowhere", "no such file"]),
        ((*RATE, "--class", "{}"), ["braces"]),
        ((*RATE, "--recipe", "soup"), ["'soup'"]),
    ],
)
def test_wrong_use_is_refused(cli, goods, tmp_path, arguments, words):
    arguments = [goods if word == "GOODS" else word for word in arguments]
    refused = cli("calibrate", goods, "--out", tmp_path / "nut.json", *arguments)
    assert refused.code == 2
    assert refused.out == ""
    assert not (tmp_path / "nut.json").exists()
    for word in words:
        assert word in refused.err


def test_too_few_pictures_are_told_before_torch_is_loaded(goods, tmp_path):
    code = (
        "import sys; from winspect.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "calibrate", goods, "--out", tmp_path / "nut.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "need at least 99" in done.stderr


def test_places_that_cannot_be_written(cli, goods, tmp_path):
    refused = cli("calibrate", goods, *RATE, "--out", tmp_path)
    assert refused.code == 2
    assert "this is a folder; name a file" in refused.err
    refused = cli("calibrate", goods, *RATE, "--out", goods / "good0.png" / "nut.json")
    assert refused.code == 2
    assert "cannot write" in refused.err


def test_an_interruption_writes_nothing(cli, goods, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(WinCLIP, "predict_many", interrupted)
    stopped = cli("calibrate", goods, *RATE, "--out", tmp_path / "nut.json")
    assert stopped.code == 130
    assert "was not written" in stopped.err
    assert not (tmp_path / "nut.json").exists()


# predict --calibration


def test_rows_have_verdicts_p_values_masks_and_boxes(cli, made, news, tmp_path, small_model):
    calibration = Calibration.load(made)
    threshold = float(np.median(calibration.map_maxima))
    rewrite(made, max_false_alarms=0.5, threshold=calibration.scores[4], pixel_threshold=threshold)
    calibration = Calibration.load(made)
    done = cli("predict", news, "--calibration", made, "--out", tmp_path / "out")  # the class is the calibration's
    assert done.code == 0
    found = 0
    for row in rows_in(tmp_path / "out"):
        result = small_model.predict(row["path"], "metal nut")
        higher = sum(score >= row["anomaly_score"] for score in calibration.scores)
        assert row["class"] == "metal nut"
        assert row["threshold"] == calibration.threshold
        assert row["p_value"] == (1 + higher) / 10
        assert row["verdict"] == ("anomalous" if row["p_value"] <= 0.5 else "normal")
        assert f"{row['verdict']:9}  p {row['p_value']:.4f}" in done.out
        with Image.open(tmp_path / "out" / row["mask"]) as mask:
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", SIZE_WH)
            pixels = np.asarray(mask)
        assert set(np.unique(pixels)) <= {0, 255}
        regions = calibration.defects(result)  # the library's own run may round another way
        assert (pixels > 0).any() == regions.mask.any() == (row["verdict"] == "anomalous")
        assert ((pixels > 0) == regions.mask).mean() > 0.99
        inside = np.zeros(pixels.shape, bool)
        for x0, y0, x1, y1 in row["boxes"]:
            assert pixels[y0:y1, x0:x1].any()
            inside[y0:y1, x0:x1] = True
        assert inside[pixels > 0].all()
        found += len(row["boxes"])
    assert found > 0
    with (tmp_path / "out" / "predictions.csv").open(newline="") as table:
        assert [float(row["p_value"]) for row in csv.DictReader(table)] == [
            row["p_value"] for row in rows_in(tmp_path / "out")
        ]


def test_without_out_there_are_decisions_alone(cli, made, news):
    (first, second) = json.loads(cli("predict", news, "--calibration", made, "--json").out)["results"]
    assert {first["verdict"], second["verdict"]} <= {"normal", "anomalous"}
    assert set(first) == {
        "path", "class", "anomaly_score", "verdict", "threshold", "boxes", "map", "error", "warning", "p_value",
    }  # fmt: skip


def test_without_a_calibration_rows_are_as_they_were(cli, news, tmp_path):
    cli("predict", news, "--out", tmp_path / "out")
    assert list(rows_in(tmp_path / "out")[0]) == [
        "path", "class", "anomaly_score", "verdict", "threshold", "boxes", "map", "error", "warning",
    ]  # fmt: skip


def test_a_picture_that_fails_has_no_decision(cli, made, news, tmp_path):
    (news / "broken.png").write_bytes(b"")
    done = cli("predict", news, "--calibration", made, "--out", tmp_path / "out", "--coco")
    assert done.code == 3
    (broken,) = [row for row in rows_in(tmp_path / "out") if row["error"]]
    assert [broken[name] for name in ("verdict", "p_value", "mask", "boxes")] == [None] * 4
    assert len(json.loads((tmp_path / "out" / "defects.coco.json").read_text())["images"]) == 2


def test_a_threshold_of_ones_own_decides_and_p_values_stay(cli, made, news):
    options = ("--calibration", made, "--threshold", "0", "--json")
    for row in json.loads(cli("predict", news, *options).out)["results"]:
        assert (row["verdict"], row["threshold"]) == ("anomalous", 0)
        assert row["p_value"] >= 0.1


def test_masks_can_be_left_out(cli, made, news, tmp_path):
    cli("predict", news, "--calibration", made, "--out", tmp_path / "out", "--no-masks", "--no-overlays")
    (row, _) = rows_in(tmp_path / "out")
    assert row["p_value"] > 0
    assert "mask" not in row
    assert not (tmp_path / "out" / "maps").exists()


def test_masks_without_overlays(cli, made, news, tmp_path):
    cli("predict", news, "--calibration", made, "--out", tmp_path / "out", "--no-overlays")
    assert sorted(path.name for path in (tmp_path / "out" / "maps").iterdir()) == [
        "000000_new0_mask.png",
        "000001_new1_mask.png",
    ]


def test_coco(cli, made, news, tmp_path):
    maxima = json.loads(made.read_text())["map_maxima"]
    rewrite(made, map_maxima=[maxima[0] - 0.01] * 9, pixel_threshold=maxima[0] - 0.01)
    out = tmp_path / "out"
    assert cli("predict", news, "--calibration", made, "--out", out, "--coco", "--boxes", "all").code == 0
    coco = json.loads((out / "defects.coco.json").read_text())
    rows = rows_in(out)
    assert coco["categories"] == [{"id": 1, "name": "metal nut defect", "supercategory": "defect"}]
    assert [(image["file_name"], image["width"], image["height"]) for image in coco["images"]] == [
        (row["path"], *SIZE_WH) for row in rows
    ]
    assert [image["p_value"] for image in coco["images"]] == [row["p_value"] for row in rows]
    assert [one["id"] for one in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    for image, row in zip(coco["images"], rows, strict=True):
        own = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
        assert [[x, y, x + width, y + height] for x, y, width, height in (one["bbox"] for one in own)] == row["boxes"]
        painted = np.zeros(SIZE_WH[0] * SIZE_WH[1], int)
        for one in own:
            counts = one["segmentation"]["counts"]
            region = np.repeat(np.arange(len(counts)) % 2, counts)
            assert (region.sum(), one["segmentation"]["size"]) == (one["area"], [SIZE_WH[1], SIZE_WH[0]])
            painted += region
        with Image.open(out / row["mask"]) as mask:
            assert np.array_equal(painted.reshape(SIZE_WH).T, np.asarray(mask) // 255)
    assert coco["annotations"]


def test_boxes_of_pictures(cli, made, news, tmp_path):
    """Normal pictures have none unless asked, anomalous ones at least one, whatever the pixel threshold."""
    given = ("predict", news, "--calibration", made, "--json")
    cases = (
        (("--threshold", "1"), [0, 0]),
        (("--threshold", "1", "--boxes", "all", "--pixel-threshold", "0"), [1, 1]),
        (("--threshold", "0", "--pixel-threshold", "1"), [1, 1]),
        (("--threshold", "0", "--pixel-threshold", "1", "--min-area", "1e9"), [1, 1]),
        (("--threshold", "0", "--boxes", "none"), [None, None]),
    )
    for options, expected in cases:
        rows = json.loads(cli(*given, *options).out)["results"]
        assert [None if row["boxes"] is None else len(row["boxes"]) for row in rows] == expected


def test_coco_by_a_pixel_threshold_alone(cli, news, tmp_path):
    out = tmp_path / "out"
    assert cli("predict", news, "--pixel-threshold", "0", "--coco", "--out", out).code == 0
    coco = json.loads((out / "defects.coco.json").read_text())
    assert [image["verdict"] for image in coco["images"]] == [None, None]
    assert [one["image_id"] for one in coco["annotations"]] == [1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--boxes", "anomalous"], "--boxes anomalous needs --threshold, --calibration or --pixel-threshold"),
        (["--boxes", "all", "--threshold", "0.5"], "--boxes all needs --pixel-threshold, or a --calibration made with"),
        (["--min-area", "5"], "--min-area needs --pixel-threshold"),
        (["--pixel-threshold", "1.7"], "--pixel-threshold: got 1.7"),
        (["--pixel-threshold", "0.5", "--min-area", "nan"], "min_area: got nan"),
        (["--boxes", "none", "--pixel-threshold", "0.5"], "got --boxes none beside"),
    ],
)
def test_boxes_that_nothing_decides(cli, news, options, words):
    done = cli("predict", news, *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_run_lengths_by_hand():
    everything = np.ones((2, 3), bool)
    assert run_lengths(everything, 0, 3) == [0, 6]
    assert run_lengths(everything[:, :1], 2, 3) == [4, 2]
    assert run_lengths(np.array([[False], [True]]), 1, 3) == [3, 1, 2]


def test_a_resumed_run_has_all_its_defects(cli, made, news, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    maxima = json.loads(made.read_text())["map_maxima"]
    rewrite(made, map_maxima=[maxima[0] - 0.01] * 9, pixel_threshold=maxima[0] - 0.01)
    # Picture by picture: a batch of another size rounds another way.
    options = ("--calibration", made, "--coco", "--plan", "serial", "--batch-size", "1", "--out")
    cli("predict", news, *options, whole)
    cli("predict", news / "new0.png", *options, parts)
    assert cli("predict", news, *options, parts, "--resume").code == 0
    assert (parts / "defects.coco.json").read_text() == (whole / "defects.coco.json").read_text()
    assert rows_in(parts) == rows_in(whole)


def test_another_calibration_is_another_run(cli, made, news, tmp_path):
    cli("predict", news, "--calibration", made, "--out", tmp_path / "out")
    rewrite(made, date="2020-01-01T00:00:00Z")
    refused = cli("predict", news, "--calibration", made, "--out", tmp_path / "out", "--resume")
    assert refused.code == 2
    assert "another run (different calibration)" in refused.err


def test_a_full_disk_while_masks_are_written(cli, made, news, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if "_mask.png" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = cli("predict", news, "--calibration", made, "--out", tmp_path / "out", "--no-overlays")
    assert done.code == 2
    assert "the disk is full" in done.err
    assert rows_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--class", "bolt"), ["class: calibrated with 'metal nut', now 'bolt'"]),
        (("--reference", "GOODS", "--shots", "1"), ["calibrated with none (zero-shot), now good0.png"]),
        (("--set", "temperature=0.05"), ["'temperature': 0.07", "'temperature': 0.05"]),
        (("--precision", "bf16"), ["precision: calibrated with 'fp32', now 'bf16'"]),
        (("--coco",), ["--coco needs --out DIR"]),
        (("--coco", "--no-masks", "--out", "OUT"), ["got --coco and --no-masks"]),
    ],
)
def test_what_does_not_fit_is_refused(cli, made, goods, news, tmp_path, arguments, words):
    places = {"GOODS": goods, "OUT": tmp_path / "out"}
    refused = cli("predict", news, "--calibration", made, *(places.get(word, word) for word in arguments))
    assert refused.code == 2
    assert refused.out == ""
    for word in words:
        assert word in refused.err


def test_what_needs_a_calibration(cli, news, tmp_path):
    for option in ("--coco", "--no-masks"):
        refused = cli("predict", news, option, "--out", tmp_path / "out")
        assert refused.code == 2
        assert f"{option} needs --calibration FILE" in refused.err


def test_files_that_are_no_calibration(cli, made, news, tmp_path):
    made.write_text(made.read_text()[:200])
    refused = cli("predict", news, "--calibration", made)
    assert refused.code == 2
    assert "not a calibration: not JSON" in refused.err
    assert cli("predict", news, "--calibration", tmp_path / "gone.json").code == 2


def test_a_calibration_on_scores_alone(cli, goods, news, tmp_path):
    out = tmp_path / "nut.json"
    cli("calibrate", goods, *RATE, "--scores-only", "--out", out)
    refused = cli("predict", news, "--calibration", out, "--coco", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "was made on scores alone; calibrate without --scores-only" in refused.err
    cli("predict", news, "--calibration", out, "--out", tmp_path / "out")
    (row, _) = rows_in(tmp_path / "out")
    assert row["p_value"] > 0
    assert "mask" not in row
