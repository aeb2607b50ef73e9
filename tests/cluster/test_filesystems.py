"""URIs: what they are, opening, listing, reading; pictures embedded in Parquet files; failures as values."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from winspect.cluster import filesystems, pictures
from winspect.cluster.filesystems import is_uri, list_folder, local_path, named, open_place
from winspect.cluster.inputs import find_inputs
from winspect.cluster.pictures import pictures_of
from winspect.errors import PictureError, SourceError
from winspect.pictures.find import find_pictures

QUERY = "?region=eu-central-1&scheme=http"


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
    """A folder that ``s3://bucket`` stands for, with the settings of QUERY and no others."""
    folder = tmp_path / "store" / "bucket"
    folder.mkdir(parents=True)
    system = fs.SubTreeFileSystem(str(tmp_path / "store"), fs.LocalFileSystem())

    def root(head: str, query: str) -> tuple[fs.FileSystem, str]:
        if (head, query) != ("s3://bucket/", QUERY):
            raise OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body.")
        return system, "bucket/"

    monkeypatch.setattr(filesystems, "_opened_root", root)
    return folder


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def inputs_of(*sources: str) -> list[dict]:
    inputs = find_inputs(sources)
    return inputs.rows(range(len(inputs)))


def column(rows: list[dict], name: str) -> list:
    return [row[name] for row in rows]


@pytest.mark.parametrize("text", ["s3://bucket/a", "gs://b", "abfs://c@a.net/x", "hdfs://h:8020/x", "FILE:///x"])
def test_uris(text):
    assert is_uri(text)


@pytest.mark.parametrize("text", ["C:/a.png", "C://a.png", "c:\\a.png", "/a/b.png", "a.png", "s3:/x", "a/b://c", ""])
def test_paths(text):
    assert not is_uri(text)
    assert named(text) == local_path(text) == text


def test_what_a_place_is_called():
    assert named("s3://key:word@bucket/a b.png?region=x") == "s3://key@bucket/a b.png"
    assert named("hdfs://host:8020/a@b.png") == "hdfs://host:8020/a@b.png"
    assert local_path("file:///a%20b/c.png") == "/a b/c.png"
    assert local_path("file:///C:/x.png") == "C:/x.png"
    assert local_path("s3://bucket/x") is None


def test_local_places_open(tmp_path):
    (tmp_path / "a b").mkdir()
    for place in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        system, path = open_place(place)
        assert system.get_file_info(path).type == fs.FileType.Directory
        assert path == str(tmp_path / "a b")


@pytest.mark.parametrize("uri", ["mock:///a/b%20c", "mock:///"])
def test_a_store_that_arrow_opens(uri):
    system, path = open_place(uri.replace("mock:///", "mock://host/"))
    assert system.type_name == "mock"
    assert path == fs.FileSystem.from_uri(uri)[1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("When reading: AWS Error ACCESS_DENIED during HeadObject"), "access denied: give the store's"),
        (OSError("AWS Error NETWORK_CONNECTION: curlCode: 6, Could not resolve host"), "the store cannot be reached"),
        (OSError("Unable to load libjvm dlopen(/usr/lib)"), "hdfs:// needs Java"),
        (OSError("AWS Error NO_SUCH_BUCKET during GetObject"), "no such bucket"),
        (FileNotFoundError(2, "Path does not exist 'bucket/x'"), "no such file"),
        (PermissionError(13, "Permission denied"), "access denied: give yourself the right"),
        (pa.ArrowInvalid("Unrecognized filesystem type in URI: x://y"), "its scheme is not one of"),
        (pa.ArrowInvalid("something\n else"), "cannot be opened (something else)"),
    ],
)
def test_reasons_are_short(error, reason):
    assert filesystems.reason_of(error).startswith(reason)
    assert "AWS" not in filesystems.reason_of(error)


def test_listing_a_uri_is_searching_a_folder(bucket):
    fill(
        bucket, "b10.png", "b9.PNG", "a/é 1?#%.jpg", "a/deep/2.tif", "a2.png", "A1.png", "n.txt", ".h.png", "x/.y/z.png"
    )
    keys = list_folder("s3://bucket" + QUERY)
    assert keys == [str(path.relative_to(bucket)) for path in find_pictures(bucket)]
    assert keys == ["a/deep/2.tif", "a/é 1?#%.jpg", "A1.png", "a2.png", "b9.PNG", "b10.png"]
    assert list_folder("s3://bucket/a/" + QUERY) == ["a/deep/2.tif", "a/é 1?#%.jpg"]


