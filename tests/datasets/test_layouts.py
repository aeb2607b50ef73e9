"""MVTec AD's layout and its relatives, and plain folders."""

from __future__ import annotations

import logging
import shutil

import pytest

from winspect.datasets import load_mask, open_dataset
from winspect.errors import SourceError


def names(items) -> list[str]:
    return [f"{item.split}/{item.defect_type}/{item.path.name}" for item in items]


def test_mvtec(mvtec_source, mini):
    dataset = open_dataset("mvtec", mvtec_source)
    assert (dataset.name, dataset.root, dataset.categories) == ("mvtec", mvtec_source, ("bottle", "grid"))
    bottle = dataset.select(category="bottle")
    assert names(bottle) == [
        *("train/good/000.png", "train/good/001.png", "train/good/002.png"),
        *("test/broken/000.png", "test/broken/001.png", "test/dirt/000.png", "test/dirt/001.png"),
        *("test/good/000.png", "test/good/001.png"),
    ]
    assert [item.label for item in bottle] == ["normal"] * 3 + ["anomalous"] * 4 + ["normal"] * 2
    assert [item.mask and item.mask.name for item in bottle[3:5]] == ["000_mask.png", "001_mask.png"]
    assert all(item.mask is None for item in bottle if not item.is_anomalous)
    assert load_mask(bottle[3], mini.size_wh).sum() == 6
    assert dataset.missing() == ()
    assert open_dataset("mvtec", mvtec_source, categories="grid").categories == ("grid",)


def test_one_category_as_root(mvtec_source):
    assert open_dataset("mvtec", mvtec_source / "bottle").categories == ("bottle",)
    renamed = open_dataset("mvtec", mvtec_source / "bottle", categories=["glass bottle"])
    assert renamed.categories == ("glass bottle",)
    assert {item.category for item in renamed.items} == {"glass bottle"}
    with pytest.raises(SourceError, match="got category 'a', 'b', but it has: bottle"):
        open_dataset("mvtec", mvtec_source / "bottle", categories=["a", "b"])


def test_relatives_of_mvtec(tmp_path, mini):
    """BTAD: ok and ko, masks of the picture's own name and another ending, no mask for one."""
    root = tmp_path / "BTAD"
    for split, kind, count in (("train", "ok", 2), ("test", "ok", 1), ("test", "ko", 3)):
        for number in range(count):
            mini.picture(root / "01" / split / kind / f"{number:04}.bmp")
    mini.mask(root / "01" / "ground_truth" / "ko" / "0000.png")
    mini.mask(root / "01" / "ground_truth" / "ko" / "0001.bmp")
    mini.mask(root / "01" / "ground_truth" / "ko" / "0001_mask.png")
    items = open_dataset("mvtec", root).items
    assert names(items) == [
        *("train/good/0000.bmp", "train/good/0001.bmp"),
        *("test/ko/0000.bmp", "test/ko/0001.bmp", "test/ko/0002.bmp", "test/good/0000.bmp"),
    ]
    assert [item.mask and item.mask.name for item in items[2:5]] == ["0000.png", "0001_mask.png", None]


def test_an_unknown_category_says_which_exist(mvtec_source):
    with pytest.raises(SourceError, match="got category 'bottel', 'cable', but it has: bottle, grid"):
        open_dataset("mvtec", mvtec_source, categories=["bottel", "grid", "cable"])
    with pytest.raises(SourceError, match="got category an empty list, but it has: bottle, grid"):
        open_dataset("mvtec", mvtec_source, categories=[])


def test_an_empty_category_stays_in_the_list(mvtec_source):
    for name in ("train", "test"):
        shutil.rmtree(mvtec_source / "grid" / name)
    (mvtec_source / "grid" / "test" / "good").mkdir(parents=True)
    dataset = open_dataset("mvtec", mvtec_source)
    assert dataset.categories == ("bottle", "grid")
    assert dataset.select(category="grid") == ()
    with pytest.raises(SourceError, match="no pictures in grid: need <category>/train/good"):
        open_dataset("mvtec", mvtec_source, categories=["grid"])


def test_what_is_no_picture_of_the_layout(mvtec_source, mini, caplog):
    good = mvtec_source / "bottle" / "test" / "good"
    (good / "Thumbs.db").touch()
    mini.picture(good / ".hidden.png")
    mini.picture(good / "more" / "000.png")
    mini.picture(mvtec_source / "docs" / "figure.png")
    with caplog.at_level(logging.WARNING):
        assert len(open_dataset("mvtec", mvtec_source).select(category="bottle", split="test", label="normal")) == 2
    assert f"2 pictures left out, as {good / 'more' / '000.png'}" in caplog.text


def test_mistakes_in_the_layout(mvtec_source, mini, tmp_path):
    mini.mask(mvtec_source / "bottle" / "ground_truth" / "dirt" / "000_mask.bmp")
    with pytest.raises(SourceError, match=r"000_mask.bmp and .*000_mask.png: two masks for one picture"):
        open_dataset("mvtec", mvtec_source)
    loose = mini.picture(mvtec_source / "grid" / "train" / "000.png")
    with pytest.raises(SourceError, match=f"{loose}: outside a folder for its type: put it into .*good"):
        open_dataset("mvtec", mvtec_source, categories=["grid"])
    with pytest.raises(SourceError, match="no category found here: need <category>/train/good"):
        open_dataset("mvtec", tmp_path / "mvtec" / "bottle" / "train")
    with pytest.raises(SourceError, match="a file, need the data set's folder"):
        open_dataset("mvtec", loose)


def test_a_folder_whose_listing_fails(mvtec_source, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(SourceError, match=r"cannot be searched \(Permission denied\)"):
        open_dataset("mvtec", mvtec_source)


def test_a_broken_link_is_kept_and_told(mvtec_source, caplog):
    link = mvtec_source / "bottle" / "test" / "good" / "zzz.png"
    link.symlink_to("gone.png")
    dataset = open_dataset("mvtec", mvtec_source)
    assert dataset.missing() == (link,)
    assert "names 1 files that are not there" in caplog.text


def test_plain_folders(tmp_path, mini):
    for folder in ("bolt/good", "bolt/dent", "bolt/Scratch deep", "nut/OK", "nut/NOK", "other/notes"):
        mini.picture(tmp_path / folder / "0.png")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.categories == ("bolt", "nut")
    assert names(dataset.items) == [
        *("test/Scratch deep/0.png", "test/dent/0.png", "test/good/0.png", "test/NOK/0.png", "test/good/0.png")
    ]
    assert [item.label for item in dataset.select(category="nut")] == ["anomalous", "normal"]
    assert len(dataset.reference_pool("bolt")) == 1
    single = open_dataset("folder", tmp_path / "bolt", categories=["steel bolt"])
    assert single.categories == ("steel bolt",)


def test_plain_folders_without_pictures(tmp_path):
    with pytest.raises(SourceError, match="no category found here: need <category>/good"):
        open_dataset("folder", tmp_path)
    (tmp_path / "bolt" / "good").mkdir(parents=True)
    with pytest.raises(SourceError, match="no pictures in bolt: need <category>/good"):
        open_dataset("folder", tmp_path)
