"""Tiles, resizing and normalising against open_clip's own transform, and the pool of decoding threads."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from winspect.errors import PictureError, SettingsError, SourceError
from winspect.pictures.decoding import read_rgb
from winspect.pictures.pool import LIVE_S, Pace, prepare_many
from winspect.pictures.tiles import (
    MAX_TILES,
    Cut,
    Prepared,
    Preprocess,
    last_tile_count,
    prepare,
    tile_boxes,
)

TEXTILE = sorted((Path(__file__).parents[2] / "examples" / "textile").glob("*.jpg"))


@pytest.fixture(scope="module")
def image_transform():
    return pytest.importorskip("open_clip.transform").image_transform


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise at several scales, so that antialiasing, ringing and clipping all have something to do."""
    rng = np.random.default_rng(seed)
    layers = []
    for step in (1, 7, 40):
        noise = rng.integers(0, 256, (height // step + 1, width // step + 1, 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(noise).resize((width, height)), np.float32))
    mixed = sum(layers) / len(layers)
    return np.clip((mixed - 128) * 3 + 128, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


# --- tiles ------------------------------------------------------------------------------------------------------------


def test_tile_boxes_by_hand():
    assert tile_boxes(100, 100) == [(0, 0, 100, 100)]
    assert tile_boxes(250, 100) == [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    assert tile_boxes(100, 250) == [(0, 0, 100, 100), (0, 80, 100, 180), (0, 150, 100, 250)]
    assert tile_boxes(101, 100) == [(0, 0, 100, 100), (1, 0, 101, 100)]
    # 260 = 100 + 2 x 80: the last stride is flush by itself and must not come twice.
    assert tile_boxes(260, 100) == [(0, 0, 100, 100), (80, 0, 180, 100), (160, 0, 260, 100)]
    assert tile_boxes(14, 7) == [(0, 0, 7, 7), (5, 0, 12, 7), (7, 0, 14, 7)]  # int(0.8 * 7) = 5
    assert tile_boxes(30, 10, stride_fraction=1) == [(0, 0, 10, 10), (10, 0, 20, 10), (20, 0, 30, 10)]
    assert tile_boxes(3, 1) == [(0, 0, 1, 1), (1, 0, 2, 1), (2, 0, 3, 1)]


@pytest.mark.parametrize(
    ("width", "height", "count"),
    [
        (1562, 960, 2),  # VisA's pcb3; starts 0, 768, 1536: 0, 602, 602
        (960, 1562, 2),
        (100, 100, 1),
        (130, 100, 1),
        (160, 100, 1),
        (161, 100, 2),  # starts 0, 80, 160: 0, 61, 61
        (180, 100, 2),
        (181, 100, 1),
    ],
)
def test_the_last_tile_counts_as_often_as_the_base_program_cuts_it(width, height, count):
    assert last_tile_count(width, height) == count
    long, side = max(width, height), min(width, height)
    if long > side:
        starts = [min(start, long - side) for start in range(0, long, int(0.8 * side))]
        assert starts.count(long - side) == count
        assert [x0 + y0 for x0, y0, _, _ in tile_boxes(width, height)] == sorted(set(starts))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8, 1.0])
def test_tiles_are_square_inside_distinct_and_leave_no_gap(fraction):
    rng = np.random.default_rng(1)
    for width, height in rng.integers(8, 500, (60, 2)).tolist():
        boxes = tile_boxes(width, height, stride_fraction=fraction)
        side = min(width, height)
        assert len(set(boxes)) == len(boxes)
        assert all(x1 - x0 == y1 - y0 == side for x0, y0, x1, y1 in boxes)
        starts = [x0 + y0 for x0, y0, _, _ in boxes]
        steps = np.diff(starts)
        assert (starts[0], starts[-1]) == (0, max(width, height) - side)
        assert (steps[:-1] == max(1, int(fraction * side))).all()
        assert (steps > 0).all() and (steps <= side).all()
        assert tile_boxes(height, width, stride_fraction=fraction) == [(y0, x0, y1, x1) for x0, y0, x1, y1 in boxes]


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_tile_boxes_refuses_empty_pictures(width, height):
    with pytest.raises(SettingsError, match=f"got a picture of {width}x{height}, need at least 1x1"):
        tile_boxes(width, height)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan")])
def test_tile_boxes_refuses_strides(fraction):
    with pytest.raises(SettingsError, match="stride_fraction: got"):
        tile_boxes(30, 10, stride_fraction=fraction)


# --- resizing and normalising -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXTILE, ids=lambda path: path.stem)
def test_textile_pictures_equal_open_clips_own_transform(path, image_transform):
    preprocess = Preprocess()
    ours = preprocess(read_rgb(path))
    with Image.open(path) as image:
        for mode in ("squash", "shortest"):  # the pictures are square
            theirs = image_transform(240, is_train=False, resize_mode=mode)(image).numpy()
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) == (np.float32, (3, 240, 240))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_there_are_textile_pictures():
    assert len(TEXTILE) >= 12


@pytest.mark.parametrize("size_wh", [(640, 480), (480, 640), (1000, 97), (240, 240), (37, 211), (50, 50)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_generated_pictures_equal_open_clips_own_transform(size_wh, interpolation, image_transform):
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    preprocess = Preprocess(224, mean, std, interpolation)
    theirs = image_transform(224, is_train=False, mean=mean, std=std, resize_mode="squash", interpolation=interpolation)
    for data in (
        encoded(Image.fromarray(photo(*size_wh)), "JPEG"),
        encoded(Image.fromarray(photo(*size_wh)), "PNG"),
        encoded(Image.fromarray(photo(*size_wh)[:, :, 0]), "PNG"),
        encoded(Image.fromarray(photo(*size_wh)).convert("CMYK"), "TIFF"),
    ):
        ours = prepare(data, preprocess).tiles
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")  # see Preprocess: for CMYK open_clip would resize first
        np.testing.assert_allclose(ours, theirs(rgb).numpy()[None], rtol=0, atol=1e-6)


def test_every_tile_equals_open_clip_on_the_cropped_picture(image_transform):
    pixels = photo(500, 180)
    theirs = image_transform(240, is_train=False)  # its default mode: a square crop is not squashed
    prepared = prepare(pixels, Preprocess(), Cut(tiling=True))
    assert prepared.boxes == [(0, 0, 180, 180), (144, 0, 324, 180), (288, 0, 468, 180), (320, 0, 500, 180)]
    assert prepared.tiles.shape == (4, 3, 240, 240)
    for tile, box in zip(prepared.tiles, prepared.boxes, strict=True):
        np.testing.assert_allclose(tile, theirs(Image.fromarray(pixels).crop(box)).numpy(), rtol=0, atol=1e-6)


def test_normalising_by_hand():
    """The bundled model's constants: the input is (x - 127) / 128. No resizing at the model's own size."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = (127, 255, 63)
    batch = Preprocess(8, (127 / 255,) * 3, (128 / 255,) * 3)(pixels)
    np.testing.assert_allclose(batch[:, 0, 0], [0, 1, -0.5], atol=1e-6)
    np.testing.assert_allclose(batch[:, 1:], -127 / 128, atol=1e-6)


def test_a_box_sees_no_pixel_outside(image_transform):
    pixels = photo(60, 40)
    inside = Preprocess(32)(pixels, (10, 0, 50, 40))
    pixels[:, :10] = 255
    pixels[:, 50:] = 0
    np.testing.assert_array_equal(Preprocess(32)(pixels, (10, 0, 50, 40)), inside)
    np.testing.assert_array_equal(Preprocess(32)(Image.fromarray(pixels), (0, 0, 60, 40)), Preprocess(32)(pixels))


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 61, 40), (5, 5, 5, 9), (9, 0, 5, 5), (0, 30, 40, 41)])
def test_boxes_outside_the_picture_are_refused(box):
    with pytest.raises(SettingsError, match="is not inside the picture of 60x40"):
        Preprocess(32)(photo(60, 40), box)


@pytest.mark.parametrize("array", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)])
def test_preprocess_refuses_what_is_not_rgb(array):
    with pytest.raises(PictureError, match=r"need uint8 .H, W, 3.: pass it through read_rgb first"):
        Preprocess(32)(array)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size: got 0"),
        ({"size": 240.0}, "size: got 240.0"),
        ({"mean": (0.5, 0.5)}, "mean: got .0.5, 0.5., need three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean: got"),
        ({"std": (0.5, 0.5, 0)}, "std: got .* above 0"),
        ({"std": (1, 1, 1, 1)}, "std: got"),
        ({"interpolation": "nearest"}, 'interpolation: got \'nearest\', need "bicubic" or "bilinear"'),
    ],
)
def test_preprocess_settings_are_checked(settings, message):
    with pytest.raises(SettingsError, match=message):
        Preprocess(**settings)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size_wh", [(90, 90), (250, 80), (70, 200), (48, 48)])
def test_the_two_halves_are_the_whole_bit_for_bit(size_wh, interpolation):
    """Against the arithmetic in its plainest form: Pillow resizes, then every value is normalised in float32."""
    preprocess = Preprocess(48, interpolation=interpolation)
    rgb = photo(*size_wh)
    box = (5, 3, 41, 44)
    method = Image.Resampling[interpolation.upper()]
    resized = preprocess.resize(rgb, box)
    assert (resized.dtype, resized.shape) == (np.uint8, (48, 48, 3))
    np.testing.assert_array_equal(resized, np.asarray(Image.fromarray(rgb).crop(box).resize((48, 48), method)))
    mean, std = np.float32(preprocess.mean), np.float32(preprocess.std)
    plain = ((resized.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
    for tiles in (preprocess(rgb, box), preprocess.normalise(resized)):
        assert (tiles.dtype, tiles.shape) == (np.float32, (3, 48, 48))
        np.testing.assert_array_equal(tiles, plain)


def test_normalising_takes_any_number_of_tiles():
    preprocess = Preprocess(8)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    tiles = preprocess.normalise(pixels)
    assert (tiles.dtype, tiles.shape) == (np.float32, (2, 3, 3, 8, 8))
    assert tiles.flags.c_contiguous and tiles.flags.writeable
    for place in np.ndindex(2, 3):
        np.testing.assert_array_equal(tiles[place], preprocess.normalise(pixels[place]))
    assert preprocess.normalise(pixels[:0]).shape == (0, 3, 3, 8, 8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((1, 9, 8, 3), np.uint8),
        np.zeros((8, 3), np.uint8),
    ],
)
def test_normalising_refuses_what_was_not_resized_for_it(pixels):
    with pytest.raises(SettingsError, match=r"got dtype .*, need uint8 \(..., 8, 8, 3\)"):
        Preprocess(8).normalise(pixels)


def test_preprocess_takes_lists_and_stays_hashable():
    assert hash(Preprocess(mean=[0, 0, 0])) == hash(Preprocess(mean=(0.0, 0.0, 0.0)))


# --- one picture ------------------------------------------------------------------------------------------------------


def test_prepare_says_what_it_did(tmp_path):
    path = tmp_path / "wide.png"
    path.write_bytes(encoded(Image.fromarray(photo(100, 40)), "PNG"))
    whole = prepare(path, Preprocess(32))
    assert (whole.name, whole.size_wh, whole.boxes, whole.rgb) == (str(path), (100, 40), [(0, 0, 100, 40)], None)
    kept = prepare(str(path), Preprocess(32), Cut(tiling=True, stride_fraction=1), keep_rgb=True)
    assert kept.boxes == [(0, 0, 40, 40), (40, 0, 80, 40), (60, 0, 100, 40)]
    np.testing.assert_array_equal(kept.rgb, photo(100, 40))
    assert kept.rgb.flags.writeable and kept.tiles.flags.writeable and kept.tiles.flags.c_contiguous


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("tiling", [False, True])
@pytest.mark.parametrize("size_wh", [(80, 80), (250, 80), (80, 250)])
def test_tiles_are_each_box_resized_and_normalised(size_wh, tiling, interpolation):
    preprocess = Preprocess(48, interpolation=interpolation)
    data = encoded(Image.fromarray(photo(*size_wh)), "PNG")
    item = prepare(data, preprocess, Cut(tiling, stride_fraction=0.7))
    by_hand = np.stack([preprocess(photo(*size_wh), box) for box in item.boxes])
    assert item.tiles.dtype == by_hand.dtype == np.float32
    np.testing.assert_array_equal(item.tiles, by_hand)
    assert len(item.boxes) == (5 if tiling and size_wh != (80, 80) else 1)


def test_size_and_boxes_are_those_of_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(photo(100, 40)), "PNG", exif=exif)
    prepared = prepare(data, Preprocess(32), Cut(tiling=True), keep_rgb=True)
    assert prepared.size_wh == (40, 100)
    assert prepared.rgb.shape == (100, 40, 3)
    assert prepared.boxes == tile_boxes(40, 100)


@pytest.mark.parametrize(("width", "height"), [(10, 4000), (4000, 10), (10, 600), (8, 400_000)])
def test_too_many_tiles_point_to_the_other_recipe(width, height):
    strip = np.zeros((height, width), np.uint8)
    with pytest.raises(PictureError) as caught:
        prepare(strip, Preprocess(32), Cut(tiling=True))
    assert caught.value.reason == (
        f'{width}x{height} makes more than {MAX_TILES} tiles: use recipe "paper", or crop it'
    )
    assert len(prepare(strip, Preprocess(32)).tiles) == 1


def test_as_many_tiles_as_allowed():
    strip = np.zeros((10, 10 + 8 * (MAX_TILES - 1)), np.uint8)
    assert len(prepare(strip, Preprocess(8), Cut(tiling=True)).tiles) == MAX_TILES


def test_prepare_refuses():
    with pytest.raises(PictureError, match="the limit is"):
        prepare(photo(20, 20), Preprocess(32), Cut(max_pixels=399))
    with pytest.raises(SettingsError, match=r"need .2, 3, S, S"):
        Prepared("x", (9, 9), [(0, 0, 9, 9)] * 2, np.zeros((1, 3, 4, 4), np.float32))


# --- many pictures ----------------------------------------------------------------------------------------------------


def test_order_is_kept_and_bad_pictures_keep_their_place(tmp_path):
    sources = [photo(20 + index, 20) for index in range(40)]
    sources[3] = tmp_path / "missing.jpg"
    sources[17] = b"no picture"
    for workers, ahead in ((1, 1), (1, 5), (4, None), (4, 2), (2, 100), (None, None)):
        results = list(prepare_many(iter(sources), Preprocess(8), workers=workers, ahead=ahead))
        assert len(results) == 40
        for index, result in enumerate(results):
            if index in (3, 17):
                assert isinstance(result, PictureError)
            else:
                assert result.size_wh == (20 + index, 20)
        assert results[3].path == str(tmp_path / "missing.jpg")
    assert list(prepare_many([], Preprocess(8))) == []


def test_many_equals_one_by_one():
    preprocess = Preprocess(64)
    for path, result in zip(TEXTILE, prepare_many(TEXTILE, preprocess, workers=4, keep_rgb=True), strict=True):
        alone = prepare(path, preprocess, keep_rgb=True)
        np.testing.assert_array_equal(result.tiles, alone.tiles)
        np.testing.assert_array_equal(result.rgb, alone.rgb)
        assert result.name == alone.name


def test_settings_reach_each_picture():
    sources = [photo(100, 40)]
    (tiles,) = prepare_many(sources, Preprocess(8), Cut(tiling=True, stride_fraction=1))
    assert len(tiles.boxes) == 3 and tiles.rgb is None
    (error,) = prepare_many(sources, Preprocess(8), Cut(max_pixels=3999))
    assert isinstance(error, PictureError)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 3), (4, 8)])
def test_memory_is_bounded_however_slow_the_consumer(workers, ahead):
    """Sources taken but not yet handed out never exceed ``ahead``, and what was handed out is let go."""
    taken = 0

    def alive() -> int:
        return sum(type(thing) is Prepared for thing in gc.get_objects())

    def feed():
        nonlocal taken
        for index in range(60):
            taken += 1
            yield photo(16, 16, index)

    before = alive()
    for consumed, result in enumerate(prepare_many(feed(), Preprocess(8), workers=workers, ahead=ahead)):
        assert isinstance(result, Prepared)
        if consumed % 10 == 0:
            time.sleep(0.02)  # long enough for idle workers to run ahead, if they could
            assert alive() - before <= ahead
        assert taken - consumed <= ahead
    assert taken == 60


@pytest.mark.parametrize("workers", [1, 4])
def test_a_live_source_is_not_read_ahead_of_what_it_has_given(workers):
    """Before: the first picture came when eight had been taken."""
    taken = []

    def camera():
        for index in range(6):
            time.sleep(2 * LIVE_S)
            taken.append(index)
            yield photo(16, 16, index)

    pace = Pace(iter(()))
    for handed_out, _ in enumerate(prepare_many(camera(), Preprocess(8), workers=workers, pace=pace)):
        assert (len(taken), pace.makes_wait) == (handed_out + 1, True)


def test_a_source_that_is_quick_is_read_ahead():
    taken = []

    def feed():
        for index in range(20):
            taken.append(index)
            yield photo(16, 16, index)

    pace = Pace(iter(()))
    stream = prepare_many(feed(), Preprocess(8), workers=1, ahead=5, pace=pace)
    next(stream)
    assert len(taken) == 1  # it might have been a camera
    next(stream)
    assert (len(taken), pace.makes_wait) == (6, False)
    stream.close()
    known = [photo(16, 16)] * 20
    pace = Pace(known)
    stream = prepare_many(known, Preprocess(8), workers=1, ahead=5, pace=pace)
    next(stream)
    assert not pace.makes_wait
    stream.close()


def test_threads_work_at_the_same_time():
    """Three pictures meet at a barrier inside their decoders: one after the other they never would."""
    barrier = threading.Barrier(3, timeout=10)

    class Meeting(Preprocess):
        def resize(self, rgb, box=None):
            barrier.wait()
            return super().resize(rgb, box)

    assert len(list(prepare_many([photo(16, 16)] * 3, Meeting(8), workers=3))) == 3


def test_closing_early_stops_the_workers():
    def feed():
        while True:
            yield photo(16, 16)

    stream = prepare_many(feed(), Preprocess(8), workers=3)
    next(stream)
    assert _pool_threads()
    started = time.perf_counter()
    stream.close()
    assert time.perf_counter() - started < 5
    assert not _pool_threads()


def test_waiting_pictures_are_dropped_on_close():
    """One picture is handed out, one is in work and ends after the close began, 48 wait and are never begun."""
    begun = []
    release = threading.Event()

    class Held(Preprocess):
        def resize(self, rgb, box=None):
            begun.append(1)
            if len(begun) > 1:
                release.wait(10)
            return super().resize(rgb, box)

    stream = prepare_many([photo(16, 16)] * 50, Held(8), workers=1, ahead=50)
    next(stream)
    timer = threading.Timer(0.5, release.set)
    timer.start()
    stream.close()
    timer.join()
    assert len(begun) <= 2


def test_an_interrupt_in_the_consumer_stops_the_workers():
    def consume():
        for _ in prepare_many((photo(16, 16) for _ in range(1000)), Preprocess(8), workers=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert not _pool_threads()


def test_a_failing_source_iterator_is_not_hidden():
    def feed():
        yield photo(16, 16)
        raise RuntimeError("the list of pictures broke")

    with pytest.raises(RuntimeError, match="the list of pictures broke"):
        list(prepare_many(feed(), Preprocess(8), ahead=1))
    assert not _pool_threads()


def test_what_a_decoder_raises_is_a_value_but_a_bug_is_not(monkeypatch, tmp_path):
    Image.open(TEXTILE[0]).save(tmp_path / "part.png")

    def explode(self):
        raise RuntimeError("boom")

    class Bug(Preprocess):
        def resize(self, rgb, box=None):
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", explode)
        (result,) = prepare_many([tmp_path / "part.png"], Preprocess(8))
    assert isinstance(result, PictureError) and "RuntimeError: boom" in str(result)
    with pytest.raises(ZeroDivisionError):
        list(prepare_many([TEXTILE[0]], Bug(8)))


def test_prepare_many_checks_at_once(tmp_path):
    for source in ("a.jpg", tmp_path, b"", photo(9, 9), Image.new("L", (9, 9)), io.BytesIO()):
        with pytest.raises(SourceError, match=r"got one picture .*, need several: put it into a list"):
            prepare_many(source, Preprocess(8))
    with pytest.raises(SettingsError, match="workers=0, ahead=0, need 1 or more"):
        prepare_many([], Preprocess(8), workers=0)
    with pytest.raises(SettingsError, match="ahead=0"):
        prepare_many([], Preprocess(8), ahead=0)


def test_importing_brings_neither_torch_nor_a_changed_warnings_filter():
    code = (
        "import sys, warnings, numpy; from PIL import Image, ImageFile; before = list(warnings.filters);"
        "limit = Image.MAX_IMAGE_PIXELS; import winspect.pictures.tiles, winspect.pictures.find;"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules;"
        "assert warnings.filters == before and Image.MAX_IMAGE_PIXELS == limit and not ImageFile.LOAD_TRUNCATED_IMAGES"
    )
    source_folder = str(Path(__file__).parents[2] / "src")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": source_folder})


def _pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("winspect-pictures")]
