"""Good samples among the pictures judged, and copies of them, are named and left out of figures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from miniature import make_folder, make_mvtec, part, save

from winspect.datasets import open_dataset
from winspect.evaluation.run import evaluate
from winspect.evaluation.shots import draw
from winspect.pictures import fingerprints
from winspect.pictures.fingerprints import SEEN, Copies, fingerprint

TINY = ("--model", "winspect-tiny", "--engine", "torch")


@pytest.fixture
def cli(cli):
    """Run ``winspect`` in this process on the bundled model."""
    return lambda *arguments: cli(*arguments, *TINY)


@pytest.fixture
def pictures(tmp_path):
    """Two references; a copy of the first under another name; two others, one of a reference's size in bytes."""
    for number in range(3):
        save(tmp_path / "good" / f"{number}.bmp", part(number, defective=False)[0])
    (tmp_path / "good" / "2.bmp").rename(tmp_path / "2.bmp")
    shutil.copy(tmp_path / "good" / "0.bmp", tmp_path / "copy.bmp")
    save(tmp_path / "3.png", part(3, defective=True)[0])
    return tmp_path


def test_only_files_of_a_references_size_are_read(pictures, monkeypatch):
    read = []
    known = [fingerprint(pictures / "good" / f"{number}.bmp") for number in range(2)]
    monkeypatch.setattr(fingerprints, "fingerprint", lambda picture: read.append(picture) or fingerprint(picture))
    copies = Copies(known)
    found = {path.name: copies.original(path) for path in sorted(pictures.rglob("*.*"))}
    assert found == {
        "2.bmp": None,
        "3.png": None,
        "copy.bmp": str(pictures / "good" / "0.bmp"),
        "0.bmp": str(pictures / "good" / "0.bmp"),
        "1.bmp": str(pictures / "good" / "1.bmp"),
    }
    assert {path.name for path in read} == {"2.bmp", "copy.bmp"}


def test_predict_marks_and_names_them(cli, pictures):
    out = pictures / "out"
    done = cli("predict", pictures, "--reference", pictures / "good", "--out", out, "--no-overlays")
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    warnings = {row["path"].removeprefix(f"{pictures}/"): row["warning"] for row in rows}
    first = pictures / "good" / "0.bmp"
    assert done.code == 0
    assert warnings == {
        "2.bmp": None,
        "3.png": None,
        "copy.bmp": f"{SEEN} (the same as the good sample {first}): its score says nothing",
        "good/0.bmp": f"{SEEN} (it is one of the good samples): its score says nothing",
        "good/1.bmp": f"{SEEN} (it is one of the good samples): its score says nothing",
    }
    assert f"winspect: 3 judged by themselves, being good samples or copies; do not count them: {pictures}" in done.err
    summary = json.loads(cli("predict", pictures, "--reference", pictures / "good", "--json").out)
    assert len(summary["judged_by_themselves"]) == 3 and summary["warned"] == 3


def test_python_marks_them_too(small_model, pictures):
    first, other = np.full((40, 40, 3), 90, np.uint8), part(5, defective=False)[0]
    small_model.reference([("first", first)], "plate")
    try:
        marked, plain = small_model.predict_many([first.copy(), other], "plate")
        assert SEEN in marked.warning and SEEN not in (plain.warning or "")
        assert SEEN in small_model.predict(first, "plate").warning
    finally:
        small_model.forget("plate")
    assert SEEN not in (small_model.predict(first, "plate").warning or "")


def test_evaluate_leaves_copies_out_of_its_figures_and_says_so(cli, small_model, tmp_path):
    root = make_mvtec(tmp_path / "parts", categories=("bolt",), train=1)
    clean = make_mvtec(tmp_path / "clean", categories=("bolt",), train=1)
    shutil.copy(root / "bolt/train/good/000.png", root / "bolt/test/good/leaked.png")
    dataset = open_dataset("mvtec", root)
    drawn = draw(dataset, "bolt", shots=1)
    assert [item.path.name for item, _ in drawn.copies] == ["leaked.png"]
    assert len(drawn.tested) == 8 and draw(dataset, "bolt").copies == ()
    results = evaluate(small_model, dataset, tmp_path / "out", shots=1)
    expected = evaluate(small_model, open_dataset("mvtec", clean), tmp_path / "other", shots=1)
    bolt = results["categories"]["bolt"]
    assert bolt["copies"] == [{"path": "bolt/test/good/leaked.png", "of": "bolt/train/good/000.png", "seed": 0}]
    assert results["mean"] == expected["mean"] and bolt["n_normal"] == 4
    assert expected["categories"]["bolt"]["copies"] == []
    done = cli("evaluate", "--dataset", "mvtec", "--root", root, "--out", tmp_path / "cli", "--shots", 1)
    said = "bolt: bolt/test/good/leaked.png: a copy of the reference bolt/train/good/000.png"
    assert f"winspect: left out of the figures: {said}" in done.err
    assert "1 copies of references, left out of the figures" in (tmp_path / "cli" / "report.html").read_text()


def test_plain_folders_whose_references_are_drawn_from_the_tested(tmp_path):
    root = make_folder(tmp_path / "parts")
    for number in range(5):
        shutil.copy(root / f"bolt/good/{number}.png", root / f"bolt/good/again {number}.png")
    drawn = draw(open_dataset("folder", root), "bolt", shots=1)
    assert len(drawn.copies) == 1 and len(drawn.tested) == 10 + 4 - 2
