"""What a run writes: rows in input order and only when what they name is there; files whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect import Result
from winspect.calibration import DecisionRule
from winspect.errors import OutputError, PictureError
from winspect.outputs.maps import MapFiles
from winspect.outputs.rows import Recorder, row_of, still_to_do
from winspect.system.files import make_folder, output_error, replacing

RUN = {"model": "small", "recipe": {"scales": (2, 3)}}


def good(path: str = "a/part.png", score: float = 0.75, *, picture: bool = True) -> Result:
    return Result(
        path,
        "nut",
        anomaly_score=score,
        tile_maps=np.linspace(0, 1, 4, dtype=np.float32).reshape(1, 2, 2),
        tile_boxes=((0, 0, 12, 9),),
        size_wh=(12, 9),
        picture_rgb=np.full((9, 12, 3), 99, np.uint8) if picture else None,
    )


def bad(path: str = "a/bad.png") -> Result:
    return Result(path, "nut", error=PictureError(path, "an empty file"))


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]


def test_a_row_by_hand():
    assert row_of(DecisionRule(0.5).decide(good()), map_file="maps/x.png") == {
        "path": "a/part.png",
        "class": "nut",
        "anomaly_score": 0.75,
        "verdict": "anomalous",
        "threshold": 0.5,
        "boxes": None,
        "map": "maps/x.png",
        "error": None,
        "warning": None,
    }
    assert row_of(DecisionRule(0.5).decide(bad())) == {
        "path": "a/bad.png",
        "class": "nut",
        "anomaly_score": None,
        "verdict": None,
        "threshold": 0.5,
        "boxes": None,
        "map": None,
        "error": {"type": "PictureError", "message": "a/bad.png: an empty file"},
        "warning": None,
    }


@pytest.mark.parametrize(
    ("threshold", "verdict"), [(None, None), (0.7501, "normal"), (0.75, "anomalous"), (0.0, "anomalous")]
)
def test_verdicts(threshold, verdict):
    assert row_of(DecisionRule(threshold).decide(good()))["verdict"] == verdict


@dataclass(frozen=True)
class Maps(MapFiles):
    """Maps before each of which something happens."""

    before: Callable[[str], None] = print

    def write(self, judgement, stem, *arguments):
        self.before(Path(stem).name)
        super().write(judgement, stem, *arguments)


def test_rows_keep_their_order_when_maps_are_written_out_of_order(tmp_path):
    """The first heat map waits for the third: its row still comes first, and no row before its map is there."""
    third_comes = threading.Event()

    def slow_first(stem):
        if stem.startswith("000000"):
            assert third_comes.wait(timeout=60)
        if stem.startswith("000002"):
            third_comes.set()

    with Recorder(tmp_path, RUN) as recorder:
        recorder.maps = Maps(tmp_path, overlays=True, before=slow_first)
        for name in ("first.png", "second.png", "third.png"):
            recorder.add(good(name))
    assert [row["path"] for row in rows_in(tmp_path)] == ["first.png", "second.png", "third.png"]
    assert all((tmp_path / row["map"]).is_file() for row in rows_in(tmp_path))
    assert recorder.written == 3


def test_no_more_maps_wait_than_fit_into_memory(tmp_path):
    """When writing is slower than scoring, scoring waits."""
    gate, added = threading.Event(), []

    def add_all(recorder):
        for number in range(20):
            recorder.add(good(f"{number}.png"))
            added.append(number)

    with Recorder(tmp_path, RUN) as recorder:
        recorder.maps = Maps(tmp_path, overlays=True, before=lambda _: gate.wait(timeout=60))
        adding = threading.Thread(target=add_all, args=(recorder,))
        adding.start()
        adding.join(0.5)  # time to add them all, if nothing held it back
        assert len(added) <= 8
        gate.set()
        adding.join()
    assert len(rows_in(tmp_path)) == 20


def test_further_entries_of_a_row(tmp_path):
    with Recorder(tmp_path, RUN, overlays=False) as recorder:
        row = recorder.add(good(), extra={"set": "textile"})
    assert row["set"] == rows_in(tmp_path)[0]["set"] == "textile"


def test_a_row_names_only_a_map_that_is_there(tmp_path):
    with Recorder(tmp_path, RUN) as recorder:
        assert recorder.add(good(picture=False))["map"] is None  # nothing to draw on
        assert recorder.add(bad())["map"] is None
        assert recorder.add(good())["map"] == "maps/000002_part.png"
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["000002_part.png"]
    with Image.open(tmp_path / "maps" / "000002_part.png") as overlay:
        assert overlay.size == (12, 9)


def test_pictures_of_one_name_keep_their_own_maps(tmp_path):
    with Recorder(tmp_path, RUN) as recorder:
        maps = [recorder.add(good(path))["map"] for path in ("a/part.png", "b/part.png", "b/part.jpg")]
    assert len(set(maps)) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_scored_before_a_stop_is_kept(tmp_path, error):
    with pytest.raises(error), Recorder(tmp_path, RUN) as recorder:
        recorder.add(good("1.png"))
        recorder.add(bad("2.png"))
        raise error
    assert [row["path"] for row in rows_in(tmp_path)] == ["1.png", "2.png"]
    assert recorder.written == 2
    again = Recorder(tmp_path, RUN, resume=True)
    assert (again.done, again.counts.failed, again.written) == (["1.png", "2.png"], 1, 2)


def test_after_an_error_in_writing_no_later_row_is_written(tmp_path):
    """A row that is missing in the middle would shift all that a resumed run writes."""

    def second_fails(stem):
        if stem.startswith("000001"):
            raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"), Recorder(tmp_path, RUN) as recorder:
        recorder.maps = Maps(tmp_path, overlays=True, before=second_fails)
        for number in range(5):
            recorder.add(good(f"{number}.png"))
    assert [row["path"] for row in rows_in(tmp_path)] == ["0.png"]


def test_the_run_is_described_and_compared_as_json(tmp_path):
    with Recorder(tmp_path, RUN):
        pass
    assert json.loads((tmp_path / "run.json").read_text()) == {"model": "small", "recipe": {"scales": [2, 3]}}
    Recorder(tmp_path, RUN, resume=True)  # a tuple here and a list there are the same
    with pytest.raises(OutputError, match=r"another run \(different model, seed\)"):
        Recorder(tmp_path, {**RUN, "model": "large", "seed": 1}, resume=True)


def test_still_to_do(tmp_path):
    with Recorder(tmp_path, RUN, overlays=False) as recorder:
        recorder.add(good("1.png"))
    again = Recorder(tmp_path, RUN, overlays=False, resume=True)
    pictures = [Path("1.png"), Path("2.png"), Path("3.png")]
    assert list(still_to_do(pictures, again)) == pictures[1:]
    for others in (pictures[1:], [], [Path("0.png"), *pictures]):
        with pytest.raises(OutputError, match="the pictures are not those of the run"):
            still_to_do(others, again)


# Files


def test_replacing_writes_the_whole_file_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), replacing(path) as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_in_a_folder_that_is_gone(tmp_path):
    path = tmp_path / "gone" / "file"
    with pytest.raises(OutputError, match="cannot write") as stop, replacing(path) as temporary:
        temporary.write_text("new")
    assert str(path) in str(stop.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EACCES, "no permission to write there; choose another --out"),
        (errno.EPERM, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "a part of this path is a file"),
        (errno.EEXIST, "this is a file, not a folder"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_refusals_to_write_name_the_fix(number, words):
    message = str(output_error(Path("out"), OSError(number, os.strerror(number))))
    assert message.startswith("out: cannot write: ")
    assert words in message


def test_make_folder_makes_it_and_leaves_nothing_in_it(tmp_path):
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_make_folder_with_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        make_folder(tmp_path / ("x" * 300))


def test_make_folder_on_a_full_disk_leaves_no_probe(tmp_path, monkeypatch):
    def full(path, _):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        make_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
