"""Archives as source: cut off, leading outside, with links; all that is refused before anything is written."""

from __future__ import annotations

import io
import tarfile
from contextlib import contextmanager

import pytest

from winspect.datasets.prepare import prepare_dataset
from winspect.datasets.trees import open_tree
from winspect.errors import PictureError, SourceError


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.98])
def test_a_tar_that_is_cut_off(keep, visa_source, tmp_path, mini):
    whole = mini.pack(visa_source, tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: int(len(whole.rstrip(b"\0")) * keep)])
    with pytest.raises(SourceError, match=r"cut.tar: (the archive is|not a tar, or) cut off .*: get the archive again"):
        prepare_dataset("visa", source=tmp_path / "cut.tar", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("offset", [100, 300])
def test_a_tar_cut_in_a_header(offset, visa_source, tmp_path, mini):
    path = mini.pack(visa_source, tmp_path / "whole.tar")
    with tarfile.open(path) as tar:
        header = tar.getmembers()[20].offset
    (tmp_path / "cut.tar").write_bytes(path.read_bytes()[: header + offset])
    with pytest.raises(SourceError, match="the archive is cut off or damaged after 20 files"):
        prepare_dataset("visa", source=tmp_path / "cut.tar", out=tmp_path / "out")


def test_a_compressed_tar_that_is_cut_off(visa_source, tmp_path, mini):
    for ending in ("gz", "xz"):
        path = mini.pack(visa_source, tmp_path / f"v.tar.{ending}", mode=f"w:{ending}")
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(SourceError, match=r"the archive is cut off or damaged|not a tar, or cut off"):
            prepare_dataset("visa", source=path, out=tmp_path / "out")


def test_a_tar_cut_off_is_got_again_and_the_run_goes_on(visa_source, tmp_path, few_official, mini):
    out, path = tmp_path / "out", tmp_path / "VisA.tar"
    prepare_dataset("visa", source=visa_source, out=out, categories=["candle"])
    whole = mini.pack(visa_source, path).read_bytes()
    path.write_bytes(whole[:30_000])
    with pytest.raises(SourceError, match="what was prepared so far is kept"):
        prepare_dataset("visa", source=path, out=out)
    path.write_bytes(whole)
    summary = prepare_dataset("visa", source=path, out=out)
    assert summary.is_complete
    assert summary.kept == 8


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("name", ["../evil.JPG", "/etc/evil.JPG", "candle/../../evil.JPG", "..\\evil.JPG"])
def test_a_tar_that_leads_outside(name, visa_source, tmp_path, mini):
    path = mini.pack(visa_source, tmp_path / "VisA.tar")
    with tarfile.open(path, "a") as tar:
        add(tar, name, b"evil")
    with pytest.raises(SourceError, match="which leads outside: get the archive from its makers"):
        prepare_dataset("visa", source=path, out=tmp_path / "out")
    assert not list(tmp_path.rglob("evil*"))


def test_links_in_a_tar_are_not_followed(tmp_path, mini):
    secret = tmp_path / "secret.JPG"
    secret.write_bytes(b"secret")
    rows = [row for row in mini.few_rows() if row["object"] == "candle" and row["split"] == "train"]
    mini.picture(tmp_path / "p.jpg")
    with tarfile.open(tmp_path / "VisA.tar", "w") as tar:
        tar.add(mini.write_split(tmp_path / "split", rows), arcname="split_csv/1cls.csv")
        tar.add(tmp_path / "p.jpg", arcname=rows[0]["image"])
        add(tar, rows[1]["image"], type=tarfile.SYMTYPE, linkname=str(secret))
    summary = prepare_dataset("visa", source=tmp_path / "VisA.tar", out=tmp_path / "out", categories=["candle"])
    assert f"{tmp_path / 'VisA.tar'}:{rows[1]['image']}" in summary.missing
    assert summary.written == 1
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.read_bytes() == b"secret"]


@pytest.mark.parametrize("kind", ["gnu", "pax", "declared"])
def test_a_small_tar_that_asks_for_much_is_refused_without_reading_it(tmp_path, kind):
    """3 kB with a picture of 12 GB: two sparse formats, and a plain header in a compressed tar that goes on and on."""
    good, much = b"\x89PNG\r\n\x1a\n", 12_000_000_000
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT) as tar:
        add(tar, "bolt/train/good/0.png", good)
        if kind == "pax":
            sparse = {"GNU.sparse.size": str(much), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,8"}
            add(tar, "bolt/train/good/1.png", good, pax_headers=sparse)
    if kind != "pax":
        content = path.read_bytes()
        header = bytearray(content[:512])
        header[0:21] = b"bolt/train/good/1.png"
        if kind == "gnu":
            header[156:157] = tarfile.GNUTYPE_SPARSE
            header[386:410] = b"%011o\0%011o\0" % (0, 8)
            header[483:495] = (much).to_bytes(12, "big")
            header[483] = 0x80
        else:
            header[124:136] = bytes([0x80]) + (much).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(content[:1024] + bytes(header) + content[512:1024] + bytes(10240))
    assert path.stat().st_size < 22_000
    with open_tree_or_refusal(path) as tree:
        if tree is not None:
            with pytest.raises(PictureError, match=rf"1\.png: .* of {much} bytes, need a stored one of at most"):
                tree.read("bolt/train/good/1.png")
            assert tree.read("bolt/train/good/0.png") == good


@contextmanager
def open_tree_or_refusal(path):
    """The tree, or None where the tar itself is refused, as one that ends before its last file does."""
    try:
        opened = open_tree(path)
        tree = opened.__enter__()
    except SourceError:
        yield None
        return
    yield tree
    opened.__exit__(None, None, None)
