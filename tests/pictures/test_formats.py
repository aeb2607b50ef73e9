"""One list of what is read: by content, in any case, in every search; what is left out is counted."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect.cluster.inputs import find_inputs
from winspect.datasets import open_dataset
from winspect.errors import SourceError
from winspect.pictures import decoding
from winspect.pictures.find import find_pictures
from winspect.pictures.formats import (
    ENDINGS,
    FORMATS,
    count_left_out,
    format_of,
    left_out_in_words,
    read_start,
)
from winspect.watch.tree import Tree

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
PILLOW_NAMES = {"JPEG": "JPEG", "PNG": "PNG", "BMP": "BMP", "TIFF": "TIFF", "WebP": "WEBP", "GIF": "GIF", "PNM": "PPM"}
PILLOW_NAMES["JPEG 2000"] = "JPEG2000"
PAGE = Path(decoding.__file__).parents[1] / "service" / "page"


def encoded(format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, PILLOW_NAMES[format_name], **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def every_picture() -> dict[str, bytes]:
    """A picture of every format under every ending of it in either case, under none, and under a camera's."""
    named = {
        f"{known.name.replace(' ', '')}{number}{case(ending)}": encoded(known.name)
        for known in FORMATS
        for number, (ending, case) in enumerate((e, c) for e in known.endings for c in (str.lower, str.upper))
    }
    named |= {f"{known.name.replace(' ', '')}": encoded(known.name) for known in FORMATS}
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    mpo = io.BytesIO()
    frames[0].save(mpo, "MPO", save_all=True, append_images=frames[1:])
    named |= {"stereo.MPO": mpo.getvalue(), "line7.cam": encoded("PNG"), "grey.Pgm": b"P5 16 16 255\n" + bytes(256)}
    return named


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


NOT_PICTURES = {
    "a.txt": b"BM",
    "b.TXT": b"x",
    "notes": b"P1 report",
    "lot.dat": b"BMW and others",
    "x.npy": b"\x93NUMPY",
}
PASSED_OVER = {"Thumbs.db": b"x", "desktop.ini": b"x", ".DS_Store": b"x", "._a.jpg": b"x", "ehthumbs.db": b"x"}
LINE = "5 files left out: .txt 2, without ending 1, .dat 1, .npy 1"


def test_every_reader_is_in_the_list_and_decodes_what_it_names():
    assert set(decoding._READERS) == {known.name for known in FORMATS}
    for known in FORMATS:
        content = encoded(known.name)
        assert format_of(content[:16]) == known.name
        assert decoding.read_rgb(content).shape == PIXELS.shape
    lossless = encoded("WebP", lossless=True)
    np.testing.assert_array_equal(decoding.read_rgb(lossless), PIXELS)


@pytest.mark.parametrize("start", [b"", b"BMW and others", b"P1 report", b"RIFF\0\0\0\0AVI LIST", b"GIF", b"P7\n1 1"])
def test_texts_and_films_are_no_pictures(start):
    assert format_of(start[:16]) is None


def test_a_folder_gives_pictures_of_every_ending_and_counts_the_rest(tmp_path, every_picture, caplog):
    folder = write(tmp_path / "parts", every_picture | NOT_PICTURES | PASSED_OVER)
    write(folder / "@eaDir", {"thumb.jpg": encoded("JPEG")})
    write(folder / "__MACOSX", {"thumb.jpg": encoded("JPEG")})
    assert {path.name for path in find_pictures(folder)} == set(every_picture)
    assert caplog.messages == [f"{folder}: {LINE}"]
    for path in find_pictures(f"{folder}/**/*"):
        assert decoding.read_rgb(path).shape == PIXELS.shape


def test_a_glob_counts_what_it_matches_alone(tmp_path, caplog):
    folder = write(tmp_path, {"a.jfif": encoded("JPEG"), "b.txt": b"x", "ab.txt": b"x"})
    assert find_pictures(f"{folder}/**/a*") == [folder / "a.jfif"]
    assert caplog.messages == [f"{folder}/**/a*: 1 file left out: .txt 1"]
    caplog.clear()
    assert len(find_pictures([folder, folder / "b.txt", folder / "ab.txt"])) == 3
    assert not caplog.messages


