"""Manifests: CSV, JSON lines and Parquet to rows; what is wrong is named by file and line, and nothing is started."""

from __future__ import annotations

import decimal
import logging
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winspect.cluster import manifests
from winspect.cluster.inputs import find_inputs
from winspect.errors import SourceError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory moved to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(name: str, *columns: str, class_name: str | None = None) -> list[tuple]:
    table = find_inputs([name], class_name).table
    return list(zip(*(table.column(column).to_pylist() for column in columns), strict=True))


def refusal(name: str) -> str:
    with pytest.raises(SourceError) as caught:
        find_inputs([name])
    return str(caught.value)


CSV = {
    "plain": "path,class,id\na.png,nut,1\nsub/b.png,,2\n",
    "spreadsheet": "\ufeff Image ;Category;ID;remark\r\na.png;nut;1;\r\n\r\n sub/b.png ; ;2;x\r\n",
    "quoted": 'id,note,path,class\n1,"two\nlines","a.png",nut\n2,",",sub/b.png,\n',
}


@pytest.mark.parametrize("text", CSV.values(), ids=CSV)
def test_csv(here, text):
    (here / "m.CSV").write_bytes(text.encode())
    expected = [("1", str(here / "a.png"), "nut"), ("2", str(here / "sub/b.png"), "cloth")]
    assert rows_of("m.CSV", "id", "path", "class", class_name="cloth") == expected


@pytest.mark.parametrize("ending", ["jsonl", "ndjson"])
def test_json_lines(here, ending):
    lines = [
        '{"Image": "a.png", "category": "nut", "id": 7}',
        "",
        '{"path": "b\\u00e9.png", "id": 1.5, "other": {"x": []}}',
        '{"id": true, "class": null, "image": null, "path": "c.png"}',
    ]
    (here / f"m.{ending}").write_text("\n".join(lines))
    assert rows_of(f"m.{ending}", "id", "path", "class") == [
        ("7", str(here / "a.png"), "nut"),
        ("1.5", str(here / "bé.png"), "object"),
        ("true", str(here / "c.png"), "object"),
    ]


def test_names_count_from_the_manifests_folder(here):
    (here / "sub").mkdir()
    names = ["a.png", "./b.png", "../c.png", "d//e.png", "/f.png", "/g/../h.png", "s3://bucket/i.png", "..j.png", "k é"]
    (here / "sub" / "m.csv").write_text("\n".join(["path", *names]))
    expected = [
        (names[0], str(here / "sub/a.png")),
        (names[1], str(here / "sub/b.png")),
        (names[2], str(here / "c.png")),
        (names[3], str(here / "sub/d/e.png")),
        (names[4], "/f.png"),
        (names[5], "/h.png"),
        (names[6], "s3://bucket/i.png"),
        (names[7], str(here / "sub/..j.png")),
        (names[8], str(here / "sub/k é")),
    ]
    assert rows_of("sub/m.csv", "id", "path") == expected


def test_classes_in_order_of_appearance_as_words(here):
    (here / "m.csv").write_text("path,class\na,pipe_fryum\nb,nut\nc,pipe  fryum\nd,\n")
    assert find_inputs(["m.csv"], "metal_nut").classes == ("pipe fryum", "nut", "metal nut")


def test_parquet_with_paths_and_ids_of_any_scalar_type(here):
    columns = {
        "int": pa.array([1, 2]),
        "text": pa.array(["a", "b"], pa.large_string()),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "decimal": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25")]),
        "date": pa.array([0, 1], pa.date32()),
    }
    expected = [("1", "2"), ("a", "b"), ("a", "b"), ("1.50", "2.25"), ("1970-01-01", "1970-01-02")]
    for values, ids in zip(columns.values(), expected, strict=True):
        pq.write_table(pa.table({"image": ["x.png", "y.png"], "id": values, "class": [None, "nut"]}), "m.parquet")
        rows = rows_of("m.parquet", "id", "path", "class", "file")
        assert rows == [(ids[0], str(here / "x.png"), "object", None), (ids[1], str(here / "y.png"), "nut", None)]


