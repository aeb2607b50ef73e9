"""Preparing VisA and MVTec AD: from folders and archives, interrupted, damaged, linked."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect.cli.main import main
from winspect.datasets import open_dataset
from winspect.datasets import prepare as module
from winspect.datasets.official import OFFICIAL, Counts
from winspect.datasets.prepare import prepare_dataset
from winspect.errors import OutputError, SettingsError, SourceError

FILES = 12 * (2 + 2 + 2) + 12 * 2  # pictures and masks of the miniature


@pytest.fixture
def writable_source(visa_source, tmp_path) -> Path:
    """A miniature VisA that a test may damage."""
    return shutil.copytree(visa_source, tmp_path / "VisA")


def facts(dataset, *, defect_types: bool = True):
    """What a data set says, and its pictures' bytes, without the places."""
    return {
        (i.category, i.split, i.label, i.defect_type if defect_types else "", i.path.name, i.path.read_bytes())
        for i in dataset.items
    }


@pytest.mark.parametrize("form", ["folder", "folder above", "tar", "tar with a top folder", "tar.gz"])
def test_visa_from_every_form(form, visa_source, tmp_path, few_official, mini):
    source = {
        "folder": lambda: visa_source,
        "folder above": lambda: visa_source.parent,
        "tar": lambda: mini.pack(visa_source, tmp_path / "VisA_20220922.tar", top="./"),
        "tar with a top folder": lambda: mini.pack(visa_source, tmp_path / "v.tar", top="VisA/"),
        "tar.gz": lambda: mini.pack(visa_source, tmp_path / "v.tar.gz", mode="w:gz"),
    }[form]()
    before = mini.hash_tree(visa_source)
    summary = prepare_dataset("visa", source=source, out=tmp_path / "out", verify=True)
    assert summary.is_complete
    assert (summary.written, summary.kept, summary.verified) == (FILES, 0, 72)
    two = {"train_normal": 2, "test_normal": 2, "test_anomalous": 2}
    assert summary.categories == {name: {**two, "masks": 2, "official": two} for name in OFFICIAL["visa"]}
    assert mini.hash_tree(visa_source) == before
    raw, made = open_dataset("visa", visa_source), open_dataset("visa", tmp_path / "out")
    assert made.name == "visa"
    assert facts(made, defect_types=False) == facts(raw, defect_types=False)
    assert {item.defect_type for item in made.items} == {"good", "bad"}
    for item in made.select(label="anomalous"):
        assert item.mask == tmp_path / "out" / item.category / "ground_truth" / "bad" / f"{item.path.stem}.png"
        with Image.open(item.mask) as mask:
            assert mask.mode == "L"
            values = np.asarray(mask)
        assert set(values.ravel()) == {0, 255}
        assert np.count_nonzero(values) == 6
    assert not [path for path in tmp_path.rglob("*.tmp")]


def test_the_whole_official_split(tmp_path, mini):
    """10,821 pictures, all links to one: the counts are the official ones without any help."""
    source, picture, mask = tmp_path / "VisA", mini.picture(tmp_path / "p.jpg"), mini.mask(tmp_path / "m.png")
    rows = mini.visa_rows()
    mini.write_split(source, rows)
    for folder in {os.path.dirname(row[key]) for row in rows for key in ("image", "mask") if row[key]}:
        (source / folder).mkdir(parents=True)
    for row in rows:
        os.link(picture, source / row["image"])
        if row["mask"]:
            os.link(mask, source / row["mask"])
    summary = prepare_dataset("visa", source=source, out=tmp_path / "out", link="hard")
    assert summary.is_complete
    assert summary.written == 10_821 + 1200
    assert len(open_dataset("visa", tmp_path / "out").items) == 10_821
    for name, counts in summary.categories.items():
        official = asdict(OFFICIAL["visa"][name])
        assert counts == {**official, "masks": official["test_anomalous"], "official": official}


