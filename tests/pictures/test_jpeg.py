"""JPEG: libjpeg's warnings reach the result, undamaged files are decoded as before, and scans are counted first."""

from __future__ import annotations

import io
import itertools
import random
import sys
import warnings

import numpy as np
import pytest
from conftest import EXAMPLES
from PIL import Image

from tests.pictures.attacks import progressive_bomb
from winspect import WinCLIP
from winspect.errors import PictureError
from winspect.pictures import jpeg
from winspect.pictures.decoding import decode_picture, read_rgb

GOOD = EXAMPLES / "textile" / "nominal_0001.jpg"


def encoded(mode: str = "RGB", size_wh: tuple[int, int] = (200, 150), **options) -> bytes:
    with Image.open(GOOD) as image:
        noisy = np.asarray(image.convert(mode).resize(size_wh)).astype(int)
    noisy += np.random.default_rng(0).integers(-20, 20, noisy.shape)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8), mode).save(file, "JPEG", **options)
    return file.getvalue()


def without(data: bytes, start: float, count: int) -> bytes:
    """The file with bytes of its picture lost, its end marker whole."""
    entropy = data.index(b"\xff\xda") + 14
    place = entropy + int(start * (len(data) - entropy))
    return data[:place] + data[place + count :]


@pytest.fixture(params=["strict", "edge"])
def installation(request, monkeypatch):
    """With the strict decoder, and as on the edge, without it."""
    monkeypatch.setattr(jpeg, "has_strict_decoder", request.param == "strict")
    return request.param


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 2}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lost_bytes_are_a_warning(mode, options):
    damaged = without(encoded(mode, **options), 0.5, 150)
    warning = decode_picture(damaged).warning
    assert warning is not None and warning.startswith("damaged JPEG data (")
    assert warning.endswith("a part of the picture may be wrong; save or copy it again")
    with Image.open(io.BytesIO(damaged)) as image:  # the pixels are those that Pillow makes of it
        np.testing.assert_array_equal(read_rgb(damaged), np.asarray(image.convert("RGB")))


def test_the_warning_reaches_result_and_references(tmp_path, caplog):
    (tmp_path / "lost.jpg").write_bytes(without(GOOD.read_bytes(), 0.4, 200))
    model = WinCLIP("winspect-tiny", device="cpu", engine="torch", precision="fp32")
    result = model.predict(tmp_path / "lost.jpg", "textile")
    assert result.anomaly_score is not None and "premature end of data segment" in result.warning
    model.reference([tmp_path / "lost.jpg"], "textile")
    assert f"reference picture {tmp_path / 'lost.jpg'}: damaged JPEG data" in caplog.text


def test_whole_files_are_decoded_as_pillow_does(installation):
    """Every subsampling, progressive or not, grey or colour, odd sizes: bit for bit."""
    combinations = itertools.product(("RGB", "L"), (0, 1, 2, "4:1:1"), (False, True), ((33, 17), (200, 151)), (20, 95))
    for mode, subsampling, progressive, size_wh, quality in combinations:
        data = encoded(mode, size_wh, subsampling=subsampling, progressive=progressive, quality=quality)
        decoded = decode_picture(data)
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(image.convert("RGB")))
        assert decoded.warning is None


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_and_cmyk_are_as_before(installation, orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode in ("RGB", "CMYK"):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, len(mode)), np.uint8), mode).save(
            file, "JPEG", exif=exif
        )
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "has_strict_decoder", False)
            expected = read_rgb(file.getvalue())
        np.testing.assert_array_equal(read_rgb(file.getvalue()), expected)


def test_more_scans_than_any_encoder_makes_are_refused_before_decoding():
    """A file of 55 kB kept a core busy for a minute."""
    bomb = progressive_bomb(side=13_000, scans=5_000)
    assert len(bomb) < 60_000
    with pytest.raises(PictureError, match="a JPEG of more than 500 scans, made to keep decoders busy"):
        read_rgb(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(bomb)) as image, pytest.raises(PictureError, match="more than 500 scans"):
            read_rgb(image)


def scans_in(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return jpeg.count_scans(image, io.BytesIO(data), "a.jpg")


def test_scans_are_counted_as_the_decoder_meets_them():
    for scans in (1, 2, 499, 501, 5000):
        assert scans_in(progressive_bomb(side=16, scans=scans)) == min(scans, 501)
    assert scans_in(encoded()) == 1
    assert 6 <= scans_in(encoded(progressive=True)) <= 12


def test_neither_comments_nor_what_follows_the_picture_hide_or_feign_scans():
    bomb = progressive_bomb(side=16, scans=600)
    first = bomb.index(b"\xff\xda")
    end_marker = b"\xff\xfe\x00\x04\xff\xd9"  # a comment that holds an end of picture
    assert scans_in(bomb[:first] + end_marker + bomb[first:]) == 501
    second = bomb.index(b"\xff\xda", first + 2)
    assert scans_in(bomb[:second] + end_marker + bomb[second:]) == 501
    whole = encoded(progressive=True)
    film = whole + b"\xff\xda" * 1000  # as phones append one
    assert scans_in(film) == scans_in(whole)
    np.testing.assert_array_equal(read_rgb(film), read_rgb(whole))


def test_damage_of_every_kind_is_a_row(installation):
    """No traceback, and no size but the header's: 150 files with bytes lost, changed, or cut off."""
    dice = random.Random(4)
    originals = [encoded(mode, progressive=progressive) for mode in ("RGB", "L") for progressive in (False, True)]
    for _ in range(150):
        data = bytearray(dice.choice(originals))
        place = dice.randrange(2, len(data))
        if dice.random() < 0.5:
            data[place] = dice.randrange(256)
        else:
            del data[place : place + dice.choice((1, 10, 1000))]
        try:
            assert read_rgb(bytes(data)).dtype == np.uint8
        except PictureError as error:
            assert str(error).startswith("<bytes>: ")


@pytest.mark.parametrize("installation", ["edge"], indirect=True)
def test_the_edge_does_without(installation, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert decode_picture(without(encoded(), 0.5, 150)).warning is None