@pytest.mark.parametrize("name", ["bytes", "image", "picture"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_pictures_in_a_parquet_file(here, name, kind):
    pq.write_table(pa.table({name: pa.array([b"1", b"2"], kind)}), "m.parquet")
    file = str(here / "m.parquet")
    expected = [("m.parquet:0", None, file, 0, name), ("m.parquet:1", None, file, 1, name)]
    assert rows_of("m.parquet", "id", "path", "file", "row", "column") == expected


def test_pictures_as_hugging_face_datasets_hold_them(here):
    images = [{"bytes": b"1", "path": "a.png"}, {"bytes": b"2", "path": None}, {"bytes": b"3", "path": "c.png"}]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2]}), "m.parquet", row_group_size=2)
    file = str(here / "m.parquet")
    assert rows_of("m.parquet", "id", "path", "file", "row", "column") == [
        ("a.png", "a.png", file, 0, "image.bytes"),
        ("m.parquet:1", None, file, 1, "image.bytes"),
        ("c.png", "c.png", file, 2, "image.bytes"),
    ]


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_with_a_picture_among_rows_with_a_path(here, statistics):
    table = pa.table({"path": ["a", "b", "c", "d", None], "bytes": [None, b"1", None, None, b"2"]})
    pq.write_table(table, "m.parquet", row_group_size=2, write_statistics=statistics)
    expected = [("a", None), ("b", 1), ("c", None), ("d", None), ("m.parquet:4", 4)]
    assert rows_of("m.parquet", "id", "row") == expected
    assert rows_of("m.parquet", "path")[:2] == [(str(here / "a"),), ("b",)]


def test_pictures_are_not_read_while_planning(here):
    """Those of this file cannot be."""
    content = [bytes([row]) * 1000 for row in range(20)]
    options = {"row_group_size": 5, "compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"bytes": content, "id": range(20)}), "m.parquet", **options)
    start = pq.ParquetFile("m.parquet").metadata.row_group(1).column(0).data_page_offset
    damaged = bytearray((here / "m.parquet").read_bytes())
    damaged[start : start + 30] = b"\xff" * 30
    (here / "m.parquet").write_bytes(damaged)
    with pytest.raises(OSError, match="hrift"):
        pq.read_table("m.parquet")
    assert rows_of("m.parquet", "id", "row") == [(str(row), row) for row in range(20)]


def test_large_row_groups_are_reported(here, monkeypatch, caplog):
    pq.write_table(pa.table({"bytes": [b"1"]}), "m.parquet")
    monkeypatch.setattr(manifests, "_LARGE_GROUP", 1)
    with caplog.at_level(logging.WARNING):
        find_inputs(["m.parquet"])
    assert "m.parquet: a row group holds 0.0 GB of pictures" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "", "m.csv: no rows: write one per picture"),
        ("m.csv", "path,class\n", "m.csv: no rows"),
        ("m.csv", "name,label\na,b\n", "m.csv: got the columns name, label, need path (or image or file): add it"),
        ("m.csv", "path\n\xff\n", "m.csv: not UTF-8 text, probably Windows-1252 (cp1252), where the byte 0xFF is 'ÿ'"),
        ("m.jsonl", "\n \n", "m.jsonl: no rows"),
        (
            "m.jsonl",
            '{"name": 1, "label": 2}',
            "m.jsonl: got the columns name, label, need path (or image or file): add it",
        ),
        (
            "m.jsonl",
            '{"path": "a"}\n{"path": "b", "id": 1}',
            "1 row cannot be used, mend or remove them: m.jsonl, line 1: the id is empty",
        ),
        ("m.parquet", "PAR1", "m.parquet: not a Parquet file, or cut off: write it again"),
        ("m.parquet", "path\na.png\n", "m.parquet: not a Parquet file"),
        ("m.parquet", "", "m.parquet: not a Parquet file"),
    ],
)
def test_files_that_are_no_manifests(here, name, text, message):
    (here / name).write_bytes(text.encode("latin-1"))
    assert message in refusal(name)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("m.csv", "path,class\na,b\nc\n", "line 3: fields: 1, in the header 2"),
        ("m.csv", "path,class\na,b,c\n", "line 2: fields: 3, in the header 2"),
        ("m.csv", 'path\na\n"b\n', "line 3: not a table's row"),
        ("m.csv", "path,x\na,1\n ,2\n", "line 3: no path"),
        ("m.csv", "path,id\na,\n", "line 2: the id is empty"),
        ("m.csv", 'path,x\na,"1\n2"\n,\n', "line 4: no path"),
        ("m.csv", "path\nhttps://host/a.png\n", "line 2: no such scheme here, use a path or abfs://"),
        ("m.csv", "path\ns3://key:hush@bucket/a.png\n", "line 2: its URI holds a password"),
        ("m.csv", "path,class\na,nut\nb,{}\n", "line 3: got the class name '{}'"),
        ("m.csv", f"path,class\na,{'x' * 101}\n", "line 2: got a class name of 101 characters"),
        ("m.jsonl", '{"path": "a"}\n{"path": "b"\n', "line 2: not JSON"),
        ("m.jsonl", '{"path": "a"}\n["b"]\n', 'line 2: ["b"] is no object'),
        ("m.jsonl", '{"path": "a"}\n{"path": 7}\n', "line 2: path is 7, need text"),
        ("m.jsonl", '{"path": "a"}\n{"path": ["b"]}\n', 'line 2: path is ["b"], need text'),
        ("m.jsonl", '{"path": "a"}\n{"class": "b"}\n', "line 2: no path"),
        ("m.jsonl", '{"path": "a", "id": null}\n', "line 1: the id is empty"),
        ("m.jsonl", '{"path": "a", "id": [1]}\n', "line 1: id is [1], need text or a number"),
        ("m.jsonl", '{"path": "\\ud800.png"}\n', "line 1: 'utf-8' codec can't encode"),
        ("m.jsonl", '{"path": ' + "[" * 100_000 + "\n", "line 1: not JSON"),
    ],
)
def test_rows_that_cannot_be_used(here, name, text, problem):
    (here / name).write_text(text)
    message = refusal(name)
    assert message.startswith("1 row cannot be used, mend or remove them: ")
    assert f"{name}, {problem}" in message
    assert "hush" not in message