def test_hard_links_and_copies_as_asked(visa_source, tmp_path, few_official, mini):
    before = {name: facts[:2] for name, facts in mini.hash_tree(visa_source).items()}
    for link, written in (("hard", FILES), ("hard", 0), ("copy", 72), ("copy", 0), ("hard", 72)):
        summary = prepare_dataset("visa", source=visa_source, out=tmp_path / "out", link=link)
        assert summary.is_complete
        assert (summary.written, summary.kept) == (written, FILES - written)
        inodes = {facts[1] for facts in before.values()}
        for item in open_dataset("visa", tmp_path / "out").items:
            assert (item.path.stat().st_ino in inodes) == (link == "hard")
            assert item.mask is None or item.mask.stat().st_ino not in inodes
    assert {name: facts[:2] for name, facts in mini.hash_tree(visa_source).items()} == before


def test_a_mask_that_is_another_than_would_be_made_is_made_anew(visa_source, tmp_path, few_official):
    prepare_dataset("visa", source=visa_source, out=tmp_path / "out")
    masks = sorted((tmp_path / "out" / "candle" / "ground_truth").rglob("*.png"))
    before = [mask.read_bytes() for mask in masks]
    masks[0].write_bytes(before[0][:-20])
    Image.new("L", (16, 12), 7).save(masks[1])
    summary = prepare_dataset("visa", source=visa_source, out=tmp_path / "out")
    assert (summary.written, summary.kept) == (2, FILES - 2)
    assert [mask.read_bytes() for mask in masks] == before


def test_a_link_that_a_killed_run_left_is_not_written_into(visa_source, tmp_path, few_official, mini):
    row = mini.few_rows()[0]
    target = tmp_path / "out" / row["object"] / row["split"] / "bad" / Path(row["image"]).name
    target.parent.mkdir(parents=True)
    other = open_dataset("visa", visa_source).items[-1].path
    os.link(other, target.with_name(f".{target.name}.{os.getpid()}.tmp"))
    before = other.read_bytes()
    prepare_dataset("visa", source=visa_source, out=tmp_path / "out")
    assert target.read_bytes() == (visa_source / row["image"]).read_bytes()
    assert other.read_bytes() == before


@pytest.mark.parametrize("as_tar", [False, True])
def test_interrupted_and_run_again(as_tar, visa_source, tmp_path, few_official, mini, monkeypatch):
    source = mini.pack(visa_source, tmp_path / "VisA.tar") if as_tar else visa_source
    make, calls = module.make_file, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 41:
            raise KeyboardInterrupt
        return make(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "make_file", interrupted)
        prepare_dataset("visa", source=source, out=tmp_path / "out")
    there = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(there) == 40
    times = {path: path.stat().st_mtime_ns for path in there}
    summary = prepare_dataset("visa", source=source, out=tmp_path / "out")
    assert summary.is_complete
    assert (summary.written, summary.kept) == (FILES - 40, 40)
    assert {path: path.stat().st_mtime_ns for path in there} == times


def test_what_is_there_but_not_whole_is_made_again(visa_source, tmp_path, few_official):
    out = tmp_path / "out"
    prepare_dataset("visa", source=visa_source, out=out)
    picture = next(out.glob("candle/train/good/*"))
    masks = sorted(out.glob("candle/ground_truth/bad/*"))
    whole = {path: path.read_bytes() for path in (picture, *masks)}
    picture.write_bytes(whole[picture][:100])
    masks[0].write_bytes(whole[masks[0]][:40])
    masks[1].write_bytes(b"")
    assert prepare_dataset("visa", source=visa_source, out=out).written == 3
    assert {path: path.read_bytes() for path in whole} == whole


def test_a_write_that_fails_leaves_nothing_half_made(visa_source, tmp_path, few_official, monkeypatch):
    out, write = tmp_path / "out", Path.write_bytes

    def full(path, data):
        if path.suffix == ".tmp":
            write(path, data[:50])
            if len(list(out.rglob("*.JPG"))) == 10:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="the disk is full; free some space"):
        patch.setattr(Path, "write_bytes", full)
        prepare_dataset("visa", source=visa_source, out=out)
    assert not [path for path in out.rglob("*.tmp")]
    assert prepare_dataset("visa", source=visa_source, out=out).kept >= 10


