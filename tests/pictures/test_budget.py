"""The decode budget: bytes shared by all threads, and an end for what takes too long."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.pictures.attacks import progressive_bomb, webp_bomb
from winspect.errors import DemandingPictureError, PictureError
from winspect.pictures import budget
from winspect.pictures.budget import BUDGET, Budget, cost_of
from winspect.pictures.decoding import decode_picture, read_rgb
from winspect.pictures.pool import prepare_many
from winspect.pictures.tiles import Preprocess


def ascii_picture(side: int) -> bytes:
    """Which Python reads pixel by pixel: a microsecond and more for each."""
    return f"P3 {side} {side} 255\n".encode() + b"10 200 30\n" * side**2


@pytest.fixture
def all_demanding(monkeypatch):
    monkeypatch.setattr(budget, "DEMANDING_S", 0.0)


def test_bytes_in_use_never_exceed_the_budget():
    shared, most, lock = Budget(1000), [0], threading.Lock()

    def decode(size: int) -> None:
        with shared.hold(size):
            with lock:
                most[0] = max(most[0], shared.used)
            time.sleep(0.002)

    sizes = [50, 700, 61, 400, 10_000, 30] * 4
    threads = [threading.Thread(target=decode, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 700 <= most[0] <= 1000 and shared.used == 0


def test_large_pictures_wait_for_each_other_and_small_ones_for_nobody():
    shared, waiting, entered = Budget(1000), threading.Event(), threading.Event()

    def second() -> None:
        waiting.set()
        with shared.hold(700):
            entered.set()

    with shared.hold(700):
        thread = threading.Thread(target=second)
        thread.start()
        waiting.wait(5)
        time.sleep(0.02)
        with shared.hold(60), shared.hold(60):  # though a large one has waited before them
            assert not entered.is_set()
    assert entered.wait(5)
    thread.join()


def test_decoding_takes_the_budget_until_the_picture_is_small():
    seen = []

    class Watching(Preprocess):
        def resize(self, rgb, box=None):
            seen.append(BUDGET.used)
            return super().resize(rgb, box)

    file = io.BytesIO()
    Image.effect_noise((300, 200), 50).convert("RGB").save(file, "JPEG")
    list(prepare_many([file.getvalue()], Watching(16)))
    assert seen == [300 * 200 * 9]
    assert BUDGET.used == 0


def test_costs_follow_from_headers():
    bomb = progressive_bomb(side=7_000, scans=500)
    with Image.open(io.BytesIO(bomb)) as image:
        assert cost_of(image, scans=500).is_demanding
        assert not cost_of(image).is_demanding
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(io.BytesIO(webp_bomb())) as image:
            assert image.size == (16383, 10900)
            assert cost_of(image).size > 3e9
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_a_demanding_picture_is_the_same_elsewhere(all_demanding):
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, kind, options in (("RGB", "JPEG", {"exif": exif}), ("L", "PNG", {}), ("RGB", "TIFF", {})):
        file = io.BytesIO()
        pixels = random.integers(0, 255, (40, 60, 3) if mode == "RGB" else (40, 60), np.uint8)
        Image.fromarray(pixels).save(file, kind, **options)
        np.testing.assert_array_equal(read_rgb(file), np.asarray(decode_picture(file, demanding="here").image))
    with pytest.raises(PictureError, match="<bytes>: truncated, the file ends before the picture does"):
        read_rgb(file.getvalue()[:5000])
    dark = Image.fromarray(np.full((20, 30), 900, np.uint16))
    file = io.BytesIO()
    dark.save(file, "PNG")
    assert "less than 1/8 of the range" in decode_picture(file).warning


def test_what_takes_too_long_is_an_error_after_a_stated_time(monkeypatch, tmp_path):
    """And only that: the pictures round it are judged."""
    monkeypatch.setattr(budget, "DECODE_LIMIT_S", 0.3)
    (tmp_path / "slow.ppm").write_bytes(ascii_picture(900))
    Image.effect_noise((30, 20), 50).save(tmp_path / "good.png")
    names = [tmp_path / name for name in ("good.png", "slow.ppm", "good.png")]
    first, slow, last = prepare_many(names, Preprocess(16))
    assert isinstance(slow, PictureError)
    assert str(slow).startswith(f"{tmp_path / 'slow.ppm'}: not decoded within 0.3 s: damaged, or too demanding")
    assert first.tiles.shape == last.tiles.shape == (1, 3, 16, 16)


def test_a_decoder_that_dies_is_an_error_of_its_picture(monkeypatch, all_demanding):
    monkeypatch.setattr(budget, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(PictureError, match=r"its decoder died .exit code -11.: damaged, or not enough memory"):
        read_rgb(ascii_picture(10))


def test_a_place_that_waits_for_nothing_refuses_them():
    slow = ascii_picture(900)
    with pytest.raises(DemandingPictureError, match=r"takes about 1\.2 s"):
        decode_picture(slow, demanding="refuse")
    assert decode_picture(ascii_picture(20), demanding="refuse").image.size == (20, 20)