def test_names_that_tell_are_not_opened(tmp_path, monkeypatch):
    write(tmp_path, dict.fromkeys(("a.jpg", "b.PGM", "c.txt", "d.json", "Thumbs.db"), b"x") | {"e.raw": b"x"})
    opened = []
    monkeypatch.setattr("winspect.pictures.formats.read_start", lambda path: opened.append(path) or b"")
    find_pictures(tmp_path)
    assert opened == [str(tmp_path / "e.raw")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_start(tmp_path / "pipe") == b""
    with pytest.raises(
        SourceError, match=r"no pictures in .*looked for JPEG, PNG.*; 1 file left out: without ending 1"
    ):
        find_pictures(tmp_path)


def test_heat_maps_beside_the_rows_of_an_earlier_run_are_not_judged(tmp_path, caplog):
    write(tmp_path, {"a.png": encoded("PNG")})
    write(tmp_path / "results" / "maps", {"000000_a.png": encoded("PNG")})
    write(tmp_path / "results", {"predictions.jsonl": b"{}\n"})
    write(tmp_path / "parts" / "maps", {"b.png": encoded("PNG")})  # a user's folder of this name
    assert [path.name for path in find_pictures(tmp_path)] == ["a.png", "b.png"]
    assert f"{tmp_path}/results/maps: heat maps of an earlier run, not searched" in caplog.messages


def test_many_endings_make_one_line():
    names = [f"x.e{number}" for number in range(20)]
    line = left_out_in_words(count_left_out([*names, "a.raw", "b.raw", ".hidden", "Thumbs.db"]))
    assert line.startswith("22 files left out: .raw 2, .e0 1, ") and line.endswith(", 13 more endings")


def test_watching_reads_the_same(tmp_path, every_picture):
    folder = write(tmp_path / "in", every_picture | NOT_PICTURES | PASSED_OVER | {"a.png.part": encoded("PNG")})
    lines: list[str] = []
    tree = Tree(folder, recursive=True, ignore=(), complain=lines.append)
    assert {name for name, _ in tree.walk()} == set(every_picture)
    assert lines == [f"{folder}: 6 files left out: .txt 2, without ending 1, .dat 1, .npy 1, .part 1"]
    assert {name for name, _ in tree.walk()} == set(every_picture)
    assert len(lines) == 1  # said once
    (folder / "notes").write_bytes(encoded("PNG"))  # it has become one
    assert tree.picture("notes") is not None


def test_batch_reads_the_same(tmp_path, every_picture, caplog):
    folder = write(tmp_path / "parts", every_picture | NOT_PICTURES | PASSED_OVER | {"rows.parquet": b"x"})
    inputs = find_inputs([str(folder)])
    assert {Path(path).name for path in inputs.table.column("path").to_pylist()} == set(every_picture)
    assert "6 files left out: .txt 2, without ending 1" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "mvtec"])
def test_data_sets_read_the_same(tmp_path, every_picture, kind, caplog):
    top = tmp_path / "nut" / ("test" if kind == "mvtec" else "")
    write(tmp_path / "nut" / "train" / "good", {"a.jpe": encoded("JPEG")} if kind == "mvtec" else {})
    write(top / "good", {"a.jp2": encoded("JPEG 2000")} | PASSED_OVER)
    write(top / "cut", every_picture | NOT_PICTURES)
    if kind == "folder":
        (tmp_path / "nut" / "train" / "good").rmdir()
        (tmp_path / "nut" / "train").rmdir()
    dataset = open_dataset(kind, tmp_path)
    assert {item.path.name for item in dataset.select(label="anomalous")} == set(every_picture)
    assert len(dataset.select(label="normal", split="test")) == 1
    assert f"{tmp_path}: {LINE}" in caplog.messages


def test_the_page_takes_the_same_endings():
    pattern = re.search(r"/\\\.\(([a-z0-9|]+)\)\$/i", (PAGE / "files.js").read_text("utf-8"))
    assert pattern is not None
    assert {f".{ending}" for ending in pattern[1].split("|")} == ENDINGS
    accepted = re.findall(r'accept="image/\*,([^"]+)"', (PAGE / "index.html").read_text("utf-8"))
    browsers_know = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"}
    assert len(accepted) == 2
    assert all(set(endings.split(",")) == ENDINGS - browsers_know for endings in accepted)
