"""VisA in both layouts, and its split file."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter

import pytest

from winspect.datasets import load_mask, open_dataset
from winspect.datasets.official import OFFICIAL, Counts
from winspect.datasets.visa import is_safe, read_split
from winspect.errors import SourceError

HEADER = "object,split,label,image,mask\n"


def test_official_counts_are_those_of_the_official_split(mini):
    if not mini.official_split.is_file():
        pytest.skip("the official split file is not at hand")
    with mini.official_split.open(newline="") as file:
        counted = Counter((row["object"], row["split"], row["label"]) for row in csv.DictReader(file))
    assert sum(counted.values()) == 10_821
    assert OFFICIAL["visa"] == {
        name: Counts(
            counted[name, "train", "normal"], counted[name, "test", "normal"], counted[name, "test", "anomaly"]
        )
        for name in sorted({name for name, _, _ in counted})
    }


def test_mvtec_counts_add_up_to_the_published_totals():
    counts = OFFICIAL["mvtec"].values()
    assert len(counts) == 15
    assert sum(c.train_normal for c in counts) == 3629
    assert sum(c.test_normal for c in counts) == 467
    assert sum(c.test_anomalous for c in counts) == 1258


def test_raw(visa_source, mini):
    dataset = open_dataset("visa", visa_source)
    assert (dataset.name, dataset.root) == ("visa", visa_source)
    assert dataset.categories == tuple(sorted(OFFICIAL["visa"]))
    expected = mini.few_rows()
    assert [item.path for item in dataset.items] == [
        visa_source / row["image"] for name in dataset.categories for row in expected if row["object"] == name
    ]
    for name in dataset.categories:
        for split, label in (("train", "normal"), ("test", "normal"), ("test", "anomalous")):
            assert len(dataset.select(category=name, split=split, label=label)) == 2
    candle, capsules = (dataset.select(category=name, label="anomalous")[0] for name in ("candle", "capsules"))
    assert candle.defect_type == "chunk of wax missing,stuck"
    assert capsules.defect_type == "bad"
    assert load_mask(candle, mini.size_wh).sum() == 6
    assert {item.mask for item in dataset.select(label="normal")} == {None}
    assert dataset.missing() == ()
    assert open_dataset("visa", visa_source.parent, categories=["pcb4"]).categories == ("pcb4",)


def test_an_unknown_category(visa_source):
    with pytest.raises(SourceError, match="got category 'candel', but it has: candle, capsules, cashew,"):
        open_dataset("visa", visa_source, categories=["candel"])


def test_a_split_that_names_missing_pictures(visa_source, tmp_path, caplog):
    root = tmp_path / "VisA"
    shutil.copytree(visa_source, root)
    gone = open_dataset("visa", root).select(category="fryum")[0].path
    gone.unlink()
    dataset = open_dataset("visa", root)
    assert dataset.missing() == (gone,)
    assert f"names 1 files that are not there, as {gone}" in caplog.text
    with pytest.raises(SourceError, match=r"none of the 6 pictures that it lists is there, as .*candle/Data/Images/"):
        shutil.rmtree(root / "candle")
        open_dataset("visa", root, categories=["candle"])


def test_what_is_not_visa(tmp_path):
    with pytest.raises(SourceError, match=r"VisA is not here: need split_csv/1cls.csv"):
        open_dataset("visa", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the.csv: got the columns an empty file, need object, split"),
        (HEADER, "the.csv: no rows"),
        (HEADER + "candle,val,normal,a.JPG,\n", "the.csv, line 2: got split and label 'val' and 'normal'"),
        (HEADER + "candle,test,bad,a.JPG,m.png\n", "the.csv, line 2: got split and label 'test' and 'bad'"),
        (HEADER + "candle,test,normal,../a.JPG,\n", "line 2: got the path '../a.JPG', need one inside the data set"),
        (HEADER + "candle,test,normal,/a.JPG,\n", "line 2: got the path '/a.JPG'"),
        (HEADER + "candle,test,anomaly,a.JPG,c:m.png\n", "line 2: got the path 'c:m.png'"),
        (HEADER + "..,test,normal,a.JPG,\n", r"line 2: got the path '\.\.'"),
        (HEADER + "a/b,test,normal,a.JPG,\n", "line 2: got the category 'a/b', need a plain name"),
    ],
)
def test_wrong_lines_of_a_split_are_named(text, message):
    with pytest.raises(SourceError, match=message):
        read_split(text, "the.csv")


@pytest.mark.parametrize(
    ("path", "safe"),
    [("a/b.png", True), ("", False), ("a/../b", False), ("/a", False), ("//a", False), ("a\\..\\b", False)],
)
def test_safe_paths(path, safe):
    assert is_safe(path) is safe
    assert re.match(r"\w", path) or not safe