def test_missing_and_damaged_files_are_named_and_the_rest_is_made(writable_source, tmp_path, few_official):
    items = open_dataset("visa", writable_source).select(category="candle")
    anomalous = [item for item in items if item.is_anomalous]
    items[0].path.unlink()
    anomalous[0].mask.unlink()
    anomalous[1].mask.write_bytes(b"none")
    summary = prepare_dataset("visa", source=writable_source, out=tmp_path / "out", verify=True)
    assert not summary.is_complete
    gone = [str(path) for path in (items[0].path, anomalous[0].mask)]
    split = items[0].split
    label = f"{split} {'anomalous' if items[0].is_anomalous else 'normal'}"
    assert summary.missing == [*gone, f"candle: 1 {label} pictures, officially 2"]
    assert [(row["path"], row["type"]) for row in summary.failed] == [(str(anomalous[1].mask), "PictureError")]
    assert summary.written == FILES - 3
    assert summary.categories["candle"]["masks"] == 0


def test_a_picture_that_cannot_be_read(writable_source, tmp_path, few_official):
    items = open_dataset("visa", writable_source).items
    bad = items[3].path
    bad.unlink()
    bad.mkdir()
    summary = prepare_dataset("visa", source=writable_source, out=tmp_path / "out")
    message = "cannot be read (a folder, need a file): check the file"
    assert summary.failed == [{"path": str(bad), "type": "PictureError", "message": message}]
    assert summary.written == FILES - 1
    for path in {path for item in items for path in (item.path, item.mask) if path not in (None, bad)}:
        path.unlink()
        path.mkdir()
    assert len(prepare_dataset("visa", source=writable_source, out=tmp_path / "none").failed) == FILES


def test_a_split_without_any_of_its_pictures(writable_source, tmp_path):
    for name in OFFICIAL["visa"]:
        shutil.rmtree(writable_source / name)
    with pytest.raises(SourceError, match=r"none of the 96 files that the data set names is there, as .*candle/"):
        prepare_dataset("visa", source=writable_source, out=tmp_path / "out")


def test_a_split_file_that_is_no_text(writable_source, tmp_path):
    (writable_source / "split_csv" / "1cls.csv").write_bytes(b"object,\xff")
    with pytest.raises(SourceError, match=r"1cls.csv: not UTF-8 text"):
        prepare_dataset("visa", source=writable_source, out=tmp_path / "out")


def test_two_files_for_one_place(writable_source, tmp_path, mini):
    rows = mini.few_rows()
    twin = {**rows[0], "image": rows[0]["image"].replace("Images", "Pictures")}
    mini.write_split(writable_source, [*rows, twin])
    with pytest.raises(SourceError, match="would both become candle/test/bad/"):
        prepare_dataset("visa", source=writable_source, out=tmp_path / "out")


def test_only_some_categories(visa_source, tmp_path, few_official):
    out = tmp_path / "out"
    summary = prepare_dataset("visa", source=visa_source, out=out, categories=["pcb1", "fryum"])
    assert summary.is_complete
    assert list(summary.categories) == ["pcb1", "fryum"]
    assert sorted(path.name for path in out.iterdir()) == ["fryum", "pcb1"]
    summary = prepare_dataset("visa", source=visa_source, out=out, categories="candle", verify=True)
    assert (summary.written, summary.verified, list(summary.categories)) == (8, 6, ["candle"])
    with pytest.raises(SourceError, match="got category 'pcb9', but it has: candle, capsules"):
        prepare_dataset("visa", source=visa_source, out=out, categories=["pcb9"])


def test_verify_without_out_reads_only(writable_source, tmp_path, few_official, mini):
    before = mini.hash_tree(tmp_path)
    summary = prepare_dataset("visa", source=writable_source, verify=True)
    assert summary.is_complete
    assert (summary.written, summary.verified, summary.out) == (0, 72, None)
    assert mini.hash_tree(tmp_path) == before
    anomalous = open_dataset("visa", writable_source).select(label="anomalous")
    anomalous[0].path.write_bytes(b"none")
    mini.mask(anomalous[1].mask, size_wh=(12, 16))
    anomalous[2].mask.unlink()
    anomalous[3].path.unlink()
    summary = prepare_dataset("visa", source=writable_source, verify=True)
    assert [row["path"] for row in summary.failed] == [str(anomalous[0].path), str(anomalous[1].mask)]
    assert "the mask has 12x16 pixels, its picture 16x12" in summary.failed[1]["message"]
    category = anomalous[3].category
    assert sorted(summary.missing) == sorted(
        [str(anomalous[2].mask), str(anomalous[3].path), f"{category}: 1 test anomalous pictures, officially 2"]
    )


