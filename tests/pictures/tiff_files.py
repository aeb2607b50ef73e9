"""TIFF files of any layout, made byte by byte: Pillow and tifffile write some kinds only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np


def packbits(data: bytes) -> bytes:
    """Runs of literals."""
    pieces = (data[start : start + 128] for start in range(0, len(data), 128))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def lzw(data: bytes) -> bytes:
    """Codes of 9 bits: the table is cleared before it grows."""
    codes = [256]
    for number, value in enumerate(data, 1):
        codes += [value, 256] if number % 250 == 0 else [value]
    bits = "".join(format(code, "09b") for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def zstd(data: bytes) -> bytes:
    """By Arrow, which the batch needs anyway."""
    import pyarrow

    return pyarrow.compress(data, codec="zstd", asbytes=True)


CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, bytes),
    "lzw": (5, lzw),
    "deflate": (8, zlib.compress),
    "packbits": (32773, packbits),
    "zstd": (50000, zstd),
}
GREY, RGB, CMYK, YCBCR = 1, 2, 5, 6
STRIP, TILE = 8, 16
_NUMBERS = {"u": 1, "i": 2, "f": 3}


def tiff(
    samples: np.ndarray,
    photometric: int,
    *,
    separate: bool = False,
    codec: str = "none",
    tiled: bool = False,
    extra: Sequence[int] = (),
    fill_order: int = 1,
) -> bytes:
    """A file of samples (height, width, n), in the byte order of their dtype."""
    height, width, count = samples.shape
    code, compress = CODECS[codec]
    planes = [samples[:, :, number : number + 1] for number in range(count)] if separate else [samples]
    segments = [compress(part.tobytes()) for plane in planes for part in (_tiles if tiled else _strips)(plane)]
    if fill_order == 2:
        table = bytes(int(format(value, "08b")[::-1], 2) for value in range(256))
        segments = [segment.translate(table) for segment in segments]
    bits = 8 * samples.dtype.itemsize
    offsets, sizes = (324, 325) if tiled else (273, 279)
    tags: dict[int, list[int] | None] = {
        **{256: [width], 257: [height], 258: [bits] * count, 259: [code], 262: [photometric], 266: [fill_order]},
        **{277: [count], 284: [2 if separate else 1], 339: [_NUMBERS[samples.dtype.kind]] * count},
        **({322: [TILE], 323: [TILE]} if tiled else {278: [STRIP]}),
        **{offsets: None, sizes: [len(segment) for segment in segments]},
        **({338: list(extra)} if extra else {}),
    }
    return written("<" if samples.dtype.str[0] in "<|" else ">", tags, segments, long={256, 257, offsets, sizes})


def _strips(plane: np.ndarray) -> list[np.ndarray]:
    return [plane[row : row + STRIP] for row in range(0, len(plane), STRIP)]


def _tiles(plane: np.ndarray) -> list[np.ndarray]:
    whole = np.pad(plane, [(0, -side % TILE) for side in plane.shape[:2]] + [(0, 0)])
    rows, columns = (range(0, side, TILE) for side in whole.shape[:2])
    return [whole[row : row + TILE, column : column + TILE] for row in rows for column in columns]


def written(order: str, tags: dict[int, list[int] | None], segments: Sequence[bytes], long: set[int]) -> bytes:
    """The file of these tags; None stands for the segments' offsets."""

    def packed(tag: int, values: Sequence[int]) -> bytes:
        return struct.pack(f"{order}{len(values)}{'I' if tag in long else 'H'}", *values)

    zeros = {tag: [0] * len(segments) if values is None else values for tag, values in tags.items()}
    sizes = {tag: len(packed(tag, values)) for tag, values in zeros.items()}
    start = 8 + 2 + 12 * len(tags) + 4
    place = start + sum(size for size in sizes.values() if size > 4)
    ends = np.cumsum([place, *map(len, segments)]).tolist()
    entries, values_behind = b"", b""
    for tag in sorted(tags):
        values = tags[tag]
        values = ends[:-1] if values is None else values
        raw = packed(tag, values)
        entries += struct.pack(f"{order}HHI", tag, 4 if tag in long else 3, len(values))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}I", start + len(values_behind))
        values_behind += raw if len(raw) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + b"\0\0\0\0" + values_behind + b"".join(segments)
