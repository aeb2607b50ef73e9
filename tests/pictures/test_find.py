"""Files, folders and globs to one ordered list; nothing unreadable is hidden."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from winspect.errors import SourceError
from winspect.pictures.find import at_even_steps, find_pictures
from winspect.pictures.formats import ENDINGS


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A folder of pictures, and the working directory moved there."""
    for name in (
        "parts/img10.jpg",
        "parts/img2.JPG",
        "parts/img1.png",
        "parts/notes.txt",
        "parts/raw.dat",
        "parts/.hidden.jpg",
        "parts/.cache/thumb.jpg",
        "parts/deep/er/x.tiff",
        "parts/deep/a.webp",
        "other/b.bmp",
        "loose.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


PARTS = ["parts/deep/a.webp", "parts/deep/er/x.tiff", "parts/img1.png", "parts/img2.JPG", "parts/img10.jpg"]


def found(*patterns: str | os.PathLike[str], **options: object) -> list[str]:
    return [str(path) for path in find_pictures(patterns, **options)]


def test_a_folder_gives_its_pictures_in_natural_order(tree):
    assert found("parts") == found("parts/") == PARTS
    assert all(isinstance(path, Path) for path in find_pictures(["parts"]))
    assert found(tree / "parts") == [str(tree / name) for name in PARTS]


def test_the_working_directory(tree):
    assert found(".") == ["loose.jpg", "other/b.bmp", *PARTS]


def test_files_are_taken_whatever_their_ending(tree):
    assert found("parts/notes.txt", "parts/.hidden.jpg", "loose.jpg") == [
        "parts/notes.txt",
        "parts/.hidden.jpg",
        "loose.jpg",
    ]


def test_a_named_hidden_folder_is_searched(tree):
    assert found("parts/.cache") == ["parts/.cache/thumb.jpg"]


def test_one_pattern_need_not_be_in_a_list(tree):
    assert find_pictures("loose.jpg") == find_pictures(Path("loose.jpg")) == [Path("loose.jpg")]


def test_the_given_order_is_kept_and_duplicates_go(tree):
    names = found("parts/img2.JPG", "loose.jpg", "parts", "./loose.jpg", tree / "other" / "b.bmp", "other")
    assert names[:2] == ["parts/img2.JPG", "loose.jpg"]
    assert names[2:] == [*(name for name in PARTS if name != "parts/img2.JPG"), str(tree / "other" / "b.bmp")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("parts/*.jpg", ["parts/img10.jpg"]),
        ("parts/img?.*", ["parts/img1.png", "parts/img2.JPG"]),
        ("parts/img[12].*", ["parts/img1.png", "parts/img2.JPG"]),
        ("parts/*", PARTS),
        ("*/b.bmp", ["other/b.bmp"]),
        ("o*", ["other/b.bmp"]),
        ("parts/*.dat", ["parts/raw.dat"]),
        ("parts/**", PARTS),
        ("parts/**/", PARTS),
        ("parts/**/*", PARTS),
        ("parts/**/*.jpg", ["parts/img10.jpg"]),
        ("parts/**/*.tiff", ["parts/deep/er/x.tiff"]),
        ("parts/**/er/*", ["parts/deep/er/x.tiff"]),
        ("parts/**/deep", ["parts/deep/a.webp", "parts/deep/er/x.tiff"]),
        ("**/*.dat", ["parts/raw.dat"]),
        ("**/[ab].*", ["other/b.bmp", "parts/deep/a.webp"]),
        ("*/**/?.*", ["other/b.bmp", "parts/deep/a.webp", "parts/deep/er/x.tiff"]),
    ],
)
def test_globs(tree, pattern, expected):
    assert found(pattern) == expected
    assert found(tree / pattern) == [str(tree / name) for name in expected]


def test_a_name_that_exists_is_no_glob(tree):
    Path("part[1].jpg").touch()
    Path("part1.jpg").touch()
    assert found("part[1].jpg") == ["part[1].jpg"]
    Path("part[1].jpg").unlink()
    assert found("part[1].jpg") == ["part1.jpg"]


def test_own_extensions(tree):
    assert found("parts", extensions=[".DAT", ".txt"]) == ["parts/notes.txt", "parts/raw.dat"]


def test_broken_links_are_kept_as_entries(tree):
    Path("parts/gone.jpg").symlink_to("nowhere.jpg")
    Path("parts/gone-folder").symlink_to("/nowhere/at/all")
    Path("parts/round.png").symlink_to("round.png")
    Path("parts/gone.txt").symlink_to("nowhere.txt")  # was no picture
    assert set(found("parts")) - set(PARTS) == {"parts/gone.jpg", "parts/gone-folder", "parts/round.png"}
    assert found("parts/gone.jpg") == found("parts/gon*.jpg") == ["parts/gone.jpg"]


