"""A watched folder with real files in real time: everything is scored, once, when it is complete, in order."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.watch.fakes import SIZE_WH, Clock, QuickModel, Seconds, Watch, picture, watching
from winspect.errors import SourceError
from winspect.watch import folder as folder_module
from winspect.watch.journal import Journal
from winspect.watch.tree import may_be_picture

watchfiles = pytest.importorskip("watchfiles")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def incoming(tmp_path):
    """The folder that is watched."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def rows_in(out: Path) -> list[dict]:
    files = sorted(out.glob("predictions-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def noise(path: Path, seed: int = 0) -> bytes:
    """The bytes of a picture that does not compress: cutting it anywhere damages it."""
    Image.effect_noise((64, 64), 60 + seed).save(path, format="PNG")
    return path.read_bytes()


def test_a_picture_that_is_renamed_into_place_is_scored_at_once(incoming, out):
    with watching(incoming, out, settle_s=30) as watch:
        time.sleep(0.05)
        picture(incoming / "a.png", 51)
        watch.until(lambda: watch.shown)
        (incoming / "x.tmp").write_bytes((incoming / "a.png").read_bytes())  # a name that shows no kinship
        (incoming / "x.tmp").rename(incoming / "b.png")
        elsewhere = picture(incoming.parent / "x.png")
        time.sleep(0.02)  # for the two times to differ: the system's clock for files is coarse
        elsewhere.rename(incoming / "c.png")
        watch.until(lambda: len(watch.shown) == 3)
    row = rows_in(out)[0]
    assert row == watch.shown[0]
    assert row["path"] == str(incoming / "a.png")
    assert row["anomaly_score"] == pytest.approx(0.2)
    status = (incoming / "a.png").stat()
    assert row["file"] == {"name": "a.png", "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    assert (row["class"], row["verdict"], row["map"], row["error"]) == ("object", None, None, None)


def test_a_slow_writer_is_waited_for(incoming, out, tmp_path):
    data = noise(tmp_path / "whole.png")
    model, clock = QuickModel(), Seconds()
    with watching(incoming, out, model, settle_s=0.25, now=clock) as watch:
        with (incoming / "slow.png").open("wb") as file:
            for start in range(0, len(data), len(data) // 6):
                file.write(data[start : start + len(data) // 6])
                file.flush()
                time.sleep(0.06)  # for the watch to look
                clock.pass_by(0.1)
        watch.until(lambda: watch.folder.behind)
        clock.pass_by(0.3)
        watch.until(lambda: clock.pass_by(0.01) or watch.shown)
    assert model.batches == [1]  # it was never tried before it was complete
    assert watch.shown[0]["error"] is None


def test_a_truncated_picture_is_tried_again_and_scored_when_it_is_completed(incoming, out, tmp_path):
    data = noise(tmp_path / "whole.png")
    model = QuickModel()
    with watching(incoming, out, model, patience_s=20) as watch:
        (incoming / "a.png").write_bytes(data[: len(data) // 2])
        watch.until(lambda: sum(model.batches) >= 2)
        assert watch.folder.behind_in_words() == "1 cannot be read so far"
        picture(incoming / "b.png")  # nobody waits behind it
        watch.until(lambda: watch.names == ["b.png"])
        (incoming / "a.png").write_bytes(data)
        watch.until(lambda: len(watch.shown) == 2)
    assert [(row["file"]["name"], row["error"]) for row in rows_in(out)] == [("b.png", None), ("a.png", None)]


def test_a_picture_that_stays_truncated_fails_once_and_is_scored_when_it_changes(incoming, out, tmp_path):
    data = noise(tmp_path / "whole.png")
    with watching(incoming, out) as watch:
        (incoming / "a.png").write_bytes(data[: len(data) // 2])
        watch.until(lambda: watch.shown)
        assert watch.shown[0]["error"]["type"] == "PictureError"
        assert "truncated" in watch.shown[0]["error"]["message"]
        time.sleep(0.25)
        assert len(watch.shown) == 1
        (incoming / "a.png").write_bytes(data)
        watch.until(lambda: len(watch.shown) == 2)
    assert watch.shown[1]["error"] is None
    assert len(rows_in(out)) == 2


@pytest.mark.parametrize("name", [".a.png", "a.png.part", "a.part.png", "a.tmp.PNG", "~a.png", "a.png~", "a.txt", "a"])
def test_hidden_and_temporary_names_are_not_pictures(name):
    assert not may_be_picture(name)
    assert not may_be_picture(os.path.join("below", name))
    assert may_be_picture("a.PNG")
    assert not may_be_picture(os.path.join(".hidden", "a.png"))


@pytest.mark.parametrize("poll", [False, True])
def test_pictures_of_any_ending_are_scored_and_the_rest_is_counted(incoming, out, tmp_path, poll, caplog):
    data = noise(tmp_path / "whole.png")
    (incoming / "there.cam").write_bytes(data)
    (incoming / "notes.txt").write_text("x")
    with watching(incoming, out, poll=poll) as watch:
        watch.until(lambda: watch.names == ["there.cam"])
        for name in ("new.JFIF", "new.raw"):
            (incoming / name).write_bytes(data)
        watch.until(lambda: len(watch.shown) == 3)
    assert sorted(watch.names) == ["new.JFIF", "new.raw", "there.cam"]
    assert f"{incoming}: 1 file left out: .txt 1" in caplog.text


def test_what_is_renamed_away_from_a_temporary_name_is_scored_under_its_last_name(incoming, out):
    with watching(incoming, out) as watch:
        picture(incoming / "a.png").rename(incoming / "b.part")
        time.sleep(0.15)
        (incoming / "b.part").rename(incoming / "b.png")
        watch.until(lambda: "b.png" in watch.names)
    assert set(watch.names) <= {"a.png", "b.png"}


def test_existing_pictures_are_scored_oldest_first_and_never_again(incoming, out):
    for number, name in enumerate(["c.png", "a.png", "b.png"]):
        os.utime(picture(incoming / name), (1_700_000_000 + number,) * 2)
    with watching(incoming, out) as watch:
        watch.until(lambda: len(watch.shown) == 3)
        assert watch.names == ["c.png", "a.png", "b.png"]
    with watching(incoming, out) as again:
        picture(incoming / "d.png")
        again.until(lambda: again.shown)
        time.sleep(0.15)
    assert again.names == ["d.png"]
    assert len(rows_in(out)) == 4


def test_existing_pictures_can_be_left_alone_at_the_first_start(incoming, out):
    picture(incoming / "old.png")
    with watching(incoming, out, existing="skip") as watch:
        picture(incoming / "new.png")
        watch.until(lambda: watch.shown)
    picture(incoming / "while_away.png")
    with watching(incoming, out, existing="skip") as again:
        again.until(lambda: again.shown)
        time.sleep(0.15)
    assert [row["file"]["name"] for row in rows_in(out)] == ["new.png", "while_away.png"]


def test_a_changed_picture_is_scored_again(incoming, out):
    with watching(incoming, out) as watch:
        picture(incoming / "a.png", 51)
        watch.until(lambda: watch.shown)
        picture(incoming / "a.png", 102)
        watch.until(lambda: len(watch.shown) == 2)
    assert [row["anomaly_score"] for row in rows_in(out)] == pytest.approx([0.2, 0.4])


def test_folders_below(incoming, out):
    (incoming / "early").mkdir()
    picture(incoming / "early" / "a.png")
    (incoming / ".hidden").mkdir()
    picture(incoming / ".hidden" / "x.png")
    elsewhere = incoming.parent / "elsewhere"
    elsewhere.mkdir()
    picture(elsewhere / "moved.png")
    with watching(incoming, out, recursive=True) as watch:
        (incoming / "late").mkdir()
        picture(incoming / "late" / "b.png")
        elsewhere.rename(incoming / "moved")
        watch.until(lambda: len(watch.shown) == 3)
        time.sleep(0.2)
    assert sorted(watch.names) == ["early/a.png", "late/b.png", "moved/moved.png"]


def test_without_recursive_folders_below_are_left_alone(incoming, out):
    (incoming / "below").mkdir()
    with watching(incoming, out) as watch:
        picture(incoming / "below" / "a.png")
        picture(incoming / "b.png")
        watch.until(lambda: watch.shown)
        time.sleep(0.2)
    assert watch.names == ["b.png"]


def test_own_results_below_the_watched_folder_are_not_scored(incoming):
    with watching(incoming, incoming / "out", recursive=True, maps="all") as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
        time.sleep(0.2)
    assert watch.names == ["a.png"]
    assert (incoming / "out" / watch.shown[0]["map"]).is_file()


def test_links(incoming, out, tmp_path):
    """A link to a file is a picture; one to a folder is not entered; one that leads nowhere fails, until it does."""
    store = tmp_path / "store"
    store.mkdir()
    picture(store / "real.png")
    with watching(incoming, out, recursive=True, scan_every_s=0.2) as watch:
        (incoming / "link.png").symlink_to(store / "real.png")
        (incoming / "folder").symlink_to(store)
        (incoming / "loop").symlink_to(incoming)
        (incoming / "broken.png").symlink_to(store / "later.png")
        watch.until(lambda: len(watch.shown) == 2)
        assert watch.names == ["link.png", "broken.png"]
        assert "broken link" in watch.shown[1]["error"]["message"]
        picture(store / "later.png")
        watch.until(lambda: len(watch.shown) == 3)
        time.sleep(0.15)
    assert watch.names == ["link.png", "broken.png", "broken.png"]
    assert watch.shown[2]["error"] is None


def test_a_picture_deleted_before_it_was_scored_is_said_and_forgotten(incoming, out, caplog):
    clock = Seconds()
    with watching(incoming, out, settle_s=0.5, now=clock) as watch:
        (incoming / "a.png").write_bytes(b"half a pic")
        watch.until(lambda: watch.folder.behind)
        (incoming / "a.png").unlink()
        clock.pass_by(1)
        watch.until(lambda: f"{incoming / 'a.png'}: gone before it was scored" in caplog.text)
        assert watch.folder.behind == 0
    assert rows_in(out) == []


def test_the_folder_vanishes_and_comes_back(incoming, out, caplog):
    """What waited stays in line, what was scored is not scored again, what comes afterwards is."""
    picture(incoming / "a.png")
    clock = Seconds()
    with watching(incoming, out, settle_s=0.4, now=clock) as watch:
        watch.until(lambda: clock.pass_by(0.01) or watch.shown)
        (incoming / "waits.png").write_bytes((incoming / "a.png").read_bytes())
        watch.until(lambda: watch.folder.behind)
        incoming.rename(incoming.with_name("away"))
        watch.until(lambda: "is not there" in caplog.text)
        time.sleep(0.25)
        picture(incoming.with_name("away") / "meanwhile.png")
        incoming.with_name("away").rename(incoming)
        watch.until(lambda: "the folder is back after" in caplog.text)
        watch.until(lambda: clock.pass_by(0.01) or len(watch.shown) == 3)
        picture(incoming / "afterwards.png")
        watch.until(lambda: clock.pass_by(0.01) or len(watch.shown) == 4)
    assert "gone before it was scored" not in caplog.text
    assert watch.names[0] == "a.png"
    assert sorted(watch.names[1:3]) == ["meanwhile.png", "waits.png"]
    assert watch.names[3] == "afterwards.png"


def test_an_unmounted_share_leaves_an_empty_folder_of_another_disk(incoming, out, tmp_path, caplog):
    """As seen through a link, which needs no right to mount."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no other disk here")
    picture(incoming / "a.png")
    share = tmp_path / "share"
    share.symlink_to(incoming)

    def lead_to(folder):
        (tmp_path / "next").symlink_to(folder)
        (tmp_path / "next").rename(share)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as below, watching(share, out, scan_every_s=0.2) as watch:
        watch.until(lambda: watch.shown)
        lead_to(below)
        watch.until(lambda: "is not there" in caplog.text)
        lead_to(incoming)
        watch.until(lambda: "is back" in caplog.text)
    assert watch.names == ["a.png"]


def test_lost_events_are_made_up_for(incoming, out, tmp_path):
    """What a link leads to changes without an event: scanning the folder finds it."""
    (tmp_path / "store").mkdir()
    (incoming / "a.png").symlink_to(picture(tmp_path / "store" / "a.png", 51))
    with watching(incoming, out, scan_every_s=0.3) as watch:
        watch.until(lambda: watch.shown)
        picture(tmp_path / "store" / "a.png", 102)
        watch.until(lambda: len(watch.shown) == 2)
    assert [row["anomaly_score"] for row in watch.shown] == pytest.approx([0.2, 0.4])


def test_polling_finds_what_comes(incoming, out):
    with watching(incoming, out, poll=True, scan_every_s=60) as watch:
        time.sleep(0.2)
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
    assert watch.names == ["a.png"]


def test_a_system_without_events_is_said_and_listings_are_compared(incoming, out, monkeypatch, caplog):
    listen = watchfiles.watch

    def limited(*arguments, force_polling, **options):
        if not force_polling:
            raise OSError("OS file watch limit reached")
        return listen(*arguments, force_polling=force_polling, **options)

    monkeypatch.setattr(watchfiles, "watch", limited)
    with watching(incoming, out, scan_every_s=60) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
    assert "sends no events (OS file watch limit reached); comparing listings instead" in caplog.text


def test_a_backlog_is_scored_in_batches_in_order_and_said(incoming, out, monkeypatch):
    monkeypatch.setattr(folder_module, "MOST_WAITING", 20)  # so that most wait in the folder alone
    for number in range(60):
        os.utime(picture(incoming / f"{number:03d}.png"), (1_700_000_000 + number,) * 2)
    model = QuickModel(0.01)
    with watching(incoming, out, model) as watch:
        watch.until(lambda: watch.shown)
        assert 20 < watch.folder.behind <= 60
        watch.until(lambda: len(watch.shown) == 60)
        watch.until(lambda: watch.folder.behind == 0)
    assert watch.names == [f"{number:03d}.png" for number in range(60)]
    assert max(model.batches) == 16
    assert any(re.search(r"pictures/s; \d+ behind(, the oldest for \d+\.\d s)?$", line) for line in watch.said)
    assert watch.said[-1].endswith("60 pictures inspected, 0 anomalous, 0 failed")


def test_events_of_a_moment_come_in_no_order_and_are_put_in_order(incoming, out):
    """watchfiles gives sets."""
    names = [f"{letter}.png" for letter in "hbgafced"]
    elsewhere = incoming.parent / "elsewhere"
    for folder in (elsewhere, out):
        folder.mkdir()
    stop = threading.Event()
    with Journal(out) as journal, folder_module.WatchedFolder(incoming, journal, stop=stop, settle_s=0) as folder:
        folder.listen()
        for number, name in enumerate(names):
            os.utime(picture(elsewhere / name), (1_700_000_000 + number,) * 2)
        for name in sorted(names):
            (elsewhere / name).rename(incoming / name)
        time.sleep(1)  # for all events to have come
        folder.listen()
        assert [arrival.name for arrival in folder.ready(5)] == names[:5]


def test_a_folder_that_vanishes_while_it_is_scored_loses_nothing(incoming, out, caplog):
    class Unlucky(QuickModel):
        def predict_many(self, pictures, *arguments, **options):
            if not self.batches:
                incoming.rename(incoming.with_name("away"))
            return super().predict_many(pictures, *arguments, **options)

    with watching(incoming, out, Unlucky(), patience_s=0) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: "is not there" in caplog.text)
        incoming.with_name("away").rename(incoming)
        watch.until(lambda: watch.shown)
    assert "gone before it was scored" not in caplog.text
    assert [row["error"] for row in watch.shown] == [None]


def test_a_picture_that_arrives_alone_is_scored_alone(incoming, out):
    model = QuickModel()
    with watching(incoming, out, model) as watch:
        for number in range(3):
            picture(incoming / f"{number}.png")
            watch.until(lambda: len(watch.shown) == number + 1)  # noqa: B023
    assert model.batches == [1, 1, 1]


def written_over(path: Path, brightness: int) -> None:
    """Other content in the same file."""
    Image.new("RGB", SIZE_WH, (brightness,) * 3).save(path)


@pytest.mark.parametrize(
    ("change", "scores"),
    [
        (written_over, [0.4]),  # nobody knows which of it was read
        (picture, [0.2, 0.4]),  # another file by its name: what was read is whole
    ],
)
def test_a_picture_that_changes_while_it_is_scored_is_scored_again(incoming, out, change, scores):
    class Meddler(QuickModel):
        def predict_many(self, pictures, *arguments, **options):
            results = list(super().predict_many(pictures, *arguments, **options))
            if len(self.batches) == 1:
                change(incoming / "a.png", 102)
            return iter(results)

    with watching(incoming, out, Meddler()) as watch:
        picture(incoming / "a.png", 51)
        watch.until(lambda: len(watch.shown) == len(scores))
        time.sleep(0.15)
    assert [row["anomaly_score"] for row in rows_in(out)] == pytest.approx(scores)


def test_stopping_leaves_the_rest_for_the_next_start(incoming, out):
    for number in range(30):
        picture(incoming / f"{number:02d}.png")

    class Stopping(QuickModel):
        """Ends the watch under its fifth picture."""

        scored = 0

        def predict_many(self, pictures, *arguments, **options):
            for result in super().predict_many(pictures, *arguments, **options):
                self.scored += 1
                if self.scored == 5:
                    watch.stop.set()
                yield result

    watch = Watch(incoming, out, Stopping())
    watch.run()
    assert len(rows_in(out)) == 5
    with watching(incoming, out) as again:
        again.until(lambda: len(rows_in(out)) == 30)
    assert sorted(row["file"]["name"] for row in rows_in(out)) == [f"{number:02d}.png" for number in range(30)]


_KILLED = """
import sys
from pathlib import Path
from tests.watch.fakes import QuickModel, Watch
watch = Watch(Path(sys.argv[1]), Path(sys.argv[2]), QuickModel(0.004), settle_s=0.05)
watch.show = lambda row: print(row["file"]["name"], flush=True)
watch.run()
raise watch.error
"""


def test_killed_and_started_again_nothing_is_lost_and_nothing_scored_twice(incoming, out):
    for number in range(120):
        picture(incoming / f"{number:03d}.png")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    for scored in (7, 31):
        command = [sys.executable, "-c", _KILLED, str(incoming), str(out)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            for _ in range(scored):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        with sorted(out.glob("predictions-*"))[0].open("ab") as file:
            file.write(b'{"path": "/in/was cut o')  # a kill in the middle of a row
        picture(incoming / f"while_away_{scored}.png")
    with watching(incoming, out) as watch:
        watch.until(lambda: len(rows_in(out)) == 122)
        time.sleep(0.15)
    names = [row["file"]["name"] for row in rows_in(out)]
    assert len(names) == len(set(names)) == 122


def test_a_row_that_the_journal_has_not_heard_of_is_not_scored_again(incoming, out):
    """Killed between the row and the journal."""

    class Deaf(Journal):
        def add(self, *_):
            pass

    picture(incoming / "a.png")
    with watching(incoming, out, journal_type=Deaf) as watch:
        watch.until(lambda: watch.shown)
    with watching(incoming, out) as again:
        picture(incoming / "b.png")
        again.until(lambda: again.shown)
        time.sleep(0.15)
    assert again.names == ["b.png"]


def test_midnight(incoming, out):
    clock = Clock("2026-11-22T23:59:00")
    with watching(incoming, out, clock=clock) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
        clock.set("2026-11-23T00:00:01")
        picture(incoming / "b.png")
        watch.until(lambda: len(watch.shown) == 2)
    (before,), (after,) = (
        [json.loads(line) for line in (out / f"predictions-2026-11-{day}.jsonl").read_text().splitlines()]
        for day in (22, 23)
    )
    assert before["file"]["name"] == "a.png"
    assert after["file"]["name"] == "b.png"
    assert after["time"].startswith("2026-11-23T00:00:0")


def test_names_of_every_kind(incoming, out):
    names = [os.fsdecode(b"sch\xe4den.png"), "瓶.png", 'a "b"\n,c.png']
    with watching(incoming, out, maps="all") as watch:
        for name in names:
            picture(incoming / name)
        watch.until(lambda: len(watch.shown) == 3)
    assert sorted(row["file"]["name"] for row in rows_in(out)) == sorted(names)
    with watching(incoming, out) as again:
        time.sleep(0.2)
    assert again.shown == []


def test_memory_stays_flat_over_thousands_of_pictures(incoming, out, monkeypatch):
    """What Python itself holds after 2000 pictures is what it held after 1000, give or take a little."""
    import tracemalloc

    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes most of the time, and no memory
    data = picture(incoming / "a.png").read_bytes()
    with watching(incoming, out, settle_s=0.02) as watch:
        watch.until(lambda: watch.shown)
        watch.shown = deque(maxlen=1)

        def feed(first: int, last: int) -> None:
            for start in range(first, last, 500):
                for number in range(start, start + 500):
                    (incoming / ".new").write_bytes(data)
                    (incoming / ".new").rename(incoming / f"{number}.png")
                    (incoming / f"{number - 500}.png").unlink(missing_ok=True)  # a line that clears up behind itself
                watch.until(lambda: watch.names == [f"{start + 499}.png"])  # noqa: B023

        feed(0, 500)
        tracemalloc.start()
        feed(500, 1000)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        feed(1000, 2000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert len(rows_in(out)) == 2001
    assert grown < 600_000  # bytes; the rows of a thousand pictures would be more, their results or files far more


def test_wrong_use(tmp_path):
    with Journal(tmp_path) as journal, pytest.raises(SourceError, match="no such folder"):
        folder_module.WatchedFolder(tmp_path / "nowhere", journal, stop=threading.Event())


def test_the_folder_may_be_a_link_and_may_be_exchanged(incoming, out, tmp_path):
    """`current` leads to today's folder, and then to another one."""
    current, other = tmp_path / "current", tmp_path / "other"
    other.mkdir()
    current.symlink_to(incoming)
    with watching(current, out) as watch:
        picture(incoming / "a.png")
        watch.until(lambda: watch.shown)
        (tmp_path / "next").symlink_to(other)
        (tmp_path / "next").rename(current)
        picture(other / "b.png")
        watch.until(lambda: len(watch.shown) == 2)
        shutil.rmtree(incoming)
        picture(other / "c.png")
        watch.until(lambda: len(watch.shown) == 3)
    assert watch.names == ["a.png", "b.png", "c.png"]


def test_the_helper_can_fail(incoming, out):
    with pytest.raises(AssertionError, match="still waiting"):
        Watch(incoming, out, QuickModel()).until(lambda: False, seconds=0.05)


# A name that is replaced all the time


@contextmanager
def replacing(path: Path, every_s: float, replace=picture):
    """Replaces a picture all the time, each one brighter than the one before."""
    stop = threading.Event()

    def run():
        brightness = 0
        while not stop.wait(every_s):
            brightness = brightness % 250 + 1
            replace(path, brightness)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def from_elsewhere(path: Path, brightness: int) -> None:
    """Rename a picture into place from another folder, at once: no temporary name goes, and the times are the same."""
    elsewhere = path.parent.parent / f"x{brightness}"
    Image.new("RGB", SIZE_WH, (brightness,) * 3).save(elsewhere, format="PNG")
    elsewhere.rename(path)


def in_place(path: Path, brightness: int) -> None:
    """Write a file over: it gets shorter and longer."""
    Image.effect_noise((24 + brightness % 7, 24), brightness).convert("RGB").save(path)


@pytest.mark.parametrize(
    ("replace", "options"),
    [
        (picture, {"settle_s": 30}),  # renamed is complete: nothing to wait for
        (from_elsewhere, {"settle_s": 0.2}),
        (in_place, {"settle_s": 0.2}),
        (picture, {"settle_s": 0.2, "poll": True}),
    ],
    ids=["renamed", "from_elsewhere", "in_place", "poll"],
)
def test_a_name_that_is_replaced_all_the_time_is_scored(incoming, out, replace, options):
    """Before: no row, as it never came to rest. Each version that is scored has a row of its own."""
    with watching(incoming, out, **options) as watch, replacing(incoming / "live.png", 0.05, replace):
        watch.until(lambda: len(watch.shown) >= 3)
    rows = rows_in(out)
    assert all(row["error"] is None and row["file"]["name"] == "live.png" for row in rows)
    versions = [row["file"]["modified_ns"] for row in rows]
    assert versions == sorted(set(versions))


def test_the_last_of_many_versions_is_scored_too(incoming, out):
    with watching(incoming, out, settle_s=0.1) as watch:
        with replacing(incoming / "live.png", 0.03):
            watch.until(lambda: watch.shown)
        picture(incoming / "live.png", 255)
        watch.until(lambda: watch.shown[-1]["anomaly_score"] == 1)
        status = (incoming / "live.png").stat()
    assert rows_in(out)[-1]["file"]["modified_ns"] == status.st_mtime_ns


def test_a_result_is_kept_when_its_picture_is_replaced_meanwhile(incoming, out):
    """Before: it was thrown away, and the next one too, where scoring takes longer than a picture stays."""
    model = QuickModel(seconds=0.3)
    with watching(incoming, out, model, settle_s=30) as watch, replacing(incoming / "live.png", 0.05):
        watch.until(lambda: len(watch.shown) >= 2)
    rows = rows_in(out)
    assert len({row["file"]["modified_ns"] for row in rows}) == len(rows)


def test_a_name_that_is_replaced_by_what_cannot_be_read_fails_in_time(incoming, out):
    def damaged(path, brightness):
        picture(path, brightness)
        hidden = path.with_name(".damaged.png")
        hidden.write_bytes(path.read_bytes()[: 40 + brightness % 20])
        hidden.rename(path)

    with watching(incoming, out, patience_s=0.3) as watch, replacing(incoming / "live.png", 0.02, damaged):
        watch.until(lambda: any(row["error"] for row in watch.shown))


def test_a_file_that_grows_for_long_is_no_name_that_is_replaced(incoming, out, tmp_path):
    """The bound of settling is not for it: half of a picture would be scored."""
    data = noise(tmp_path / "whole.png")
    model, clock = QuickModel(), Seconds()
    with watching(incoming, out, model, settle_s=0.15, now=clock) as watch:
        with (incoming / "slow.png").open("wb") as file:
            for start in range(0, len(data), len(data) // 16):
                file.write(data[start : start + len(data) // 16])
                file.flush()
                time.sleep(0.05)  # for the watch to look
                clock.pass_by(0.1)
        watch.until(lambda: clock.pass_by(0.01) or watch.shown)
    assert model.batches == [1]
    assert watch.shown[0]["error"] is None