def test_a_picture_of_any_ending_in_a_store(bucket, caplog):
    fill(bucket, "p/a.png", "p/b.JFIF", "p/n.txt", "p/Thumbs.db", "p/rows.parquet")
    (bucket / "p" / "c.raw").write_bytes(b"\xff\xd8\xff\xe0")
    (bucket / "p" / "d.raw").write_bytes(b"none")
    assert list_folder("s3://bucket/p" + QUERY, (".parquet",)) == ["p/a.png", "p/b.JFIF", "p/c.raw", "p/rows.parquet"]
    assert "s3://bucket/p: 2 files left out: .raw 1, .txt 1" in caplog.text


def test_a_folder_of_a_store(bucket):
    fill(bucket, "p/b10.png", "p/b9.png", "p/é ?#%25.png", "p/n.txt")
    inputs = find_inputs(["s3://bucket/p" + QUERY, "s3://bucket/p/b9.png" + QUERY], "nut")
    names = ["s3://bucket/p/b9.png", "s3://bucket/p/b10.png", "s3://bucket/p/%C3%A9%20%3F%23%2525.png"]
    assert inputs.table.column("id").to_pylist() == names
    assert inputs.table.column("path").to_pylist() == [name + QUERY for name in names]
    content = [b"p/b9.png", b"p/b10.png", "p/é ?#%25.png".encode()]
    assert list(pictures_of(inputs.rows(range(3)))) == content


def test_a_manifest_in_a_store(bucket):
    fill(bucket, "m/a b.png", "c.png")
    (bucket / "m" / "m.csv").write_text("path\na b.png\n../c.png\n./none.png\n/local.png\ns3://other/d.png\n")
    rows = inputs_of("s3://bucket/m/m.csv" + QUERY)
    assert column(rows, "path") == [
        "s3://bucket/m/a%20b.png" + QUERY,
        "s3://bucket/c.png" + QUERY,
        "s3://bucket/m/none.png" + QUERY,
        "/local.png",
        "s3://other/d.png",
    ]
    assert column(rows, "id")[:2] == ["a b.png", "../c.png"]
    first, second, missing, local, denied = pictures_of(rows)
    assert (first, second, local) == (b"m/a b.png", b"c.png", "/local.png")
    assert str(missing) == "s3://bucket/m/none.png: no such file: check the path"
    assert str(denied).startswith("s3://other/d.png: access denied")


def test_parquet_files_in_a_store(bucket):
    (bucket / "d").mkdir()
    for name in ("part-10", "part-9", "_metadata"):
        pq.write_table(pa.table({"bytes": [name.encode()]}), bucket / "d" / f"{name}.parquet")
    for source in ("s3://bucket/d", "s3://bucket/"):
        rows = inputs_of(source + QUERY)
        assert column(rows, "id") == ["s3://bucket/d/part-9.parquet:0", "s3://bucket/d/part-10.parquet:0"]
        assert column(rows, "file")[0] == "s3://bucket/d/part-9.parquet" + QUERY
        assert list(pictures_of(rows)) == [b"part-9", b"part-10"]


def test_results_in_a_store_are_no_inputs(bucket):
    fill(bucket, "p/a.png", "p/out/_maps/b.png")
    inputs = find_inputs(["s3://bucket/p" + QUERY], leave_out="s3://bucket/p/out" + QUERY)
    assert inputs.table.column("id").to_pylist() == ["s3://bucket/p/a.png"]
    for name in ("q/in", "q/out/part-00000"):
        fill(bucket, f"{name}.parquet", "q/out/_maps/b.png")
        pq.write_table(pa.table({"path": [f"{name}.png"]}), bucket / f"{name}.parquet")
    inputs = find_inputs(["s3://bucket/q" + QUERY], leave_out="s3://bucket/q/out/" + QUERY)
    assert inputs.table.column("id").to_pylist() == ["q/in.png"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket/none" + QUERY, "'s3://bucket/none': no such file or folder"),
        ("s3://bucket/none.csv" + QUERY, "no such file or folder"),
        ("s3://bucket/*.png" + QUERY, "a pattern in a URI is not searched: name the folder"),
        ("s3://bucket/empty" + QUERY, "no pictures in s3://bucket/empty: looked for"),
        ("s3://other/a.png" + QUERY, "'s3://other/a.png': access denied"),
    ],
)
def test_uris_that_cannot_be_used(bucket, uri, message):
    fill(bucket, "empty/n.txt")
    with pytest.raises(SourceError) as caught:
        find_inputs([uri])
    assert message in str(caught.value)
    assert "AWS" not in str(caught.value)


