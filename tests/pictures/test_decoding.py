"""Files, bytes, images and arrays to upright 8-bit RGB, and every way in which that can fail."""

from __future__ import annotations

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from winspect.errors import PictureError
from winspect.pictures import decoding
from winspect.pictures.decoding import MAX_PIXELS, MIN_SIDE, decode, read_rgb
from winspect.pictures.given import source_name

TEXTILE = Path(__file__).parents[2] / "examples" / "textile"
RAMP16 = np.linspace(0, 65535, 96).round().astype(np.uint16).reshape(8, 12)
RAMP8 = np.round(RAMP16 / 257).astype(np.uint8)  # 65535 = 257 x 255


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray | Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, *, bits: int, photometric: int = 1, sample_format: int = 1, data: bytes = b"") -> bytes:
    """An uncompressed grey TIFF written by hand, for the kinds Pillow reads but does not write."""
    data = data or values.tobytes()
    height, width = values.shape
    long, short = 4, 3
    tags = [(256, long, width), (257, long, height), (258, short, bits), (259, short, 1), (262, short, photometric)]
    tags += [(273, long, 8 + 2 + 12 * 10 + 4), (277, short, 1), (278, long, height), (279, long, len(data))]
    tags += [(339, short, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def reason(source: object, **limits: int) -> str:
    with pytest.raises(PictureError) as caught:
        read_rgb(source, **limits)
    assert str(caught.value).startswith(f"{caught.value.path}: ")
    return caught.value.reason


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
        ("JPEG2000", {"irreversible": False}),
    ],
)
def test_lossless_formats_give_the_very_pixels(photo, format_name, options):
    rgb = read_rgb(encoded(photo, format_name, **options))
    assert rgb.dtype == np.uint8
    assert rgb.flags.writeable
    np.testing.assert_array_equal(rgb, photo)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_is_decoded_in_full_as_pillow_does(photo, options):
    data = encoded(Image.fromarray(photo).resize((400, 300)), "JPEG", **options)
    np.testing.assert_array_equal(read_rgb(data), np.asarray(Image.open(io.BytesIO(data))))


def test_the_kinds_of_source_agree(photo, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(photo, "PNG"))
    buffer = io.BytesIO(path.read_bytes())
    buffer.seek(5)
    with Image.open(path) as lazy:
        for source in (path, str(path), path.read_bytes(), buffer, lazy, Image.fromarray(photo), photo):
            np.testing.assert_array_equal(read_rgb(source), photo)
    assert buffer.tell() == 5


def test_the_result_is_the_callers_own(photo):
    before = photo.copy()
    image = Image.fromarray(photo)
    for source in (photo, image):
        read_rgb(source)[:] = 0
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(np.asarray(image), before)


def test_source_names(photo, tmp_path):
    photo_file = tmp_path / "a.png"
    photo_file.write_bytes(encoded(photo, "PNG"))
    assert source_name(photo_file) == source_name(str(photo_file)) == str(photo_file)
    assert source_name(photo) == "<array>"
    assert source_name(b"") == source_name(io.BytesIO()) == "<bytes>"
    assert source_name(Image.fromarray(photo)) == "<image>"
    with Image.open(photo_file) as image:
        assert source_name(image) == str(photo_file)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(photo, format_name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, format_name, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_rgb(data), expected)
    assert read_rgb(data).shape == ((20, 31, 3) if orientation < 5 else (31, 20, 3))


