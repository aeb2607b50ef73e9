"""The folder of results: what is kept, and what happens when nothing can be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.watch.fakes import Clock, QuickModel, picture, watching
from winspect.calibration import DecisionRule
from winspect.errors import OutputError, SettingsError
from winspect.watch.journal import Journal
from winspect.watch.results import KeptPictures, StoppedError, WatchResults
from winspect.watch.run import Status


@pytest.fixture
def incoming(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def full_disk(monkeypatch):
    """While it is set, nothing can be written to a row: half of it goes through, as on a real disk."""
    is_full = threading.Event()
    write = os.write

    def limited(file, data):
        if is_full.is_set() and data.startswith(b'{"path"'):
            return write(file, data[: len(data) // 2])
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", limited)
    return is_full


def rows_in(folder):
    return [json.loads(line) for path in folder.glob("predictions-*") for line in path.read_text().splitlines()]


def test_a_full_disk_is_said_and_waited_for_and_nothing_is_lost(incoming, tmp_path, full_disk, caplog):
    with watching(incoming, tmp_path / "out", retry_s=0.05) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
        full_disk.set()
        picture(incoming / "b.png")
        watch.until(lambda: "the disk is full; free some space; waiting until it can be written" in caplog.text)
        picture(incoming / "c.png")
        time.sleep(0.2)
        assert watch.names == ["a.png"]
        assert caplog.text.count("waiting") == 1
        full_disk.clear()
        watch.until(lambda: len(watch.shown) == 3)
    assert "going on" in caplog.text
    assert [row["file"]["name"] for row in rows_in(tmp_path / "out")] == ["a.png", "b.png", "c.png"]


def test_a_watch_that_is_stopped_on_a_full_disk_goes_on_at_the_next_start(incoming, tmp_path, full_disk, caplog):
    full_disk.set()
    with watching(incoming, tmp_path / "out", retry_s=0.05) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: "the disk is full" in caplog.text)
    full_disk.clear()
    assert rows_in(tmp_path / "out") == []
    with watching(incoming, tmp_path / "out") as again:
        again.until(lambda: again.shown)
    assert len(rows_in(tmp_path / "out")) == 1


def test_a_journal_that_cannot_be_written_is_waited_for(incoming, tmp_path, caplog):
    refusals = iter([sqlite3.OperationalError("database or disk is full")] * 2)

    class Refusing(Journal):
        def add(self, *arguments):
            for error in refusals:
                raise error
            super().add(*arguments)

    with watching(incoming, tmp_path / "out", retry_s=0.05, journal_type=Refusing) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
    assert "disk is full" in caplog.text
    assert len(rows_in(tmp_path / "out")) == 1


def test_a_folder_of_results_that_vanishes_is_waited_for(incoming, tmp_path, caplog):
    """As when results go to a share that is away: nothing is written in its place."""
    out = tmp_path / "out"
    with watching(incoming, out, retry_s=0.05) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
        shutil.move(out, tmp_path / "away")
        picture(incoming / "b.png")
        watch.until(lambda: "cannot write" in caplog.text)
        assert not out.exists()
        shutil.move(tmp_path / "away", out)
        watch.until(lambda: len(watch.shown) == 2)
    assert len(rows_in(out)) == 2


def test_what_is_no_matter_of_place_ends_the_watch(tmp_path):
    with WatchResults(tmp_path, stop=threading.Event()) as results, pytest.raises(ZeroDivisionError):
        results.patiently(lambda: 1 // 0)


def test_waiting_ends_when_told_to(tmp_path):
    def refuse():
        raise OSError(errno.EROFS, "Read-only file system")

    stop = threading.Event()
    stop.set()
    with WatchResults(tmp_path, stop=stop) as results, pytest.raises(StoppedError):
        results.patiently(refuse)


def test_only_so_many_heat_maps_are_kept(incoming, tmp_path):
    out = tmp_path / "out"
    with watching(incoming, out, maps="all", keep_maps=3) as watch:
        for number in range(5):
            picture(incoming / f"{number}.png", 40 * number)
            watch.until(lambda: len(watch.shown) == number + 1)  # noqa: B023
    kept = sorted(path.name for path in (out / "maps").iterdir())
    assert [f"maps/{name}" for name in kept] == [row["map"] for row in watch.shown[2:]]
    with Image.open(out / watch.shown[-1]["map"]) as overlay:
        assert overlay.size == (24, 16)
    with watching(incoming, out, maps="all", keep_maps=3, clock=Clock("2026-11-23")) as again:  # the earlier ones count
        picture(incoming / "later.png")
        again.until(lambda: again.shown)
    assert sorted(path.name for path in (out / "maps").iterdir())[:2] == kept[1:]


def test_heat_maps_of_anomalous_pictures_alone(incoming, tmp_path):
    with watching(incoming, tmp_path / "out", maps="anomalous", rule=DecisionRule(0.5)) as watch:
        picture(incoming / "dark.png", 10)
        picture(incoming / "light.png", 240)
        watch.until(lambda: len(watch.shown) == 2)
    by_name = {row["file"]["name"]: row for row in watch.shown}
    assert by_name["dark.png"]["verdict"] == "normal"
    assert by_name["dark.png"]["map"] is None
    assert by_name["light.png"]["verdict"] == "anomalous"
    assert (tmp_path / "out" / by_name["light.png"]["map"]).is_file()


def test_what_a_killed_run_left_in_the_folder_of_maps_is_removed(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / ".a.png.123.tmp").write_bytes(b"half")
    kept = KeptPictures(tmp_path / "maps", 2)
    assert not list((tmp_path / "maps").iterdir())
    assert kept.save("b.png", np.zeros((8, 8, 3), np.uint8)) == "maps/b.png"


def test_two_watches_do_not_share_a_folder(tmp_path):
    with (
        WatchResults(tmp_path, stop=threading.Event()),
        pytest.raises(OutputError, match=r"another winspect run is writing there; .*choose another --out"),
    ):
        WatchResults(tmp_path, stop=threading.Event()).__enter__()
    with WatchResults(tmp_path, stop=threading.Event()):
        pass


def test_a_folder_keeps_to_one_source_and_says_what_has_changed(tmp_path, caplog):
    with WatchResults(tmp_path, stop=threading.Event(), clock=Clock()) as results:
        results.describe("/in", {"model": "a", "class": None})
        results.describe("/in", {"model": "a", "class": None})
        assert caplog.text == ""
        results.describe("/in", {"model": "b", "class": None})
        assert "from now on scored with another model than before" in caplog.text
        with pytest.raises(OutputError, match="holds the results of /in; choose another --out"):
            results.describe("/elsewhere", {"model": "b", "class": None})
    assert json.loads((tmp_path / "run.json").read_text())["model"] == "b"
    assert json.loads((tmp_path / "run-until-2026-11-22T120000Z.json").read_text())["model"] == "a"


def test_the_line_of_status():
    said, now = [], [0.0]
    status = Status(said.append, every_s=10, now=lambda: now[0])
    status.count({"error": None, "verdict": "anomalous", "warning": None})
    status.count({"error": {"type": "PictureError"}, "verdict": None, "warning": None})
    status.tick(lambda: "3 behind")
    assert said == []
    now[0] = 10.0
    status.tick(lambda: "3 behind")
    status.tick(lambda: "3 behind")
    now[0] = 30.0
    status.tick(lambda: "3 behind")
    assert said == [
        "2 pictures inspected, 1 anomalous, 1 failed, 0.20 pictures/s; 3 behind",
        "2 pictures inspected, 1 anomalous, 1 failed, 0.00 pictures/s; 3 behind",
    ]


def test_the_model_that_fails_for_another_reason_ends_the_watch(incoming, tmp_path):
    class Broken(QuickModel):
        def predict_many(self, *_, **__):
            raise MemoryError("of the device")
            yield

    picture(incoming / "a.png")
    with pytest.raises((MemoryError, AssertionError)), watching(incoming, tmp_path / "out", Broken()) as watch:
        watch.until(lambda: watch.shown)


def test_unknown_choices_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="maps: got 'some', need one of none, anomalous, all"):
        WatchResults(tmp_path, stop=threading.Event(), maps="some")
