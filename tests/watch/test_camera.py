"""A camera: OpenCV on a real stream of MJPEG over HTTP, and its faults. RTSP and devices need hardware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.watch.cameras import PASSWORD, USER, mjpeg_camera
from tests.watch.fakes import QuickModel
from winspect.calibration import DecisionRule
from winspect.errors import SettingsError, SourceError
from winspect.watch.camera import Camera, camera_source, frame_of, masked, video_frames
from winspect.watch.results import WatchResults
from winspect.watch.run import Station, Status

cv2 = pytest.importorskip("cv2")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server():
    with mjpeg_camera() as camera:
        yield camera


@contextmanager
def reading(source, **options):
    """A camera that is being read."""
    stop = threading.Event()
    with Camera(source, stop=stop, pauses_s=(0.1, 0.4), **options) as camera:
        yield camera
        stop.set()


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.01)


class Capture:
    """What OpenCV gives, from a list: an array is a frame, False a stream that is lost, an exception is raised."""

    def __init__(self, items):
        self.items, self.released = iter(items), False

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        item = next(self.items, False)
        if isinstance(item, Exception):
            raise item
        return (False, None) if item is False else (True, item)

    def release(self):
        self.released = True


def bgr(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_the_newest_frame_is_handed_out_never_a_backlog(server):
    with reading(server.url) as camera:
        first = camera.newest(wait_s=60)
        assert first.rgb.shape == (48, 64, 3)
        assert first.rgb.dtype == np.uint8
        sent = server.sent
        until(lambda: server.sent > sent + 40)  # nobody takes these
        before, frame = server.sent, camera.newest(wait_s=1)
        assert before - 8 <= round(frame.rgb.mean()) <= server.sent + 1
        assert frame.name > first.name
        assert camera.silent_s == 0


def test_a_frame_is_handed_out_once(server):
    server.frozen.set()
    with reading(server.url, frozen_s=0) as camera:
        assert camera.newest(wait_s=60) is not None
        server.hang_up.set()
        until(lambda: camera.silent_s > 0)
        camera.newest(wait_s=0)
        assert camera.newest(wait_s=0.2) is None


def test_a_connection_that_is_lost_is_made_again(server, caplog):
    with reading(server.url) as camera:
        assert camera.newest(wait_s=60)
        server.away.set()
        server.hang_up.set()
        until(lambda: "the stream was lost; connecting again in 0.1 s" in caplog.text)
        until(lambda: "cannot be opened" in caplog.text)
        camera.newest(wait_s=0)
        assert camera.newest(wait_s=0.1) is None
        assert camera.silent_s > 0
        server.away.clear()
        server.hang_up.clear()
        until(lambda: camera.newest(wait_s=0.1))
        assert "pictures after" in caplog.text
        assert server.connections >= 2


def test_a_frozen_stream_is_not_scored_and_connected_again(server, caplog):
    with reading(server.url, frozen_s=0.4) as camera:
        assert camera.newest(wait_s=60)
        server.frozen.set()
        until(lambda: "frozen, the same picture for 0.4 s; connecting again" in caplog.text)
        until(lambda: server.connections >= 2)  # it is connected again, and still frozen
        camera.newest(wait_s=0)
        assert camera.newest(wait_s=0.3) is None
        server.frozen.clear()
        assert camera.newest(wait_s=60)


def test_pauses_grow_up_to_the_longest(caplog):
    calls = []

    def connect(_):
        calls.append(time.monotonic())
        return Capture([])

    stop = threading.Event()
    with Camera(0, stop=stop, pauses_s=(0.02, 0.08), connect=connect):
        until(lambda: len(calls) >= 6)
    told = [line.rsplit(" in ", 1)[1] for line in caplog.messages]
    assert told[:5] == ["0.02 s", "0.04 s", "0.08 s", "0.08 s", "0.08 s"]
    assert all("device 0: the stream was lost" in line for line in caplog.messages)


def test_what_opencv_raises_is_not_repeated(caplog):
    """Its words may hold the URL."""
    captures = iter([Capture([bgr(1), cv2.error("cannot read rtsp://u:hidden@host")]), Capture([bgr(2)] * 2)])
    with reading("rtsp://u:hidden@host/1", connect=lambda _: next(captures, Capture([]))) as camera:
        until(lambda: "cannot be read" in caplog.text)
        until(lambda: camera.newest(wait_s=0.1))
    assert "hidden" not in caplog.text
    assert "rtsp://***@host/1" in caplog.text


def test_a_frame_is_rgb_and_grey_becomes_rgb():
    moment = datetime(2026, 11, 22, 14, 5, 9, 250)
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:, :, 0] = 200  # blue in OpenCV's order
    frame = frame_of(colour, moment)
    assert frame.name == "2026-11-22T140509.000250Z.png"
    assert frame.rgb[0, 0].tolist() == [0, 0, 200]
    assert frame_of(np.full((8, 8), 7, np.uint8), moment).rgb[3, 3].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.7:554/stream1", "rtsp://10.0.0.7:554/stream1"),
        ("rtsp://admin:pw@10.0.0.7/1", "rtsp://***@10.0.0.7/1"),
        ("rtsp://admin:p@ss/w?rd@10.0.0.7/1", "rtsp://***@10.0.0.7/1"),
        ("rtsp://admin@10.0.0.7/1", "rtsp://***@10.0.0.7/1"),
        ("http://cam/mjpg?user=a&pwd=pw", "http://cam/mjpg?***"),
        ("rtsp://cam:554/user=admin_password=pw_channel=1", "rtsp://cam:554/user=admin_password=***"),
        ("rtsp://cam/token=pw/1", "rtsp://cam/token=***/1"),
    ],
)
def test_passwords_are_masked(url, shown):
    assert masked(url) == shown
    assert "pw" not in masked(url)


def test_what_a_source_is(tmp_path):
    (tmp_path / "url").write_text("rtsp://a:b@c/d\nsecond line")
    (tmp_path / "belt.mp4").write_bytes(b"")
    assert camera_source("0") == 0
    assert camera_source("/dev/video12") == 12
    assert camera_source("http://c/x.mjpg") == "http://c/x.mjpg"
    assert camera_source(f"@{tmp_path / 'url'}") == "rtsp://a:b@c/d"
    assert camera_source(str(tmp_path / "belt.mp4")) == tmp_path / "belt.mp4"
    with pytest.raises(SourceError, match="no such folder, video file, device or URL"):
        camera_source(str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match="cannot read the URL from this file"):
        camera_source("@nowhere")


def run_camera(url, out, model, count, **options):
    """Watch until there are so many rows; returns them, and what was said."""
    stop, rows, said = threading.Event(), [], []

    def show(row):
        rows.append(row)
        if len(rows) == count:
            stop.set()

    camera = Camera(url, stop=stop)
    every_s = options.pop("every_s", 0.1)
    with WatchResults(out, stop=stop, **options) as results:
        Station(model, results, Status(said.append, every_s=0.1), show).watch_camera(camera, every_s=every_s)
    (file,) = out.glob("predictions-*.jsonl")
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows
    return rows, said


def test_frames_become_rows_and_the_wanted_ones_are_kept(server, tmp_path):
    model = QuickModel()
    rows, _ = run_camera(
        server.url, tmp_path, model, 8, frames="anomalous", keep_frames=3, rule=DecisionRule(0.02), maps="all"
    )
    assert model.batches == [1] * 8
    assert len({row["path"] for row in rows}) == 8
    kept = [row["frame"] for row in rows if row["verdict"] == "anomalous"]
    assert all(row["frame"] is None for row in rows if row["verdict"] == "normal")
    assert sorted(f"frames/{path.name}" for path in (tmp_path / "frames").iterdir()) == kept[-3:]
    with Image.open(tmp_path / kept[-1]) as frame:  # what was scored, without loss
        score = np.asarray(frame).mean() / 255
    assert score == pytest.approx(next(row for row in rows if row["frame"] == kept[-1])["anomaly_score"])
    assert all((tmp_path / row["map"]).is_file() for row in rows)


def test_the_password_is_nowhere(server, tmp_path, caplog):
    rows, said = run_camera(server.url, tmp_path, QuickModel(), 2, frames="all")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (PASSWORD, USER):
        assert secret.encode() not in written
        assert secret not in caplog.text + str(said) + str(rows)
    assert rows[0]["source"] == f"http://***@127.0.0.1:{server.server_port}/video.mjpg?***"


def test_opencv_prints_no_password_when_the_camera_cannot_be_reached(server):
    """In a process of its own: what libraries print goes past Python."""
    server.away.set()
    code = (
        "import sys, threading, time, logging\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "from winspect.watch.camera import Camera\n"
        "for url in sys.stdin.read().split():\n"
        "    with Camera(url, stop=threading.Event(), pauses_s=(0.05, 0.1)):\n"
        "        time.sleep(0.3)\n"
    )
    urls = [server.url, server.url.replace(PASSWORD, "wr0ng-pa55"), f"rtsp://u:{PASSWORD}@127.0.0.1:1/x"]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(urls),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        timeout=60,
    )
    assert "cannot be opened" in done.stderr
    for secret in (PASSWORD, "wr0ng-pa55", USER):
        assert secret not in done.stdout + done.stderr


def test_scoring_that_takes_longer_than_every_is_said(server, tmp_path):
    _, said = run_camera(server.url, tmp_path, QuickModel(0.2), 3, every_s=0.05)
    assert any("frames skipped" in line for line in said)


def test_a_video_file_is_scored_to_its_end(tmp_path):
    path = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(35):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()
    rows = []
    with WatchResults(tmp_path / "out", stop=threading.Event()) as results:
        Station(QuickModel(), results, Status(print, every_s=0), rows.append).watch_video(path)
    assert [row["second"] for row in rows] == [0, 1, 2, 3]
    assert [row["anomaly_score"] * 255 for row in rows] == pytest.approx([0, 50, 100, 150], abs=3)
    assert {row["source"] for row in rows} == {str(path)}


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(SourceError, match="not a video that can be read here"):
        list(video_frames(tmp_path / "a.mp4"))
    with pytest.raises(SettingsError, match="above 0"):
        list(video_frames(tmp_path / "a.mp4", every_s=0))
