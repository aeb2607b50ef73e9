"""Masks: every kind of file, and every way in which they are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winspect.datasets import Item, load_mask
from winspect.datasets.masks import encode_mask, fault_of, read_mask
from winspect.errors import PictureError

TRUTH = np.array([[False, True, False], [True, True, False]])


def anomalous(mask: Path | None) -> Item:
    return Item(Path("part.png"), "bolt", "test", "anomalous", "dent", mask)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def images() -> dict[str, Image.Image]:
    grey = (TRUTH * np.array([1, 7, 255])).astype(np.uint8)
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[TRUTH] = (0, 0, 1)
    opaque = np.full((2, 3, 1), 255, np.uint8)
    indexed = Image.new("P", (3, 2))
    indexed.putdata([2 * int(value) for value in TRUTH.ravel()])
    indexed.putpalette([0, 0, 0] * 3)
    white_first = Image.new("P", (3, 2))
    white_first.putdata([int(not value) for value in TRUTH.ravel()])
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    return {
        "grey": Image.fromarray(grey),
        "bits": Image.fromarray(TRUTH),
        "deep": Image.fromarray(grey.astype(np.uint16)),
        "colour": Image.fromarray(colour),
        "alpha": Image.fromarray(np.concatenate([colour, opaque], axis=2)),
        "grey with alpha": Image.fromarray(np.concatenate([grey[:, :, None], opaque], axis=2)),
        "palette, indices count": indexed,
        "palette, white first": white_first,
    }


@pytest.mark.parametrize("kind", images())
def test_anything_above_zero_is_defect(kind, tmp_path):
    mask = load_mask(anomalous(save(images()[kind], tmp_path / "m.png")), (3, 2))
    assert mask.dtype == bool
    assert mask.tolist() == TRUTH.tolist()


@pytest.mark.parametrize("ending", ["bmp", "tiff", "gif"])
def test_other_formats(ending, tmp_path):
    image = Image.fromarray(TRUTH.astype(np.uint8) * 255)
    assert read_mask(save(image, tmp_path / f"m.{ending}")).tolist() == TRUTH.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_in_any_order_of_samples(tmp_path, dtype, planes, order):
    """A faint defect in the last channel."""
    tifffile = pytest.importorskip("tifffile")
    mask = np.zeros((40, 60), bool)
    mask[7:19, 30:41] = True
    values = np.zeros((40, 60, 3), dtype)
    values[mask, 2] = 256 if dtype == "uint16" else 1  # 16-bit colour is read in 8 bits
    if dtype == "float32":
        values = values[:, :, 2]
    pixels, options = values, {"photometric": "minisblack"}
    if values.ndim == 3:
        options = {"photometric": "rgb", "planarconfig": planes}
        pixels = np.moveaxis(values, 2, 0) if planes == "separate" else values
    tifffile.imwrite(tmp_path / "m.tif", pixels, byteorder=order, **options)
    assert read_mask(tmp_path / "m.tif", size_wh=(60, 40)).tolist() == mask.tolist()


def test_a_palette_with_transparency(tmp_path):
    image = images()["palette, white first"]
    path = save(image, tmp_path / "m.png", transparency=b"\x10\xff")
    assert read_mask(path).tolist() == TRUTH.tolist()


def test_a_normal_picture_needs_no_mask():
    mask = load_mask(Item(Path("part.png"), "bolt", "test", "normal"), (3, 2))
    assert mask.shape == (2, 3)
    assert mask.dtype == bool
    assert not mask.any()


def test_an_anomalous_picture_without_mask():
    with pytest.raises(PictureError, match=r"part.png: anomalous, but the data set has no mask for it"):
        load_mask(anomalous(None), (3, 2))


def test_a_mask_of_another_size(tmp_path):
    path = save(images()["grey"], tmp_path / "m.png")
    with pytest.raises(PictureError, match=r"m.png: the mask has 3x2 pixels, its picture 2x3"):
        load_mask(anomalous(path), (2, 3))


def test_masks_that_cannot_be_read(tmp_path):
    with pytest.raises(PictureError, match=r"gone.png: the mask is not there"):
        read_mask(tmp_path / "gone.png")
    with pytest.raises(PictureError, match=r"the mask cannot be read \(a folder, need a file\)"):
        read_mask(tmp_path)
    jpeg = save(images()["grey"], tmp_path / "m.jpg")
    with pytest.raises(PictureError, match=r"m.jpg: a JPEG as mask"):
        read_mask(jpeg)
    whole = save(Image.fromarray(np.zeros((99, 99), np.uint8)), tmp_path / "m.png").read_bytes()
    for name, data in {"cut.png": whole[: len(whole) // 2], "empty.png": b"", "text.png": b"none"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PictureError, match=f"{name}: the mask is damaged or not a picture"):
            read_mask(tmp_path / name)


def test_written_masks_are_binary_png(tmp_path):
    path = tmp_path / "m.png"
    path.write_bytes(encode_mask(TRUTH))
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.asarray(image).tolist() == (TRUTH * 255).tolist()


def test_lossy_masks_are_refused(tmp_path):
    """A WebP or TIFF says nothing by its name; lossless ones are read."""
    grey = Image.fromarray(TRUTH.astype(np.uint8) * 255).resize((48, 32), Image.Resampling.NEAREST)
    colour = grey.convert("RGB")
    with_alpha = grey.convert("RGBA")
    with_alpha.putalpha(grey)
    lossy = {
        "a lossy WebP": save(colour, tmp_path / "plain.webp", quality=90),
        "a lossy WebP as mask": save(with_alpha, tmp_path / "alpha.webp", quality=90),
        "a lossy WebP as": save(colour, tmp_path / "moving.webp", quality=90, save_all=True, append_images=[colour]),
        "a TIFF compressed as JPEG": save(grey, tmp_path / "jpeg.tif", compression="jpeg"),
    }
    for what, path in lossy.items():
        with pytest.raises(PictureError, match=f"{path.name}: {what}.*: save it as PNG"):
            read_mask(path)
    for name, options in {"a.webp": {"lossless": True}, "b.tif": {"compression": "tiff_lzw"}}.items():
        assert read_mask(save(colour, tmp_path / name, **options)).sum() == 3 * 16 * 16


def test_a_mask_that_says_nothing_or_too_much():
    mask = np.zeros((10, 10), bool)
    assert "the mask is empty" in fault_of(mask)
    mask[:5] = True
    assert fault_of(mask) is None
    mask[5, 0] = True
    assert "covers 51% of its picture" in fault_of(mask)


@pytest.mark.parametrize("is_lossy", [False, True])
def test_a_jpeg_2000_as_mask_is_named_as_such(tmp_path, is_lossy):
    path = tmp_path / "mask.jp2"
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(path, irreversible=is_lossy)
    with pytest.raises(PictureError, match=r"mask\.jp2: a JPEG 2000 as mask: .*save it as PNG"):
        read_mask(path)