def test_five_bad_rows_are_named_and_all_counted(here):
    (here / "a.csv").write_text("path,x\n" + "a,1\n,2\n" * 4)
    (here / "b.jsonl").write_text("{\n" * 3)
    with pytest.raises(SourceError) as caught:
        find_inputs(["a.csv", "b.jsonl"])
    assert str(caught.value).startswith("7 rows cannot be used")
    assert [f"a.csv, line {line}: no path" in str(caught.value) for line in (3, 5, 7, 9)] == [True] * 4
    assert "b.jsonl, line 1: not JSON" in str(caught.value)
    assert str(caught.value).endswith("; and 2 more")


def test_ids_that_begin_late_are_refused(here):
    """Rows without one are called after their paths, long before the first id is read."""
    lines = [f'{{"path": "{row}.png"}}' for row in range(5000)]
    (here / "m.jsonl").write_text("\n".join([*lines, '{"path": "a.png", "id": 1}']))
    assert refusal("m.jsonl") == "m.jsonl: the first 4096 rows have no id, later ones do: add it to all"


def test_parquet_files_that_cannot_be_used(here):
    pq.write_table(pa.table({"name": ["a"], "size": [1]}), "columns.parquet")
    assert "got the columns name (string), size (int64), need path or image (text)" in refusal("columns.parquet")
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), "empty.parquet")
    assert "empty.parquet: no rows" in refusal("empty.parquet")
    pq.write_table(pa.table({"path": ["a"], "id": [[1]]}), "list.parquet")
    assert refusal("list.parquet").startswith("list.parquet: column id is list<")
    pq.write_table(pa.table({"path": ["a", None], "bytes": pa.array([None, None], pa.binary())}), "none.parquet")
    assert "none.parquet, row 1: no path and no picture" in refusal("none.parquet")
    pq.write_table(pa.table({"path": ["a", "b"], "id": ["1", None]}), "null.parquet")
    assert "null.parquet, row 1: the id is empty" in refusal("null.parquet")


def test_a_parquet_file_that_is_cut_off_or_damaged(here):
    pq.write_table(pa.table({"path": [f"{row}.png" for row in range(1000)]}), "m.parquet", compression="none")
    whole = (here / "m.parquet").read_bytes()
    (here / "m.parquet").write_bytes(whole[:-20])
    assert "m.parquet: not a Parquet file, or cut off: write it again" in refusal("m.parquet")
    (here / "m.parquet").write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    assert "m.parquet: damaged or cut off (" in refusal("m.parquet")


def test_a_manifest_that_is_no_stored_file(here):
    """Opening it would wait for another program."""
    os.mkfifo("m.csv")
    assert refusal("m.csv") == "m.csv: a named pipe, need a file: copy its content to a file"