def test_orientation_by_hand():
    """Orientation 6: the camera was turned, the picture must be turned clockwise; its first column becomes its top."""
    stored = np.zeros((10, 16), np.uint8)
    stored[:, 0] = np.arange(10)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = read_rgb(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(upright[0, :, 0], np.arange(10)[::-1])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow remarks upon it
@pytest.mark.parametrize("block", [b"Exif\0\0rubbish-rubbish", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"])
def test_a_damaged_exif_block_counts_as_none(photo, block):
    assert read_rgb(encoded(photo, "JPEG", exif=block)).shape == photo.shape
    np.testing.assert_array_equal(read_rgb(encoded(photo, "PNG", exif=block)), photo)


def test_16_bit_png_and_tiff_scale_by_the_range_of_the_type():
    for data in (
        encoded(RAMP16, "PNG"),
        encoded(RAMP16, "TIFF"),
        b"P5 12 8 65535\n" + RAMP16.astype(">u2").tobytes(),
        tiff(RAMP16, bits=16),
    ):
        rgb = read_rgb(data)
        assert rgb.shape == (8, 12, 3)
        np.testing.assert_array_equal(rgb, np.repeat(RAMP8[:, :, None], 3, axis=2))


def test_16_bit_by_hand():
    """65535 -> 255; 257 -> 1; 128 rounds down and 129 up; a dark picture stays dark."""
    dark = np.full((8, 8), 128, np.uint16)
    dark[0, :4] = (0, 129, 257, 65535)
    assert read_rgb(encoded(dark, "PNG"))[:2, :4, 0].tolist() == [[0, 1, 1, 255], [0, 0, 0, 0]]
    assert read_rgb(encoded(np.full((8, 8), 2570, np.uint16), "PNG")).max() == 10


def test_16_bit_big_endian():
    data = encoded(Image.frombytes("I;16B", (12, 8), RAMP16.astype(">u2").tobytes()), "TIFF")
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "I;16B"
    np.testing.assert_array_equal(read_rgb(data)[:, :, 0], RAMP8)


def test_other_deep_grey_tiffs():
    np.testing.assert_array_equal(read_rgb(tiff(RAMP16, bits=16, photometric=0))[:, :, 0], 255 - RAMP8)
    half = (RAMP16 // 2).astype("<i2")
    np.testing.assert_array_equal(
        read_rgb(tiff(half, bits=16, sample_format=2))[:, :, 0], np.round(half / 32767 * 255).astype(np.uint8)
    )
    np.testing.assert_array_equal(read_rgb(tiff(RAMP16.astype("<u4"), bits=32))[:, :, 0], RAMP8)
    np.testing.assert_array_equal(
        read_rgb(tiff((RAMP16 / 65535).astype("<f4"), bits=32, sample_format=3))[:, :, 0], RAMP8
    )


def test_12_bit_tiff_scales_by_4095():
    deep = (RAMP16 >> 4).astype(int).ravel()
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(deep[::2], deep[1::2], strict=True)
    )
    rgb = read_rgb(tiff(RAMP16, bits=12, data=packed))
    np.testing.assert_array_equal(rgb[:, :, 0].ravel(), np.round(deep / 4095 * 255))


def test_16_bit_grey_with_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    for format_name in ("PNG", "TIFF"):
        rgb = read_rgb(encoded(RAMP16, format_name, exif=exif))
        np.testing.assert_array_equal(rgb[:, :, 0], np.rot90(RAMP8, -1))


def test_16_bit_colour_is_scaled_not_clipped():
    """Pillow hands over the high byte: at most one level from rounding."""
    height, width = RAMP16.shape
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in RAMP16)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    rgb = read_rgb(data)
    assert np.abs(rgb[:, :, 1].astype(int) - RAMP8).max() <= 1
    assert (rgb.min(), rgb.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "P", "PA", "RGBa"])
def test_modes_become_rgb_as_pillow_converts_them(photo, mode):
    source = Image.fromarray(photo)
    if mode in ("PA", "RGBa"):
        source = source.convert({"PA": "P", "RGBa": "RGBA"}[mode])
    image = source.convert(mode)
    through = image.convert("RGBA") if mode in ("RGBa", "PA") else image
    np.testing.assert_array_equal(read_rgb(image), np.asarray(through.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes(range(256)), None])
def test_palette_with_transparency_keeps_its_colours(photo, transparency):
    options = {} if transparency is None else {"transparency": transparency}
    palette_image = Image.fromarray(photo).quantize(256)
    data = encoded(palette_image, "PNG", **options)
    np.testing.assert_array_equal(read_rgb(data), np.asarray(palette_image.convert("RGB")))


def test_alpha_is_dropped_not_blended(photo):
    alpha = np.zeros((*photo.shape[:2], 1), np.uint8)
    for format_name, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        data = encoded(np.concatenate([photo, alpha], axis=2), format_name, **options)
        np.testing.assert_array_equal(read_rgb(data), photo)


def test_cmyk_jpeg_as_pillow_reads_it(photo):
    data = encoded(Image.fromarray(photo).convert("CMYK"), "JPEG")
    assert b"Adobe" in data  # Pillow writes, and reads, Adobe's inverted values
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(read_rgb(data), np.asarray(image.convert("RGB")))
    white = read_rgb(encoded(Image.new("CMYK", (16, 16)), "JPEG"))
    assert white.min() >= 250


def test_the_first_frame_is_used(photo):
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    for format_name, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(read_rgb(data), photo)
    gif = encoded(frames[0].quantize(64), "GIF", save_all=True, append_images=[frames[1].quantize(64)])
    np.testing.assert_array_equal(read_rgb(gif), np.asarray(frames[0].quantize(64).convert("RGB")))


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_arrays_of_every_accepted_kind(photo):
    grey = photo[:, :, 0]
    grey_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    alpha = np.full((*grey.shape, 1), 7, np.uint8)
    np.testing.assert_array_equal(read_rgb(photo), photo)
    np.testing.assert_array_equal(read_rgb(grey), grey_rgb)
    np.testing.assert_array_equal(read_rgb(grey[:, :, None]), grey_rgb)
    np.testing.assert_array_equal(read_rgb(np.concatenate([photo, alpha], axis=2)), photo)
    np.testing.assert_array_equal(read_rgb(photo[::-1, ::-1]), photo[::-1, ::-1])
    for dtype in ("<u2", ">u2"):
        np.testing.assert_array_equal(read_rgb(photo.astype(dtype) * 257), photo)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(read_rgb(photo.astype(dtype) / 255), photo)
        np.testing.assert_array_equal(read_rgb(grey.astype(dtype) / 255), grey_rgb)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 20), bool),
        np.zeros((20, 20), np.int32),
        np.zeros((20, 20), np.int8),
        np.zeros((20, 20), np.uint32),
        np.zeros((20, 20), complex),
        np.zeros((20, 20), object),
        np.zeros((20, 20, 2), np.uint8),
        np.zeros((20, 20, 5), np.uint8),
        np.zeros((3, 20, 20), np.uint8),
        np.zeros((1, 20, 20, 3), np.uint8),
        np.zeros(20, np.uint8),
        np.array(3, np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_came(array):
    text = reason(array)
    assert f"got dtype {array.dtype}, shape {array.shape}" in text
    assert "need uint8, uint16 or floating point" in text


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1), (0, 1.001), (0, 255), (0, np.nan), (0, np.inf)])
def test_floats_outside_0_to_1_are_refused(low, high):
    array = np.full((20, 20), low, np.float64)
    array[3, 4] = high
    remedy = "give it as it was before mean and deviation were taken out" if low < 0 else "divide by"
    assert f"need 0 to 1: {remedy}" in reason(array)


