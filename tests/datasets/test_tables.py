"""Tables as other programs save them: `evaluate` and `batch` read the same files in the same way."""

from __future__ import annotations

import json
import logging

import pytest

from winspect.cluster.inputs import find_inputs
from winspect.datasets import open_dataset
from winspect.errors import SourceError

NAMES = ("plain.png", "line\u2028separator.png", "next\u0085line.png", "comma, and; both.png", "été.png")


def csv_text(separator: str, *, newline: str = "\n", picture: str = "path") -> str:
    quoted = [f'"{name}"' for name in NAMES]
    return newline.join([f"{picture}{separator}Label", *(f"{name}{separator}ok" for name in quoted)]) + newline


def jsonl_text(*, picture: str = "Image", newline: str = "\n") -> str:
    return newline.join(json.dumps({picture: name, "LABEL": 0.0}, ensure_ascii=False) for name in NAMES)


FILES = {
    "commas": ("t.csv", csv_text(",").encode()),
    "semicolons": ("t.csv", csv_text(";", picture="FILE").encode()),
    "tabs": ("t.CSV", csv_text("\t").encode()),
    "sep line": ("t.csv", ("sep=;\r\n" + csv_text(";", newline="\r\n")).encode()),
    "odd separator": ("t.csv", ("sep=|\n" + csv_text("|")).encode()),
    "mark": ("t.csv", b"\xef\xbb\xbf" + csv_text(";").encode()),
    "UTF-16 of a spreadsheet": ("t.csv", csv_text("\t", newline="\r\n").encode("utf-16")),
    "UTF-16, big end first": ("t.csv", b"\xfe\xff" + csv_text(",").encode("utf-16-be")),
    "UTF-16 without a mark": ("t.csv", csv_text(",").encode("utf-16-le")),
    "JSON lines": ("t.jsonl", jsonl_text().encode()),
    "JSON lines of Windows": ("t.ndjson", b"\xef\xbb\xbf" + jsonl_text(picture="FILE", newline="\r\n").encode()),
    "JSON lines in UTF-16": ("t.jsonl", jsonl_text().encode("utf-16")),
}


@pytest.mark.parametrize(("name", "data"), FILES.values(), ids=FILES)
def test_every_way_to_save_a_table_reads_the_same(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    items = open_dataset("manifest", tmp_path / name).items
    assert [(item.path.name, item.label) for item in items] == [(name, "normal") for name in NAMES]
    batch = find_inputs([str(tmp_path / name)])
    assert batch.table["path"].to_pylist() == [str(tmp_path / name) for name in NAMES]


def test_lines_are_counted_with_the_separator_line(tmp_path):
    (tmp_path / "t.csv").write_text("sep=;\npath;label\na.png;ok\nb.png;maybe\n")
    with pytest.raises(SourceError, match=r"t.csv, line 4: got label 'maybe'"):
        open_dataset("manifest", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("sep=;\npath;class\na.png;nut\nb.png\n")
    with pytest.raises(SourceError, match=r"t.csv, line 4: fields: 1, in the header 2: quote fields that hold a ';'"):
        find_inputs([str(tmp_path / "t.csv")])


def test_an_older_encoding_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes("path,label\nété.png,ok\n".encode("cp1252"))
    expected = r"t.csv: not UTF-8 text.*Windows-1252 \(cp1252\), where the byte 0xE9 is 'é': save it as UTF-8"
    for read in (lambda path: open_dataset("manifest", path), lambda path: find_inputs([str(path)])):
        with pytest.raises(SourceError, match=expected):
            read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (("good", "OK", "pass", "normal", "0", "0.0", "Non-defective"), "normal"),
        (("bad", "NG", "defect", "abnormal", "anomaly", "1", "1.0", "not ok"), "anomalous"),
    ],
)
def test_labels_as_people_write_them(tmp_path, words, label):
    rows = [f"{number}.png,{word}" for number, word in enumerate(words)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    assert {item.label for item in open_dataset("manifest", tmp_path / "t.csv").items} == {label}
    with_numbers = [{"file": f"{number}.png", "label": value} for number, value in enumerate((0, 0.0, False))]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, with_numbers)))
    assert {item.label for item in open_dataset("manifest", tmp_path / "t.jsonl").items} == {"normal"}


def test_names_with_windows_separators(tmp_path, mini, caplog):
    for name in ("sub/a.png", "sub/b.png", "odd\\name.png"):
        mini.picture(tmp_path / name)
    mini.mask(tmp_path / "masks/b.png")
    rows = ["path,label,mask", "sub\\a.png,ok,", "sub\\b.png,ng,masks\\b.png", "odd\\name.png,ok,", "no\\such.png,ok,"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    expected = [tmp_path / "sub/a.png", tmp_path / "sub/b.png", tmp_path / "odd\\name.png", tmp_path / "no\\such.png"]
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset("manifest", tmp_path / "t.csv")
    assert [item.path for item in dataset.items] == expected
    assert dataset.items[1].mask == tmp_path / "masks/b.png"
    messages = [record.getMessage() for record in caplog.records if "read as /" in record.getMessage()]
    assert messages == [f"{tmp_path / 't.csv'}: \\ read as / in 3 file names, as in sub\\a.png"]

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        table = find_inputs([str(tmp_path / "t.csv")]).table
    assert table["path"].to_pylist() == [str(path) for path in expected]
    assert table["id"].to_pylist()[0] == "sub\\a.png"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 't.csv'}: \\ read as / in 2 file names, as in sub\\a.png"
    ]
