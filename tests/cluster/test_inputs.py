"""SOURCE to one table: every kind of source, order, ids, repeats, and what is refused."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winspect.cluster.inputs import Inputs, find_inputs
from winspect.errors import ClassNameError, SourceError

NAMES = ("p/img10.jpg", "p/img2.JPG", "p/sub/x y.png", "p/.hidden.png", "p/notes.txt")
IN_ORDER = ["p/img2.JPG", "p/img10.jpg", "p/sub/x y.png"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of pictures, and the working directory moved there."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def column(inputs: Inputs, name: str) -> list:
    return inputs.table.column(name).to_pylist()


def write_parquet(name: str, **columns: list) -> None:
    pq.write_table(pa.table(columns), name)


def test_a_folder_in_natural_order_with_ids_as_found_and_absolute_paths(here):
    inputs = find_inputs(["p"], "pipe_fryum")
    assert column(inputs, "id") == IN_ORDER
    assert column(inputs, "path") == [str(here / name) for name in IN_ORDER]
    assert column(inputs, "class") == ["pipe fryum"] * 3
    assert inputs.classes == ("pipe fryum",)
    assert len(inputs) == 3
    assert column(inputs, "file") == column(inputs, "row") == column(inputs, "column") == [None] * 3
    assert inputs.table.column_names == ["id", "path", "class", "file", "row", "column"]
    assert inputs.table.schema.field("class").type == pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["p/notes.txt"], ["p/notes.txt"]),
        (["p/*.jpg"], ["p/img10.jpg"]),
        (["p/**/*.png"], ["p/sub/x y.png"]),
        (["p/img10.jpg", "p", "./p/sub"], ["p/img10.jpg", "p/img2.JPG", "p/sub/x y.png"]),
    ],
)
def test_files_and_globs_each_picture_once(here, sources, expected):
    assert column(find_inputs(sources), "id") == expected


def test_a_path_is_absolute_and_not_resolved(here):
    (here / "link").symlink_to(here / "p")
    assert column(find_inputs(["./p/../link"]), "path")[0] == str(here / "link" / "img2.JPG")


def test_a_file_uri_is_the_path_it_stands_for(here):
    inputs = find_inputs([f"{(here / 'p' / 'sub').as_uri()}"])
    assert column(inputs, "path") == column(inputs, "id") == [str(here / "p/sub/x y.png")]


def test_without_a_class_name_it_is_an_object(here):
    assert find_inputs(["p"]).classes == ("object",)
    with pytest.raises(ClassNameError, match="braces"):
        find_inputs(["p"], "{}")


def test_pictures_and_manifests_in_the_order_given(here):
    (here / "m.csv").write_text("path,class\na.png,bolt\n")
    (here / "n.jsonl").write_text('{"path": "b.png", "class": "nut"}\n')
    inputs = find_inputs(["m.csv", "p/sub", "n.jsonl", "m.csv"], "cloth")
    assert column(inputs, "id") == ["a.png", "p/sub/x y.png", "b.png"]
    assert inputs.classes == ("bolt", "cloth", "nut")


def test_several_manifests_one_after_the_other(here):
    for number in (10, 9):
        (here / f"m{number}.csv").write_text(f"path\n{number}.png\n")
    assert column(find_inputs(["m*.csv"]), "id") == ["9.png", "10.png"]


@pytest.mark.parametrize("source", ["data", "data/*.parquet", "data/part*", "dat?"])
def test_parquet_files_of_a_folder_or_a_glob(here, source):
    os.makedirs("data")
    for number in (10, 9):
        write_parquet(f"data/part-{number}.parquet", path=[f"{number}.png"])
    write_parquet("data/_metadata.parquet", path=["no.png"])
    inputs = find_inputs([source])
    expected = ["9.png", "10.png"] if source != "data/*.parquet" else ["no.png", "9.png", "10.png"]
    assert column(inputs, "id") == expected
    assert column(inputs, "path") == [str(here / "data" / name) for name in expected]


def test_a_folder_with_pictures_and_parquet_is_a_folder_of_pictures(here):
    write_parquet("p/meta.parquet", path=["no.png"])
    assert column(find_inputs(["p"]), "id") == IN_ORDER


def test_results_are_no_inputs(here):
    before = find_inputs(["p"])
    os.makedirs("p/out/_maps/deep")
    for name in ("p/out/_maps/1.png", "p/out/_maps/deep/2.png", "p/out/mine.png"):
        (here / name).write_bytes(b"x")
    assert column(find_inputs(["p"], leave_out="p/out"), "id") == [*IN_ORDER[:2], "p/out/mine.png", IN_ORDER[2]]
    (here / "p/out/mine.png").unlink()
    assert find_inputs(["p"], leave_out=(here / "p" / "out").as_uri()).sha256 == before.sha256
    assert len(find_inputs(["p"])) == 5
    with pytest.raises(SourceError, match="no pictures in p/out/_maps"):
        find_inputs(["p/out/_maps"], leave_out="p/out")


def test_results_reached_by_a_link_are_no_inputs(here):
    os.makedirs("p/out/_maps")
    (here / "p/out/_maps/1.png").write_bytes(b"x")
    (here / "link").symlink_to(here / "p")
    assert len(find_inputs(["link"], leave_out="p/out")) == 3


def test_parquet_results_are_no_manifests(here):
    os.makedirs("data/out/_maps")
    write_parquet("data/in.parquet", path=["a.png"])
    write_parquet("data/out/part-00000.parquet", path=["result.png"])
    (here / "data/out/_maps/1.png").write_bytes(b"x")
    for source in ("data", "data/*", "data/**/*.parquet"):
        assert column(find_inputs([source], leave_out="data/out"), "id") == ["a.png"]
    with pytest.raises(SourceError, match="no pictures in data/out: check"):
        find_inputs(["data/out"], leave_out="data/out")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "name at least one"),
        ([""], "name at least one"),
        (["nothing"], "'nothing': no such file or folder"),
        (["nothing.csv"], "'nothing.csv': no such file or folder"),
        (["*.gif"], "matches no pictures"),
        (["*.ndjson"], "matches no manifests"),
        (["empty"], "no pictures in empty"),
        (["ftp://host/a.png"], "its scheme is not one of abfs://"),
        (["s3:///a.png"], "names no bucket"),
        (["file://host/a.png"], "file:///FOLDER"),
        (["s3://key:word@bucket/a.png"], "'s3://key@bucket/a.png': holds a password"),
        (["abfs://c@a.dfs.core.windows.net/x?client_secret=word"], "holds a password"),
    ],
)
def test_sources_that_cannot_be_used(here, sources, message):
    (here / "empty").mkdir()
    with pytest.raises(SourceError, match=message) as caught:
        find_inputs(sources)
    assert "word@" not in str(caught.value)
    assert "=word" not in str(caught.value)


def test_a_name_no_table_can_hold(here):
    os.makedirs("q")
    try:
        (here / "q" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(SourceError, match=r"q/\\udcff.png.*not UTF-8.*rename"):
        find_inputs(["q"])


def test_repeated_ids_are_named_with_both_places(here):
    (here / "m.csv").write_text("path,id\na,1\nb,2\nc,1\nd,2\ne,1\n")
    with pytest.raises(SourceError) as caught:
        find_inputs(["m.csv"])
    assert "3 rows have ids that came before" in str(caught.value)
    assert "'1' (m.csv, line 2 and m.csv, line 4); '2' (m.csv, line 3 and m.csv, line 5)" in str(caught.value)


def test_five_repeated_ids_are_named(here):
    lines = [f"{row % 7}.png" for row in range(14)]
    (here / "m.csv").write_text("\n".join(["path", *lines]))
    with pytest.raises(SourceError, match=r"7 rows .*'4.png' \(m.csv, line 6 and m.csv, line 13\); and 2 more ids$"):
        find_inputs(["m.csv"])


def test_an_id_of_a_picture_and_of_a_row(here):
    (here / "m.csv").write_text("path,id\na,p/img2.JPG\n")
    with pytest.raises(SourceError, match=rf"'p/img2.JPG' \({here}/p/img2.JPG and m.csv, line 2\)"):
        find_inputs(["p", "m.csv"])


def test_the_hash_tells_inputs_apart_and_not_chunks(here):
    (here / "m.csv").write_text("path,id\n" + "".join(f"{row}.png,{row}\n" for row in range(9)))
    for part in range(3):
        rows = range(3 * part, 3 * part + 3)
        (here / f"part{part}.csv").write_text("path,id\n" + "".join(f"{row}.png,{row}\n" for row in rows))
    whole, parts = find_inputs(["m.csv"]), find_inputs(["part*.csv"])
    assert whole.table.column("id").num_chunks < parts.table.column("id").num_chunks
    assert whole.sha256 == parts.sha256
    assert len(whole.sha256) == 64
    others = [find_inputs(["m.csv"], "nut"), find_inputs([f"part{part}.csv" for part in (1, 0, 2)])]
    (here / "m.csv").write_text("path,id\n" + "".join(f"{row}.png,{row}\n" for row in range(8)) + "8.png,9\n")
    others.append(find_inputs(["m.csv"]))
    assert len({whole.sha256, *(other.sha256 for other in others)}) == 4


def test_rows_are_those_asked_for_with_their_ordinals(here):
    (here / "m.csv").write_text("path,class\n" + "".join(f"{row}.png,nut\n" for row in range(10)))
    inputs = find_inputs(["m.csv"])
    rows = inputs.rows(range(4, 7))
    assert [(row["ordinal"], row["id"], row["class"]) for row in rows] == [(at, f"{at}.png", "nut") for at in (4, 5, 6)]
    assert [row["file"] for row in rows] == [None] * 3
    assert inputs.rows(range(10, 10)) == []


def test_a_hundred_thousand_rows_take_a_moment(here):
    (here / "m.csv").write_text("path,class,id\n" + "".join(f"a/{row}.png,nut,{row}\n" for row in range(100_000)))
    start = time.perf_counter()
    inputs = find_inputs(["m.csv"])
    assert len(inputs.rows(range(99_500, 100_000))) == 500 and len(inputs) == 100_000
    assert time.perf_counter() - start < 5  # 0.3 s on an idle core
    assert column(inputs, "path")[-1] == str(here / "a" / "99999.png")