def test_float_and_integer_files_out_of_range_are_refused():
    assert "need 0 to 1" in reason(tiff((RAMP16 / 257).astype("<f4"), bits=32, sample_format=3))
    assert "values from -5 to 60, need 0 to 32767" in reason(
        tiff(np.linspace(-5, 60, 96).astype("<i2").reshape(8, 12), bits=16, sample_format=2)
    )
    assert "need 0 to 65535" in reason(tiff(RAMP16.astype("<u4") * 2, bits=32))
    assert "need 0 to 65535" in reason(Image.fromarray(RAMP16.astype(np.int32) + 1))


def test_other_types_are_refused():
    assert "got int, need a path" in reason(3)
    assert "got NoneType, need a path" in reason(None)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(0, 20), (1, 1), (3, 4000), (4000, 3), (7, 7), (8, 7)])
def test_pictures_with_a_short_side_are_refused(width, height):
    expected = f"{width}x{height} pixels, need at least {MIN_SIDE} on each side: use a larger picture"
    assert reason(np.zeros((height, width), np.uint8)) == expected
    if width:  # an array can be empty, a file cannot
        assert reason(encoded(np.zeros((height, width), np.uint8), "PNG")) == expected


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (20000, 10000)])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, width, height):
    """Decoding it would find that it is truncated."""
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(width, height))
    text = reason(bomb)
    assert text.startswith(f"{width}x{height} is {width * height / 1e6:.1f} million pixels, the limit is 179.0")
    assert "reduce it, or raise max_pixels" in text


def test_the_limit_can_be_moved(photo):
    assert "the limit is 0.0" in reason(photo, max_pixels=20 * 31 - 1)
    assert read_rgb(encoded(photo, "PNG"), max_pixels=20 * 31).shape == photo.shape


