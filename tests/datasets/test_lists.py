"""Lists of pictures: both formats of manifests, and a wrong line named in each."""

from __future__ import annotations

import json

import pytest

from winspect.datasets import open_dataset
from winspect.errors import SourceError

ROWS = [
    {"image": "a.png", "label": "good", "mask": "", "category": "bolt", "split": "train", "defect_type": ""},
    {
        "image": "sub/b.png",
        "label": "NG",
        "mask": "m/b.png",
        "category": "bolt",
        "split": "test",
        "defect_type": "dent",
    },
    {"image": "c.png", "label": "1", "mask": "", "category": "nut", "split": "", "defect_type": ""},
    {"image": "d.png", "label": "normal", "mask": "", "category": "bolt", "split": "", "defect_type": ""},
]


def as_csv(rows, delimiter=","):
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "".join(delimiter.join(line) + "\n" for line in lines)


def as_jsonl(rows):
    lines = [json.dumps({key: value or None for key, value in row.items()}) for row in rows]
    return "\n\n".join(lines)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.csv", as_csv(ROWS)),
        ("set.CSV", as_csv(ROWS, ";")),
        ("set.csv", "\ufeff" + as_csv(ROWS).replace("image", " Image ").replace("\n", "\r\n")),
        ("set.jsonl", as_jsonl(ROWS)),
        ("set.ndjson", as_jsonl(ROWS)),
    ],
)
def test_both_formats(name, text, tmp_path):
    path = tmp_path / name
    path.write_bytes(text.encode())
    dataset = open_dataset("manifest", path)
    assert (dataset.root, dataset.categories) == (path, ("bolt", "nut"))
    assert [(i.path, i.category, i.split, i.label, i.defect_type, i.mask) for i in dataset.items] == [
        (tmp_path / "a.png", "bolt", "train", "normal", "good", None),
        (tmp_path / "sub/b.png", "bolt", "test", "anomalous", "dent", tmp_path / "m/b.png"),
        (tmp_path / "d.png", "bolt", "test", "normal", "good", None),
        (tmp_path / "c.png", "nut", "test", "anomalous", "defect", None),
    ]
    assert [item.path.name for item in open_dataset("manifest", path, categories=["nut"]).items] == ["c.png"]


def test_pictures_that_are_not_there_are_kept_and_told(tmp_path, mini, caplog):
    mini.picture(tmp_path / "a.png")
    (tmp_path / "set.csv").write_text("image,label\na.png,0\ngone.png,1\n")
    dataset = open_dataset("manifest", tmp_path / "set.csv")
    assert dataset.missing() == (tmp_path / "gone.png",)
    assert f"names 1 files that are not there, as {tmp_path / 'gone.png'}" in caplog.text


def test_names_that_no_file_can_have(tmp_path):
    names = ["x" * 5000 + ".png", "nul\0.png"]
    (tmp_path / "set.jsonl").write_text("\n".join(json.dumps({"image": name, "label": 0}) for name in names))
    assert [path.name for path in open_dataset("manifest", tmp_path / "set.jsonl").missing()] == names


def test_absolute_paths_and_the_default_category(tmp_path):
    picture = tmp_path / "elsewhere" / "a.png"
    (tmp_path / "manifest.csv").write_text(f"image,label\n{picture},ok\n")
    dataset = open_dataset("manifest", tmp_path)  # its folder will do
    assert (dataset.categories, dataset.items[0].path) == (("object",), picture)
    assert open_dataset("manifest", tmp_path, categories=["steel bolt"]).items[0].category == "steel bolt"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "", r"s.csv: got the columns an empty file, need image, label: add image, label"),
        ("s.csv", "image\na.png\n", "s.csv: got the columns image, need image, label: add label"),
        ("s.csv", "image,label\n", "s.csv: no rows"),
        ("s.csv", "image,label\na.png,ok\nb.png,meh\n", "s.csv, line 3: got label 'meh', need one of normal, good"),
        ("s.csv", "image,label\na.png\n", "s.csv, line 2: got label ''"),
        ("s.csv", "image,label\n,ok\n", "s.csv, line 2: no image: name the picture's file"),
        ("s.csv", "image,label\na.png,ok,x\n", "s.csv, line 2: fields: 3, in the header 2"),
        ("s.csv", 'image,label\n"a.png,ok\n', "s.csv, line 2: not a table's row"),
        ("s.csv", "image,label,split\na.png,ok,val\n", "s.csv, line 2: got split 'val', need one of train, test"),
        ("s.csv", "image,label,mask\na.png,ok,m.png\n", "s.csv, line 2: labelled normal, but has the mask .*m.png"),
        ("s.csv", "image,label\na.png,ok\na.png,ko\n", "s.csv, line 3: .*a.png is already in line 2: keep one"),
        ("s.csv", b"image,label\n\xff,ok\n", r"s.csv: not UTF-8 text \(byte 12\)"),
        ("s.jsonl", '{"image": "a.png", "label": 0}\n{', "s.jsonl, line 2: not JSON"),
        ("s.jsonl", "[1]", r"s.jsonl, line 1: \[1\] is no object, need one with image, label"),
        ("s.jsonl", '{"image": "a.png"}', "s.jsonl, line 1: no label: need image, label"),
        ("s.jsonl", '{"image": null, "label": "ok"}', "s.jsonl, line 1: no image"),
        ("s.txt", "a.png", "s.txt: got a file ending in '.txt', need one of .csv, .jsonl"),
    ],
)
def test_wrong_lines_are_named(name, text, message, tmp_path):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SourceError, match=message):
        open_dataset("manifest", tmp_path / name)


def test_an_unknown_category_and_a_folder_without_manifest(tmp_path):
    with pytest.raises(SourceError, match=r"has no manifest.csv and no manifest.jsonl: name the manifest file"):
        open_dataset("manifest", tmp_path)
    for name, text in (("manifest.csv", as_csv(ROWS)), ("manifest.jsonl", as_jsonl(ROWS))):
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=r"has manifest.csv and manifest.jsonl: name the manifest file"):
        open_dataset("manifest", tmp_path)
    with pytest.raises(SourceError, match="got category 'screw', but it has: bolt, nut"):
        open_dataset("manifest", tmp_path / "manifest.csv", categories=["screw"])
