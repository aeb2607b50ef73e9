"""TIFF held to tifffile: every layout is read right, or refused with a message; never wrong pixels."""

from __future__ import annotations

import io
import itertools

import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image

from tests.pictures.tiff_files import CMYK, CODECS, GREY, RGB, YCBCR, tiff, written
from winspect.errors import PictureError
from winspect.pictures.decoding import read_rgb

HEIGHT, WIDTH = 21, 37
KINDS = {"grey": (GREY, 1, ()), "rgb": (RGB, 3, ()), "rgba": (RGB, 4, (2,)), "cmyk": (CMYK, 4, ())}
_IS_OLD_PILLOW = int(PIL.__version__.split(".")[0]) < 12  # its libtiff has no zstd, and it no 16-bit CMYK
_NOT_READ_BY_TIFFFILE_ALONE = ("lzw", "zstd")  # it needs imagecodecs for these: the samples written are the oracle


def noise(dtype: str, count: int) -> np.ndarray:
    random, kind = np.random.default_rng(7), np.dtype(dtype)
    if kind.kind == "f":
        return random.random((HEIGHT, WIDTH, count)).astype(kind)
    top = min(np.iinfo(kind).max, 65535 if kind.kind == "u" else 32767)
    return random.integers(0, top + 1, (HEIGHT, WIDTH, count)).astype(kind)


def rgb_of(samples: np.ndarray, photometric: int) -> np.ndarray:
    """What decoding promises: grey rounded from its type's range, colour by its high byte."""
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    top = {("i", 16): 32767}.get((kind, bits), 65535)
    if kind == "f":
        small = np.rint(samples * 255)
    elif bits == 8:
        small = samples
    elif photometric in (0, GREY):
        small = (samples.astype(np.int64) * 255 + top // 2) // top
    else:
        small = samples >> 8
    small = small.astype(np.uint8)
    if photometric == CMYK:
        return np.asarray(Image.fromarray(np.ascontiguousarray(small[:, :, :4]), "CMYK").convert("RGB"))
    if photometric in (0, GREY):
        grey = small[:, :, :1] if photometric == GREY else 255 - small[:, :, :1]
        return np.repeat(grey, 3, axis=2)
    return small[:, :, :3]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 16])
def test_the_matrix_is_read_as_tifffile_reads_it(bits, kind, codec):
    if codec == "zstd":
        pytest.importorskip("pyarrow")
    photometric, count, extra = KINDS[kind]
    for separate, tiled, order in itertools.product((False, True), (False, True), "<>"):
        samples = noise(f"{order}u{bits // 8}", count)
        file = tiff(samples, photometric, separate=separate, codec=codec, tiled=tiled, extra=extra)
        if codec not in _NOT_READ_BY_TIFFFILE_ALONE:
            oracle = tifffile.imread(io.BytesIO(file))
            oracle = np.moveaxis(oracle, 0, 2) if separate and count > 1 else oracle
            np.testing.assert_array_equal(oracle.reshape(samples.shape), samples)
        expected, place = rgb_of(samples, photometric), f"{separate=} {tiled=} {order=}"
        if _IS_OLD_PILLOW and (codec == "zstd" or (kind == "cmyk" and bits == 16)):
            with pytest.raises(PictureError):
                read_rgb(file)
            continue
        np.testing.assert_array_equal(read_rgb(file), expected, place)
        with Image.open(io.BytesIO(file)) as image:  # opened by the caller, and not read yet
            np.testing.assert_array_equal(read_rgb(image), expected, place)
            assert image.tile


def combinations():
    for dtype, order in itertools.product(("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"), "<>"):
        for photometric, least in ((0, 1), (GREY, 1), (RGB, 3), (CMYK, 4)):
            for more, kind_of_extra in ((0, None), (1, 0), (1, 2), (2, 0)):
                extra = () if kind_of_extra is None else (kind_of_extra, 0)[:more]
                yield f"{order}{dtype}", photometric, least + more, extra


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("codec", ["none", "lzw"])
def test_no_combination_of_tags_gives_wrong_pixels(codec, fill_order):
    """Types of number, white-is-zero, further samples, bit order: Pillow knows a part of them, and not always which."""
    right = set()
    for dtype, photometric, count, extra in combinations():
        samples = noise(dtype, count)
        for separate in (False, True):
            options = {"separate": separate, "codec": codec, "extra": extra, "fill_order": fill_order}
            try:
                found = read_rgb(tiff(samples, photometric, **options))
            except PictureError as error:
                assert str(error).startswith("<bytes>: ")
                continue
            expected = rgb_of(samples, photometric)
            np.testing.assert_array_equal(found, expected, f"{dtype} {photometric} {count} {options}")
            right.add((dtype, photometric, count, separate))
    assert not any(dtype[1:] in ("i1", "f2", "f8") for dtype, *_ in right)
    assert {("<u1", RGB, 3, True), (">u1", GREY, 1, True), ("<u1", 0, 1, True)} <= right
    if codec == "lzw" and fill_order == 1:  # libtiff gives these in this machine's order, whatever the file's
        assert {(">i2", GREY, 1, False), (">f4", GREY, 1, False)} <= right


def test_signed_samples_are_refused_with_the_reason():
    """-1 was read as 255."""
    samples = np.full((HEIGHT, WIDTH, 1), -1, np.int8)
    with pytest.raises(PictureError, match="samples of 8 bits, signed, which is not read here: save it as PNG"):
        read_rgb(tiff(samples, GREY))


def test_subsampled_colour_is_read_as_such():
    """Half the samples a pixel: taken for whole ones they were a smeared picture, or one cut off."""
    random = np.random.default_rng(0)
    units = np.full((64, 6), 128, np.uint8)  # of 2x2 pixels: four of luma, Cb, Cr
    units[:, :4] = random.integers(0, 256, (64, 1))
    one = {256: 16, 257: 16, 259: 1, 262: YCBCR, 277: 3, 278: 16, 279: units.size, 284: 1}
    tags = {**{tag: [value] for tag, value in one.items()}, 258: [8, 8, 8], 273: None, 530: [2, 2]}
    rgb = read_rgb(written("<", tags, [units.tobytes()], long={256, 257, 273, 279}))
    luma = np.repeat(np.repeat(units[:, 0].reshape(8, 8), 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(rgb, np.repeat(luma[:, :, None], 3, axis=2))