@pytest.mark.parametrize("pillow_limit", [400, 100])  # Pillow itself warns above its limit, and raises above twice that
def test_pillows_own_limit_neither_warns_nor_raises_nor_is_changed(photo, monkeypatch, pillow_limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    data = encoded(photo, "PNG")
    with pytest.raises((Image.DecompressionBombWarning, Image.DecompressionBombError)):
        Image.open(io.BytesIO(data))
    with ThreadPoolExecutor(4) as pool:
        for rgb in pool.map(read_rgb, [data] * 16):
            np.testing.assert_array_equal(rgb, photo)
    assert pillow_limit == Image.MAX_IMAGE_PIXELS


def test_the_default_limit_is_where_pillow_raises():
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- bad files --------------------------------------------------------------------------------------------------------


def test_bad_paths(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "empty.jpg") == "an empty file (0 bytes): save or copy it again"
    assert reason(tmp_path / "missing.jpg") == "no such file: check the path"
    assert reason(tmp_path / "broken.jpg") == "a broken link to gone.jpg: mend it or delete it"
    assert reason(tmp_path / "round.jpg") == "a link that leads back to itself: mend it or delete it"
    assert reason(tmp_path / "pipe.jpg") == "a named pipe, need a file: copy its content to a file"
    assert reason(tmp_path) == "a folder, need a picture file: name the pictures in it"
    assert "cannot be opened (File name too long)" in reason(tmp_path / ("x" * 300 + ".jpg"))
    assert "a name that no file can have (embedded null byte)" in reason("a\0b.jpg")
    assert "cannot be opened (Not a directory)" in reason(tmp_path / "empty.jpg" / "x.jpg")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may read everything
    assert "a folder that may not be read" in reason(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, photo):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(photo, "PNG"))

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    assert reason(path) == "not readable (permission denied): give yourself the right to read it (chmod u+r)"


@pytest.mark.parametrize(
    "content", [b"x", b"hello, this is no picture", b"%PDF-1.7 ...", b"%!PS-Adobe-3.0 EPSF", bytes(999)]
)
def test_not_a_picture(content):
    text = reason(content)
    assert text.startswith("not a picture in a format read here (JPEG, PNG, BMP, TIFF, WebP")


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("GIF", {}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow remarks upon cut TIFF directories
def test_truncated_files_never_pass(photo, format_name, options):
    data = encoded(Image.fromarray(photo).resize((90, 60)), format_name, **options)
    whole = read_rgb(data)
    assert whole.shape == (60, 90, 3)
    for kept in (0.01, 0.1, 0.5, 0.9):
        text = reason(data[: int(kept * len(data))])
        assert any(word in text for word in ("truncated", "cut off", "damaged", "format read here", "empty")), text
        assert any(fix in text for fix in ("save it again", "save or copy it again", "convert it"))


def test_truncated_jpeg_says_so(tmp_path):
    path = tmp_path / "half.jpg"
    whole = (TEXTILE / "nominal_0001.jpg").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PictureError) as caught:
        read_rgb(path)
    expected = f"{path}: truncated, the file ends before the picture does: save or copy it again"
    assert str(caught.value) == expected


def test_a_damaged_header_names_the_format():
    assert reason(b"\xff\xd8\xff" + bytes(50)).startswith("starts like JPEG, but its header is cut off, damaged")
    assert reason(b"RIFF\0\0\0\0WEBPLIST").startswith("starts like WebP")
    assert reason(b"RIFF\0\0\0\0AVI LIST").startswith("not a picture in a format read here")


def test_damaged_pixels(photo):
    data = bytearray(encoded(photo, "PNG"))
    data[60:90] = bytes(30)
    assert reason(bytes(data)).startswith("damaged, cannot be decoded (")


class Exploding(Image.Image):
    """An image whose decoder raises an error."""

    size, mode, format, error = (31, 20), "RGB", "PNG", None

    def load(self):
        raise self.error


def exploding(error: BaseException) -> Image.Image:
    image = Exploding()
    image.error = error
    return image


@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError("x"), ZeroDivisionError(), SyntaxError("broken")])
def test_whatever_a_decoder_raises_becomes_a_picture_error(error):
    assert f"damaged, cannot be decoded ({type(error).__name__}" in reason(exploding(error))


def test_memory_and_interrupts():
    assert reason(exploding(MemoryError())) == "not enough memory to decode it: reduce it"
    assert reason(exploding(EOFError())).startswith("truncated")
    with pytest.raises(KeyboardInterrupt):
        read_rgb(exploding(KeyboardInterrupt()))


def test_memory_running_out_in_the_header_is_not_called_damage(monkeypatch):
    def explode(*_):
        raise MemoryError

    monkeypatch.setitem(decoding._READERS, "PNG", explode)
    assert reason(png_header(20, 20)) == "not enough memory to decode it: reduce it"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_gives_a_picture_or_a_picture_error(photo, seed):
    rng = np.random.default_rng(seed)
    for format_name in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000"):
        data = bytearray(encoded(photo, format_name))
        for position in rng.integers(0, len(data), 12):
            data[position] = rng.integers(256)
        try:
            assert read_rgb(bytes(data), max_pixels=10**6).dtype == np.uint8
        except PictureError as error:
            assert error.path == "<bytes>"


def test_decode_gives_an_rgb_image(photo):
    image = decode(encoded(photo[:, :, 0], "PNG"))
    assert (image.mode, image.size) == ("RGB", (31, 20))
