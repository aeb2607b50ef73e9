"""``winspect references``: which pictures to show, on generated parts, some of them defective."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import part, save

GOOD, DEFECTIVE = 15, 3


@pytest.fixture
def parts(tmp_path):
    """A folder of good parts, and a few defective ones among them."""
    folder = tmp_path / "parts"
    for number in range(GOOD):
        save(folder / f"part{number:02d}.png", part(number, defective=False)[0])
    for number in range(DEFECTIVE):
        save(folder / f"part{5 * number + 1:02d}-bad.png", part(100 + number, defective=True)[0])
    return folder


@pytest.fixture
def cli(cli, small_checkpoint):
    """Run ``winspect`` in this process on the small model."""
    small = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu", "--engine", "torch")
    return lambda *arguments: cli(*arguments, *small)


def references(cli, *arguments):
    return cli("references", *arguments, "--set", "size=64")


def names(entries):
    return [entry["path"].rpartition("/")[2] for entry in entries]


def test_the_kept_are_good_and_the_defective_are_named(cli, parts):
    found = references(cli, parts, "--keep", "6", "--json")
    assert found.code == 0
    document = json.loads(found.out)  # stdout is JSON alone
    assert document["schema"] == 1 and document["pictures"] == GOOD + DEFECTIVE
    assert document["made_with"]["recipe"]["name"] == "mutual"
    assert len(set(names(document["kept"]))) == 6
    assert not [name for name in names(document["kept"]) if "bad" in name]
    assert sorted(names(document["outliers"])) == ["part01-bad.png", "part06-bad.png", "part11-bad.png"]
    scores = [entry["score"] for entry in document["outliers"]]
    assert scores == sorted(scores, reverse=True) and scores[-1] > document["limit"]
    assert min(entry["score"] for entry in document["kept"]) == document["kept"][0]["score"]
    assert document["failed"] == [] and document["warning"] is None


def test_the_choice_is_listed_and_the_same_each_time(cli, parts):
    first = references(cli, parts, "--keep", "4")
    assert first.code == 0
    assert first.out.startswith("4 of 18 chosen, the most normal first")
    assert "3 outliers, with a score above" in first.out
    assert first.out.count("-bad.png") == 3
    assert references(cli, parts, "--keep", "4").out == first.out


def test_a_folder_of_the_chosen_is_what_reference_takes(cli, parts, tmp_path):
    out = tmp_path / "chosen"
    found = references(cli, parts, "--keep", "5", "--out", out)
    assert found.code == 0 and f"written: {out / 'good'}" in found.err
    document = json.loads((out / "references.json").read_text())
    assert [path.name for path in sorted((out / "good").iterdir())] == [
        f"{place + 1:03d}-{name}" for place, name in enumerate(names(document["kept"]))
    ]
    for entry in document["kept"]:
        assert (out / entry["file"]).read_bytes() == (parts / names([entry])[0]).read_bytes()
    shown = ("--recipe", "memory", "--set", "size=64", "--set", "rotations=0", "--reference", out / "good", "--json")
    scored = cli("predict", parts, *shown)
    assert scored.code == 0
    results = json.loads(scored.out)
    assert len(results["judged_by_themselves"]) == 5
    worst = sorted(results["results"], key=lambda row: -row["anomaly_score"])[:DEFECTIVE]
    assert all("bad" in row["path"] for row in worst)
    again = references(cli, parts, "--keep", "5", "--out", out)
    assert again.code == 2 and "holds files already" in again.err


def test_pictures_that_fail_are_named_and_the_others_go_on(cli, parts, tmp_path):
    (parts / "empty.png").write_bytes(b"")
    (parts / "text.png").write_text("no picture")
    found = references(cli, parts, "--keep", "6", "--json", "--out", tmp_path / "out")
    assert found.code == 3
    assert "failed: " in found.err and "empty.png" in found.err and "text.png" in found.err
    document = json.loads(found.out)
    assert names(document["failed"]) == ["empty.png", "text.png"]
    assert len(document["kept"]) == 6 and document["pictures"] == GOOD + DEFECTIVE + 2
    assert len(list((tmp_path / "out" / "good").iterdir())) == 6


def test_a_batch_of_two_halves_is_said_to_be_one(cli, tmp_path):
    """Half of the parts are striped, which then is normal."""
    for number in range(12):
        pixels = part(number, defective=False)[0]
        if number % 2:
            pixels[::2] = 255 - pixels[::2]
        save(tmp_path / f"parts/{number:02d}.png", pixels)
    found = references(cli, tmp_path / "parts", "--keep", "4", "--json")
    assert found.code == 0
    assert "falls into two clusters of 6 and 6 pictures" in found.err
    assert "00.png" in json.loads(found.out)["warning"]


def test_in_groups_each_group_gives_references(cli, parts):
    found = references(cli, parts, "--keep", "6", "--set", "groups=2", "--json")
    assert found.code == 0
    assert not [name for name in names(json.loads(found.out)["kept"]) if "bad" in name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep", "0"), "keep: got 0, need a number of pictures from 1"),
        (("--keep", "-3"), "keep: got -3"),
        (("--keep", "19"), "asked for 19 of 18 pictures"),
        (("--keep", "16"), "15 can be kept: 3 outliers, 0 failed; keep 15"),
        (("--keep", "4", "--recipe", "memory"), "recipe memory scores each picture alone"),
        (("--keep", "4", "--recipe", "best"), "got the recipe 'best'"),
        (("--keep", "4", "--set", "share=0"), "share: got 0"),
    ],
)
def test_bad_options(cli, parts, arguments, message):
    found = references(cli, parts, *arguments)
    assert found.code == 2 and found.out == ""
    assert message in found.err


def test_too_few_pictures(cli, tmp_path):
    for number in range(3):
        save(tmp_path / f"few/{number}.png", part(number, defective=False)[0])
    found = references(cli, tmp_path / "few", "--keep", "2")
    assert found.code == 2 and "got 3, need at least 4" in found.err
    (tmp_path / "few/broken.png").write_bytes(b"")
    found = references(cli, tmp_path / "few", "--keep", "2")
    assert found.code == 2 and "got 3, need at least 4; 1 cannot be used: " in found.err
    found = references(cli, tmp_path / "nowhere", "--keep", "2")
    assert found.code == 2 and "no such file or folder" in found.err


def test_two_pictures_of_one_name_are_two_files(cli, parts, tmp_path):
    shutil.copytree(parts, tmp_path / "more/parts")
    for path in (tmp_path / "more/parts").iterdir():
        save(path, part(500 + int(path.stem[4:6]), defective="bad" in path.name)[0])
    found = references(cli, parts, tmp_path / "more", "--keep", "16", "--out", tmp_path / "out")
    assert found.code == 0
    assert len(list((tmp_path / "out/good").iterdir())) == 16


def test_a_picture_without_variation_is_no_reference(cli, parts):
    save(parts / "black.png", np.zeros((70, 90, 3), np.uint8))
    document = json.loads(references(cli, parts, "--keep", "15", "--json").out)
    assert "black.png" in names(document["outliers"])
