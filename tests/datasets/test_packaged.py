"""The two sets that install as packages, read from the real packages."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from winspect.datasets import open_dataset
from winspect.datasets.official import OFFICIAL, count_items
from winspect.datasets.packaged import package_folder
from winspect.datasets.prepare import prepare_dataset
from winspect.errors import MissingExtraError, SourceError


def test_solar_cells_agree_with_the_packages_own_table():
    table = np.genfromtxt(package_folder("elpv") / "labels.csv", dtype=None, encoding="ascii")
    dataset = open_dataset("elpv")
    assert dataset.categories == ("solar_cell",)
    assert dataset.missing() == ()
    for item, (name, probability, _) in zip(dataset.items, table, strict=True):
        assert item.path == dataset.root / name
        assert item.is_anomalous == (probability >= 0.5)
        types = {0: "good", 33: "good", 66: "likely_defective", 100: "defective"}
        assert item.defect_type == types[int(probability * 100)]
    assert count_items(dataset.items) == OFFICIAL["elpv"]["solar_cell"]


def test_textile():
    dataset = open_dataset("textile", categories=["textile"])
    assert dataset.categories == ("textile",)
    assert dataset.missing() == ()
    assert count_items(dataset.items) == OFFICIAL["textile"]["textile"]
    for item in dataset.items:
        assert item.path.parent.name == {"good": "nominal"}.get(item.defect_type, item.defect_type)


@pytest.mark.parametrize(("kind", "package"), [("elpv", "elpv_dataset"), ("textile", "conformal_clip_data")])
def test_a_missing_package_names_the_extra(kind, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'the data set {kind} needs .*: pip install .*\[demo\]"'):
        open_dataset(kind)


@pytest.mark.parametrize(("kind", "name"), [("elpv", "solar_cell"), ("textile", "textile")])
def test_an_unknown_category(kind, name):
    with pytest.raises(SourceError, match=f"got category 'candle', but it has: {name}"):
        open_dataset(kind, categories=["candle"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("images/a.png 0.5\n", "line 1: got 'images/a.png 0.5', need a file, a probability and a kind"),
        ("\nimages/a.png much mono\n", "line 2: got 'images/a.png much mono'"),
        ("images/a.png 1.5 mono\n", "line 1: got the probability 1.5, need 0 to 1"),
    ],
)
def test_damaged_labels(text, message, tmp_path):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(SourceError, match=f"labels.csv.*{message}"):
        open_dataset("elpv", tmp_path)


def test_empty_textile(tmp_path):
    with pytest.raises(SourceError, match="no pictures in nominal, local or global"):
        open_dataset("textile", tmp_path)


def make_textile(root, mini):
    for name in ("nominal", "local", "global"):
        for number in range(2):
            mini.picture(root / name / f"textile_{number:04}.jpg", number)


def make_elpv(root, mini):
    cells = (("0.0", "mono"), ("0.3333333333333333", "poly"), ("0.6666666666666666", "poly"), ("1.0", "mono"))
    for number, _ in enumerate(cells):
        mini.picture(root / "images" / f"cell{number}.png", number)
    lines = [f"images/cell{number}.png  {probability}    {kind}" for number, (probability, kind) in enumerate(cells)]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("kind", "make"), [("elpv", make_elpv), ("textile", make_textile)])
def test_prepared_they_are_plain_folders_and_a_manifest(kind, make, tmp_path, mini):
    """The official counts of these few pictures differ, which is reported; all else is as with the whole set."""
    source, out = tmp_path / "source", tmp_path / "out"
    make(source, mini)
    before = mini.hash_tree(source)
    summary = prepare_dataset(kind, source=source, out=out)
    original = open_dataset(kind, source)
    assert (summary.written, summary.kept, summary.failed) == (len(original.items), 0, [])
    assert all("officially" in line for line in summary.missing)
    assert mini.hash_tree(source) == before

    def facts(dataset):
        return {(i.path.read_bytes(), i.category, i.split, i.label, i.defect_type, i.mask) for i in dataset.items}

    assert facts(open_dataset("folder", out)) == facts(original)
    assert facts(open_dataset("manifest", out)) == facts(original)
    again = prepare_dataset(kind, source=source, out=out)
    assert (again.written, again.kept) == (0, len(original.items))


def test_the_manifest_of_solar_cells_keeps_what_the_folders_cannot_tell(tmp_path, mini):
    make_elpv(tmp_path / "source", mini)
    prepare_dataset("elpv", source=tmp_path / "source", out=tmp_path / "out")
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        rows = {row["image"]: (row["probability"], row["kind"]) for row in csv.DictReader(file)}
    assert rows == {
        "solar_cell/good/cell0.png": ("0.0000", "mono"),
        "solar_cell/good/cell1.png": ("0.3333", "poly"),
        "solar_cell/likely_defective/cell2.png": ("0.6667", "poly"),
        "solar_cell/defective/cell3.png": ("1.0000", "mono"),
    }