@pytest.mark.parametrize("form", ["folder", "tar.xz"])
def test_mvtec(form, mvtec_source, tmp_path, mini, monkeypatch):
    monkeypatch.setitem(OFFICIAL, "mvtec", {"bottle": Counts(3, 2, 4), "carpet": Counts(2, 1, 1)})
    source = mvtec_source if form == "folder" else mini.pack(mvtec_source, tmp_path / "m.tar.xz", mode="w:xz")
    before = mini.hash_tree(mvtec_source)
    summary = prepare_dataset("mvtec", source=source, out=tmp_path / "out")
    assert mini.hash_tree(mvtec_source) == before
    assert summary.missing == [
        "carpet: 0 train normal pictures, officially 2",
        "carpet: 0 test normal pictures, officially 1",
        "carpet: 0 test anomalous pictures, officially 1",
    ]
    assert summary.written == 2 * (3 + 6 + 4)
    assert summary.categories["bottle"]["masks"] == 4
    assert summary.categories["grid"]["official"] is None
    made, original = open_dataset("mvtec", tmp_path / "out"), open_dataset("mvtec", mvtec_source)
    assert facts(made) == facts(original)
    masks = [[item.mask.read_bytes() for item in data.items if item.mask] for data in (made, original)]
    assert masks[0] == masks[1]
    assert prepare_dataset("mvtec", source=source, out=tmp_path / "out", categories=["bottle"]).is_complete


def test_own_data_in_mvtecs_layout_has_no_official_counts(mvtec_source, tmp_path, mini):
    (mvtec_source / "bottle").rename(tmp_path / "gasket")
    (tmp_path / "gasket" / "ground_truth" / "dirt" / "001_mask.png").unlink()
    summary = prepare_dataset("mvtec", source=tmp_path / "gasket", out=tmp_path / "out", link="hard")
    assert list(summary.categories) == ["gasket"]
    assert summary.categories["gasket"]["official"] is None
    assert summary.missing == [f"{tmp_path / 'out/gasket/test/dirt/001.png'}: no mask for it"]


def test_converted_visa_as_source(visa_source, tmp_path, few_official):
    prepare_dataset("visa", source=visa_source, out=tmp_path / "first" / "1cls")
    summary = prepare_dataset("visa", source=tmp_path / "first", out=tmp_path / "second")
    assert summary.is_complete
    assert facts(open_dataset("visa", tmp_path / "second")) == facts(open_dataset("visa", tmp_path / "first"))


@pytest.mark.parametrize("kind", ["visa", "mvtec"])
def test_a_source_that_is_not_the_data_set(kind, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("not a tar")
    with pytest.raises(SourceError, match="no category found here: need <category>/train/good"):
        prepare_dataset(kind, source=tmp_path / "empty", out=tmp_path / "out")
    with pytest.raises(SourceError, match=r"text.tar: not a tar, or cut off at its start"):
        prepare_dataset(kind, source=tmp_path / "text.tar", out=tmp_path / "out")
    with pytest.raises(SourceError, match="no such folder: check the path"):
        prepare_dataset(kind, source=tmp_path / "gone", out=tmp_path / "out")


def test_a_folder_that_links_to_itself(mvtec_source, tmp_path):
    (mvtec_source / "bottle" / "again").symlink_to(mvtec_source, target_is_directory=True)
    assert prepare_dataset("mvtec", source=mvtec_source, out=tmp_path / "out").written == 26


def test_a_source_folder_that_may_not_be_searched(mvtec_source, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(SourceError, match=r"cannot be searched \(Permission denied\): check your rights"):
        prepare_dataset("mvtec", source=mvtec_source, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "imagenet"}, "got the data set 'imagenet', need one of visa, mvtec, elpv, textile"),
        ({"link": "soft"}, "got --link soft, need one of copy, hard"),
        ({"source": None}, "visa is not part of a package: name its folder or tar"),
        ({"out": None}, "nothing to do: name the folder to make"),
        ({"out": "VisA"}, "are inside each other: choose an --out beside the source"),
        ({"out": "VisA/out"}, "are inside each other"),
        ({"out": "."}, "are inside each other"),
        ({"source": "v.tar", "link": "hard"}, "files in an archive cannot be hard-linked: use --link copy"),
        ({"source": "v.tar", "out": None, "verify": True}, "an archive is checked once it is converted"),
    ],
)
def test_wrong_use(options, message, writable_source, tmp_path, monkeypatch, mini):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.tar").touch()
    before = mini.hash_tree(tmp_path)
    with pytest.raises(SettingsError, match=message):
        prepare_dataset(**{"kind": "visa", "source": "VisA", "out": "out", **options})
    assert mini.hash_tree(tmp_path) == before


