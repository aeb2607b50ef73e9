"""Items, filters, and what is common to every kind."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import winspect
from winspect.datasets import KINDS, Dataset, Item, open_dataset
from winspect.errors import SettingsError, SourceError


def make_item(name: str, category: str = "bolt", split: str = "test", label: str = "normal") -> Item:
    return Item(Path(name), category, split, label, "good" if label == "normal" else "dent")


ITEMS = (
    make_item("a.png", split="train"),
    make_item("b.png"),
    make_item("c.png", label="anomalous"),
    make_item("d.png", category="nut"),
)
DATASET = Dataset("folder", Path("data"), ("bolt", "nut", "empty"), ITEMS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "val"}, "got split 'val', need one of train, test"),
        ({"label": "good"}, "got label 'good', need one of normal, anomalous"),
        ({"defect_type": "dent"}, "labelled normal, but has the defect 'dent'"),
        ({"mask": Path("m.png")}, r"labelled normal, but has the mask m.png"),
    ],
)
def test_an_item_is_checked(given, message):
    with pytest.raises(SettingsError, match=f"x.png: {message}"):
        Item(**{"path": Path("x.png"), "category": "bolt", "split": "test", "label": "normal", **given})


def test_an_item_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ITEMS[0].label = "anomalous"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "abcd"),
        ({"category": "bolt"}, "abc"),
        ({"split": "test"}, "bcd"),
        ({"label": "anomalous"}, "c"),
        ({"category": "bolt", "split": "test", "label": "normal"}, "b"),
        ({"category": "empty"}, ""),
    ],
)
def test_filters(filters, names):
    assert "".join(item.path.stem for item in DATASET.select(**filters)) == names


def test_filters_say_what_exists():
    with pytest.raises(SourceError, match="got category 'screw', but it has: bolt, nut, empty"):
        DATASET.select(category="screw")
    with pytest.raises(SettingsError, match="got 'val', need one of train, test"):
        DATASET.select(split="val")
    with pytest.raises(SettingsError, match="got 'bad', need one of normal, anomalous"):
        DATASET.select(label="bad")


def test_references_come_from_the_train_split_where_there_is_one():
    assert DATASET.reference_pool("bolt") == ITEMS[:1]
    assert DATASET.reference_pool("nut") == ITEMS[3:]
    assert DATASET.reference_pool("empty") == ()


def test_what_is_missing_is_named(tmp_path):
    there = tmp_path / "there.png"
    there.touch()
    gone, mask = tmp_path / "gone.png", tmp_path / "mask.png"
    items = (
        Item(there, "bolt", "test", "normal"),
        Item(gone, "bolt", "test", "normal"),
        Item(there, "bolt", "test", "anomalous", "dent", mask),
    )
    assert Dataset("folder", tmp_path, ("bolt",), items).missing() == (gone, mask)


def test_an_unknown_kind_and_a_root_that_is_needed():
    with pytest.raises(SettingsError, match="got the data set 'imagenet', need one of visa, mvtec"):
        open_dataset("imagenet", "x")
    for kind in set(KINDS) - {"elpv", "textile"}:
        with pytest.raises(SettingsError, match=f"the data set {kind} needs a root"):
            open_dataset(kind)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_root_that_is_not_there(kind, tmp_path):
    with pytest.raises(SourceError, match=r"no such folder|ending in|check the path"):
        open_dataset(kind, tmp_path / "gone")


def test_opening_needs_no_torch():
    path = Path(winspect.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(path)!r}); import winspect.datasets.prepare, winspect.cli.prepare; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
