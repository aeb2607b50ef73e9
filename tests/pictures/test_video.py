"""Frames of videos: every one, in order, named by its second; a video that was cut off keeps its whole frames."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from winspect.errors import MissingExtraError, PictureError, SourceError
from winspect.pictures.given import Given, is_single, pictures_given
from winspect.pictures.video import frames_of, need_opencv, rgb_of

FRAMES, SIZE_WH, PER_SECOND = 8, (96, 64), 10


def grey_of(number: int) -> int:
    return 20 + 25 * number


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Motion JPEG: each frame is a picture of its own, red above and green below, of a brightness of its own."""
    pytest.importorskip("cv2", reason='videos need: pip install "winspect[watch]"')
    cv2 = need_opencv("a test")
    path = tmp_path_factory.mktemp("videos") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), PER_SECOND, SIZE_WH)
    for number in range(FRAMES):
        rgb = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
        rgb[:32, :, 0] = rgb[32:, :, 1] = grey_of(number)
        rgb[:, :48] = np.random.default_rng(number).integers(0, 256, (SIZE_WH[1], 48, 3))  # bytes to be cut
        writer.write(np.ascontiguousarray(rgb[:, :, ::-1]))
    writer.release()
    return path


def test_every_frame_in_rgb_with_its_second(video):
    frames = list(frames_of(str(video)))
    assert [name for name, _ in frames] == [f"{video}#t={number / PER_SECOND:.3f}" for number in range(FRAMES)]
    for number, (_, rgb) in enumerate(frames):
        assert (rgb.shape, rgb.dtype) == ((64, 96, 3), np.uint8)
        assert np.abs(rgb[10, 80].astype(int) - [grey_of(number), 0, 0]).max() < 12
        assert np.abs(rgb[60, 80].astype(int) - [0, grey_of(number), 0]).max() < 12


@pytest.mark.parametrize("share", [0.45, 0.6, 0.75])
def test_a_video_that_ends_in_mid_frame_keeps_what_is_whole(video, tmp_path, share):
    whole = video.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: int(len(whole) * share)])
    *frames, (name, error) = frames_of(str(cut))
    assert 1 <= len(frames) < FRAMES
    for number, (_, rgb) in enumerate(frames):
        expected = dict(frames_of(str(video)))[f"{video}#t={number / PER_SECOND:.3f}"]
        np.testing.assert_array_equal(rgb, expected)
    assert name == str(cut)
    assert isinstance(error, PictureError)
    assert f"ends in mid-frame: {len(frames)} of {FRAMES} frames are whole" in str(error)


def test_a_model_scores_what_is_whole(small_model, video, tmp_path):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[: int(video.stat().st_size * 0.6)])
    results = small_model.predict(cut)
    assert len(results) >= 2
    assert [result.path for result in results[:2]] == [f"{cut}#t=0.000", f"{cut}#t=0.100"]
    assert [result.error is not None for result in results] == [False] * (len(results) - 1) + [True]
    assert "mid-frame" in str(results[-1].error)
    (first, rgb), *_ = frames_of(str(video))
    assert results[0].anomaly_score == pytest.approx(small_model.predict(rgb).anomaly_score, abs=1e-6), first
    assert len(small_model.predict(str(video))) == FRAMES


@pytest.mark.parametrize(
    "content",
    [b"", b"no video", b"#EXTM3U\nhttp://127.0.0.1:9/secret.ts\n", b"\0\0\0\x1cftypisom" + b"\0" * 60],
    ids=["empty", "text", "playlist", "header"],
)
def test_what_is_no_video(content, tmp_path, capfd):
    pytest.importorskip("cv2")
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a video that can be read here"):
        pictures_given(path)
    assert capfd.readouterr().err == ""


def test_without_opencv_the_extra_is_named(monkeypatch, video):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"reading a video needs: pip install .*\[watch\]"):
        frames_of(str(video))


def test_a_video_is_not_a_single_picture(tmp_path):
    assert not is_single(tmp_path / "a.MKV")
    assert not is_single("a.txt")
    assert is_single("a.png") and is_single(tmp_path / "a") and is_single(b"\x89PNG")
    assert not is_single(tmp_path) and not is_single("*.png") and not is_single(["a.png"])


def test_an_error_stands_for_the_frame_that_is_lost():
    with pytest.raises(PictureError, match="lost"):
        Given("a", PictureError("a", "lost")).source()


def test_grey_frames():
    np.testing.assert_array_equal(rgb_of(np.array([[1, 2]], np.uint8)), [[[1, 1, 1], [2, 2, 2]]])