def test_out_that_is_the_source_through_a_link(mvtec_source, tmp_path, mini):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bottle").symlink_to(mvtec_source / "bottle", target_is_directory=True)
    before = mini.hash_tree(mvtec_source)
    for link in ("copy", "hard"):
        with pytest.raises(SettingsError, match="is the source itself, through a link to its folder"):
            prepare_dataset("mvtec", source=mvtec_source, out=tmp_path / "out", link=link)
    assert mini.hash_tree(mvtec_source) == before


def test_out_that_cannot_be_written(visa_source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="this is a file, not a folder"):
        prepare_dataset("visa", source=visa_source, out=tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "candle").touch()
    with pytest.raises(OutputError, match=r"candle.*: cannot write: .*(a part of this path is a file|this is a file)"):
        prepare_dataset("visa", source=visa_source, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.EXDEV, r"cannot be a hard link to .* \(refused\): use --link copy"), (errno.ENOSPC, "the disk is full")],
)
def test_hard_links_that_are_refused(code, message, visa_source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OutputError, match=message):
        prepare_dataset("visa", source=visa_source, out=tmp_path / "out", link="hard")


def test_pictures_outside_the_layout_are_named_and_folders_may_be_in_any_case(
    tmp_path, mini, capsys, process_as_before
):
    """A nested picture vanished with "0 missing", and with ``Test/`` every picture did."""
    root = tmp_path / "parts"
    for name in ("Train/Good/1.png", "Test/good/2.JPE", "TEST/cut/3.png", "Test/cut/b1/4.png", "Test/5.png"):
        place = root / "nut" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mini.size_wh, (len(name), 9, 9)).save(place, "PNG")
    mini.mask(root / "nut" / "Ground_Truth" / "cut" / "3.png")
    (root / "nut" / "readme.txt").write_text("x")
    (root / "nut" / "Thumbs.db").write_text("x")
    for source in (root, mini.pack(root, tmp_path / "parts.tar")):
        out = tmp_path / f"out of {source.name}"
        summary = prepare_dataset("mvtec", source=source, out=out)
        made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert made == {f"nut/{name}" for name in ("train/Good/1.png", "test/good/2.JPE", "test/cut/3.png")} | {
            "nut/ground_truth/cut/3.png"
        }
        assert summary.missing == []
        assert {Path(name).name for name in summary.left_out} == {"4.png", "5.png"}
        assert summary.other_files == {".txt": 1}
        assert not summary.is_complete
    assert main(["prepare", "mvtec", "--source", str(root), "--out", str(tmp_path / "again")]) == 3
    printed = capsys.readouterr().err
    assert f"winspect: left out: {root / 'nut' / 'Test' / 'cut' / 'b1' / '4.png'}: not where" in printed
    assert "winspect: 1 file left out: .txt 1" in printed
    assert "0 missing, 2 left out, 0 failed" in printed


def test_a_complete_data_set_leaves_nothing_out(mvtec_source, tmp_path):
    summary = prepare_dataset("mvtec", source=mvtec_source, out=tmp_path / "out")
    assert summary.left_out == []
    assert summary.other_files == {".txt": 2}  # its licence and readme