def test_linked_pictures_and_folders_are_followed(tree):
    Path("nothing/link.jpg").symlink_to(tree / "loose.jpg")
    Path("nothing/others").symlink_to(tree / "other")
    assert found("nothing") == ["nothing/link.jpg", "nothing/others/b.bmp"]


@pytest.mark.parametrize("pattern", ["parts", "parts/**/*", "parts/*"])
def test_a_loop_of_folders_ends_and_is_said(tree, caplog, pattern):
    Path("parts/deep/er/up").symlink_to(tree / "parts")
    Path("parts/deep/self").symlink_to(".")
    paths = find_pictures([pattern])
    assert len({path.resolve() for path in paths}) == len(PARTS)
    if pattern != "parts/*":  # there each hit is a search of its own
        assert [str(path) for path in paths] == PARTS
        assert "parts/deep/er/up leads back to parts, which is searched once only" in caplog.text
    assert "parts/deep/self leads back to parts/deep" in caplog.text


def test_an_unreadable_subfolder_is_said_and_kept(tree, monkeypatch, caplog):
    _forbid(monkeypatch, "parts/deep")
    assert found("parts") == ["parts/deep", "parts/img1.png", "parts/img2.JPG", "parts/img10.jpg"]
    assert "parts/deep cannot be searched (Permission denied)" in caplog.text


def test_an_unreadable_named_folder_is_an_error(tree, monkeypatch):
    _forbid(monkeypatch, "parts")
    with pytest.raises(SourceError, match=r"'parts' cannot be searched .Permission denied.: check your rights"):
        find_pictures(["loose.jpg", "parts"])


def _forbid(monkeypatch, folder: str) -> None:
    """As if the rights were missing: the tests may run as root, who has them all."""
    scandir = os.scandir

    def guarded(path):
        if path == folder:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


@pytest.mark.parametrize("missing", ["gone.jpg", "gone/", "", "a\0b", "loose.jpg/x"])
def test_a_missing_path_is_named(tree, missing):
    with pytest.raises(SourceError) as caught:
        find_pictures(["loose.jpg", missing])
    assert str(caught.value) == f"{missing!r}: no such file or folder: check the path"


def test_a_glob_without_a_match_is_named(tree):
    for pattern in ("parts/*.gif", "gone/**/*.jpg", "loose.jpg/**", "nothing/*", "parts/*.txt/**"):
        with pytest.raises(SourceError, match="matches no pictures: check the pattern"):
            find_pictures(["loose.jpg", pattern])


def test_nothing_found_says_where_and_what_counts(tree):
    with pytest.raises(SourceError) as caught:
        find_pictures(["nothing", tree / "parts" / ".."], extensions=[".xyz", ".abc"])
    assert str(caught.value) == f"no pictures in nothing, {tree}/parts/..: looked for files ending in .abc, .xyz"
    assert found("nothing", "loose.jpg") == ["loose.jpg"]


@pytest.mark.parametrize("patterns", [[], ()])
def test_no_patterns(patterns):
    with pytest.raises(SourceError, match="got no files, folders or patterns"):
        find_pictures(patterns)


def test_the_common_formats_count():
    assert {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"} <= ENDINGS


def test_folders_deeper_than_pythons_recursion_limit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nested = [os.path.join(*["d"] * depth) for depth in range(1, 1101)]
    for folder in nested:
        os.mkdir(folder)
    picture = Path(nested[-1], "x.jpg")
    picture.touch()
    try:
        assert find_pictures("d") == [picture]
    finally:  # pytest's own clean-up recurses, and would fail
        picture.unlink()
        for folder in reversed(nested):
            os.rmdir(folder)


def test_many_files_are_quick(tmp_path):
    """10,000 names in well under the seconds that one system call for each would take on a network disk."""
    for folder in range(10):
        (tmp_path / f"lot{folder}").mkdir()
        for index in range(1000):
            os.close(os.open(tmp_path / f"lot{folder}" / f"{index}.jpg", os.O_CREAT))
    started = time.process_time()
    paths = find_pictures([tmp_path])
    assert time.process_time() - started < 3
    assert len(paths) == 10_000
    assert [path.name for path in paths[:3]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [path.parent.name for path in paths[::1000]] == [f"lot{folder}" for folder in range(10)]


def test_pictures_at_even_steps():
    letters = list("abcdefgh")
    assert at_even_steps(letters, 1) == ["a"]
    assert at_even_steps(letters, 3) == ["a", "e", "h"]
    assert at_even_steps(letters, 8) == at_even_steps(letters, 99) == letters