def picture_at(*paths: str) -> list:
    found = pictures_of([{"id": path, "path": path, "file": None, "column": None} for path in paths])
    return [str(picture) if isinstance(picture, PictureError) else picture for picture in found]


def test_one_picture(bucket, monkeypatch):
    fill(bucket, "a.png")
    found = picture_at("/nowhere/a.png", "file:///nowhere/a%20b.png", "s3://bucket/a.png" + QUERY)
    assert found == ["/nowhere/a.png", "/nowhere/a b.png", b"a.png"]
    (secret,) = picture_at("s3://key:word@bucket/a.png")
    assert secret.startswith("s3://key@bucket/a.png: holds a password")
    monkeypatch.setattr(pictures, "MAX_BYTES", 4)
    assert picture_at("s3://bucket/a.png" + QUERY) == ["s3://bucket/a.png: 0 MiB, at most 0 are read: reduce it"]


def test_a_picture_under_a_scheme_nobody_opens():
    assert picture_at("ftp://host/a.png")[0].startswith("ftp://host/a.png: its scheme is not one of")


@pytest.fixture
def parquet(tmp_path) -> str:
    """Thirty pictures in row groups of ten, as Hugging Face datasets hold them."""
    images = [{"bytes": b"%d" % row, "path": f"{row}.png"} for row in range(30)]
    pq.write_table(pa.table({"image": images}), tmp_path / "m.parquet", row_group_size=10)
    return str(tmp_path / "m.parquet")


def test_embedded_pictures_each_row_group_once(parquet, monkeypatch):
    inputs = find_inputs([parquet])
    read: list[tuple] = []
    plain = pq.ParquetFile.iter_batches

    def watched(self, *arguments, row_groups, columns, **options):
        read.append((*row_groups, *columns))
        return plain(self, *arguments, row_groups=row_groups, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    rows = [row for span in (range(3, 5), range(9, 12), range(29, 30)) for row in inputs.rows(span)]
    assert list(pictures_of(rows)) == [b"3", b"4", b"9", b"10", b"11", b"29"]
    assert read == [(group, "image.bytes") for group in range(3)]


def test_embedded_pictures_between_files(parquet, tmp_path):
    (tmp_path / "m.csv").write_text("path\n1.bmp\n")
    rows = inputs_of(parquet, str(tmp_path / "m.csv"))
    assert list(pictures_of([rows[at] for at in [0, 30, 1]])) == [b"0", str(tmp_path / "1.bmp"), b"1"]


def failures(rows: list[dict]) -> list[str]:
    found = list(pictures_of(rows))
    assert len(found) == len(rows)
    return [str(picture) if isinstance(picture, PictureError) else picture for picture in found]


def test_a_file_that_is_gone_fails_row_by_row(parquet):
    rows = inputs_of(parquet)[:2]
    Path(parquet).unlink()
    assert failures(rows) == [f"{row}.png: {parquet}: no such file: check the path" for row in range(2)]


def test_a_file_that_has_changed_fails_row_by_row(parquet):
    rows = inputs_of(parquet)[8:12]
    pq.write_table(pa.table({"image": [{"bytes": b"new", "path": None}] * 10}), parquet)
    assert failures(rows)[:2] == [b"new", b"new"]
    assert "has fewer rows than before" in failures(rows)[3]
    pq.write_table(pa.table({"other": [b"new"] * 30}), parquet)
    assert all("has no column image.bytes" in failure for failure in failures(rows))
    Path(parquet).write_bytes(b"no Parquet")
    assert all("10.png" in failure or "cannot be opened" in failure for failure in failures(rows))


def test_a_damaged_row_group_fails_alone(tmp_path):
    path = tmp_path / "m.parquet"
    content = [bytes([row]) * 1000 for row in range(30)]
    pq.write_table(pa.table({"bytes": content}), path, row_group_size=10, compression="none", use_dictionary=False)
    rows = inputs_of(str(path))
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 30] = b"\xff" * 30
    path.write_bytes(damaged)
    results = failures(rows)
    assert results[:10] == content[:10]
    assert results[20:] == content[20:]
    assert all(str(path) in failure for failure in results[10:20])


def test_empty_pictures_fail_alone(tmp_path):
    pq.write_table(pa.table({"bytes": [b"1", b"", b"3"]}), tmp_path / "m.parquet")
    first, empty, last = failures(inputs_of(str(tmp_path / "m.parquet")))
    assert (first, last) == (b"1", b"3")
    assert "row 1: holds no picture" in empty
