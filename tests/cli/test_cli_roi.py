"""--roi and --align on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from miniature import part, save
from PIL import Image

from winspect.cli.main import main

MODEL = ("--model", "winspect-tiny", "--engine", "torch", "--device", "cpu", "--recipe", "log")


@pytest.fixture
def place(tmp_path):
    for number in range(2):
        save(tmp_path / "good" / f"{number}.png", part(number, defective=False)[0])
    save(tmp_path / "new" / "a.png", part(5, defective=False)[0])
    spoilt = part(5, defective=False)[0]
    spoilt[:, 45:] = 200
    save(tmp_path / "new" / "b.png", spoilt)
    mask = np.zeros((70, 90), np.uint8)
    mask[:, :45] = 255
    Image.fromarray(mask).save(tmp_path / "roi.png")
    return tmp_path


def rows_of(capsys, *words) -> list[dict]:
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)["results"]


def test_what_lies_outside_of_the_roi_changes_nothing(place, capsys):
    words = ("predict", place / "new", "--reference", place / "good", "--json", *MODEL)
    first, second = rows_of(capsys, *words, "--roi", place / "roi.png")
    assert first["anomaly_score"] == second["anomaly_score"]
    first, second = rows_of(capsys, *words)
    assert first["anomaly_score"] != second["anomaly_score"]


def test_a_file_that_is_none_is_refused_before_anything_is_loaded(place, capsys):
    assert main(["predict", str(place / "new"), "--roi", str(place / "nothing.png"), *MODEL]) == 2
    assert "nothing.png: cannot be read" in capsys.readouterr().err


def test_rows_say_how_they_were_aligned(place, capsys):
    pytest.importorskip("cv2")
    words = ("predict", place / "good" / "0.png", "--reference", place / "good" / "0.png", "--json", *MODEL)
    (row,) = rows_of(capsys, *words, "--align", "euclidean")
    assert row["alignment"]["aligned"] and row["alignment"]["matrix"] == [[1, 0, 0], [0, 1, 0]]
    (row,) = rows_of(capsys, *words, "--align", "none")
    assert "alignment" not in row
