"""More than 8 bits: cameras of fewer bits than their files, and what uses next to nothing of its range."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from conftest import EXAMPLES
from PIL import Image

from tests.pictures.tiff_files import GREY, RGB, tiff
from winspect import WinCLIP
from winspect.errors import PictureError, SettingsError
from winspect.inspector.calibrating import calibrate
from winspect.pictures.decoding import decode_picture, read_rgb
from winspect.pictures.depth import from_integers


def camera(bits: int = 12, count: int = 1) -> np.ndarray:
    """A picture of a camera of so many bits, in 16."""
    return np.random.default_rng(1).integers(0, 2**bits, (24, 31, count)).astype(np.uint16)


def scaled(values: np.ndarray, top: int) -> np.ndarray:
    small = (values[:, :, :3].astype(np.int64) * 255 + top // 2) // top
    return np.repeat(small, 3 // small.shape[2], axis=2).astype(np.uint8)


def png(values: np.ndarray) -> bytes:
    """16-bit grey or RGB, byte by byte: Pillow writes no 16-bit colour."""
    height, width, count = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[count], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files(count: int) -> dict[str, bytes]:
    """The same picture in every 16-bit kind of file."""
    values = camera(count=count)
    kinds = {"png": png(values)}
    for order, codec in (("<", "none"), (">", "none"), ("<", "lzw"), (">", "lzw")):
        colour = GREY if count == 1 else RGB
        extra = (2,) if count == 4 else ()
        kinds[f"tiff {order} {codec}"] = tiff(values.astype(f"{order}u2"), colour, codec=codec, extra=extra)
    return kinds


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_cameras_bits_are_its_range(count):
    for kind, file in files(count).items():
        decoded = decode_picture(file, bit_depth=12)
        np.testing.assert_array_equal(np.asarray(decoded.image), scaled(camera(count=count), 4095), kind)
        assert decoded.warning is None


@pytest.mark.parametrize("count", [1, 3])
def test_without_them_the_picture_is_as_dark_as_before_and_says_so(count):
    for kind, file in files(count).items():
        decoded = decode_picture(file)
        assert np.asarray(decoded.image).max() <= 16, kind
        assert (
            "of 65535, less than 1/8 of the range: from a 12-bit camera? then say so (bit depth 12)" in decoded.warning
        )


def test_arrays_have_them_too():
    values = camera()[:, :, 0]
    np.testing.assert_array_equal(read_rgb(values, bit_depth=12), scaled(values[:, :, None], 4095))
    assert "less than 1/8" in decode_picture(values).warning
    assert "less than 1/8" in decode_picture(values.astype(np.float32) / 65535).warning
    assert decode_picture(values.astype(np.float32) / 4096).warning is None


@pytest.mark.parametrize("count", [1, 3])
def test_larger_values_are_refused(count):
    with pytest.raises(PictureError, match="need 0 to 1023: it has more than 10 bits: say the right bit depth"):
        read_rgb(png(camera(count=count)), bit_depth=10)


def test_colour_in_planes_is_refused_with_a_bit_depth():
    file = tiff(camera(count=3), RGB, separate=True)
    assert read_rgb(file).max() == 15
    with pytest.raises(PictureError, match="16-bit in separate planes, which cannot be read with a bit depth: save it"):
        read_rgb(file, bit_depth=12)


def test_8_bits_and_files_that_state_their_range_are_as_before():
    grey8 = camera(8).astype(np.uint8)
    header = b"P5 31 24 4095\n"
    stated = header + camera().astype(">u2").tobytes()
    for file in (Image.fromarray(grey8[:, :, 0]), stated):
        np.testing.assert_array_equal(read_rgb(file, bit_depth=12), read_rgb(file))
    np.testing.assert_allclose(read_rgb(stated), scaled(camera(), 4095), atol=1)


@pytest.mark.parametrize("bits", [8, 17, 12.0, True, "12"])
def test_bits_that_make_no_sense(bits):
    with pytest.raises(SettingsError, match="need a whole number from 9 to 16"):
        WinCLIP("winspect-tiny", bit_depth=bits, device="cpu")


def test_a_model_of_a_12_bit_camera_scores_what_8_bits_would_and_keeps_its_calibrations(tmp_path):
    with Image.open(EXAMPLES / "textile" / "nominal_0001.jpg") as image:
        grey8 = np.asarray(image.convert("L"))
    values = ((grey8.astype(int) * 4095 + 127) // 255).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    options = {"device": "cpu", "engine": "torch", "precision": "fp32"}
    plain, deep = WinCLIP("winspect-tiny", **options), WinCLIP("winspect-tiny", bit_depth=12, **options)
    expected = plain.predict(grey8, "textile")
    found = deep.predict(tmp_path / "deep.png", "textile")
    assert (found.anomaly_score, found.warning) == (expected.anomaly_score, None)
    assert plain.predict(tmp_path / "deep.png", "textile").anomaly_score != expected.anomaly_score
    assert deep.describe() == {**plain.describe(), "bit_depth": 12}
    goods = [np.roll(values, shift, axis=0) for shift in range(9)]
    calibration = calibrate(deep, goods, "textile", max_false_alarms=0.1, maps=False)
    calibration.save(tmp_path / "c.json")
    read = type(calibration).load(tmp_path / "c.json")
    read.check_model(deep)
    with pytest.raises(SettingsError, match="bit_depth: calibrated with 12, now None"):
        read.check_model(plain)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0, 4095, "up to 4095"), (30000, 34095, "from 30000 to 34095"), (0, 8192, None), (50000, 65535, None)],
)
def test_a_narrow_band_of_the_range_is_named_wherever_it_lies(low, high, words):
    values = np.linspace(low, high, 64 * 64).reshape(64, 64).astype(np.uint16)
    _, warning = from_integers(values, 65535, "part.tif")
    assert warning is None if words is None else words in warning
