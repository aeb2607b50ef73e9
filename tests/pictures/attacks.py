"""Small files that ask for much: made byte by byte."""

from __future__ import annotations

import struct


def progressive_bomb(side: int, scans: int) -> bytes:
    """A progressive grey JPEG of ``side`` x ``side``: each scan says nothing in 11 bytes, and visits every block."""
    frame = struct.pack(">HBHHB", 11, 8, side, side, 1) + bytes([1, 0x11, 0])
    # One code of one bit: a run of end-of-band that covers the rest of the picture.
    table = bytes([0x10, 1, *[0] * 15, 0xE0])
    direct = bytes([0x00, 1, *[0] * 15, 0])
    quantisation = bytes([0, *[1] * 64])

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    first = b"\xff\xda" + struct.pack(">H", 8) + bytes([1, 1, 0, 0, 0, 0])
    empty = b"\xff\xda" + struct.pack(">H", 8) + bytes([1, 1, 0, 1, 63, 0]) + b"\x7f"
    head = b"\xff\xd8" + segment(0xDB, quantisation) + b"\xff\xc2" + frame
    return head + segment(0xC4, direct) + segment(0xC4, table) + first + empty * (scans - 1) + b"\xff\xd9"


def webp_bomb(width: int = 16383, height: int = 10900) -> bytes:
    """A lossless WebP of one colour in 34 bytes."""
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend((value >> place) & 1 for place in range(count))

    put(width - 1, 14)
    put(height - 1, 14)
    put(0, 1)  # alpha is not used
    put(0, 3)  # version
    put(0, 1)  # no transform
    put(0, 1)  # no colour cache
    put(0, 1)  # one group of codes for all
    for value in (0, 0, 0, 255, 0):  # green, red, blue, alpha, distance: a code of one symbol each, of no bits
        put(1, 1)  # simple
        put(0, 1)  # one symbol
        put(int(value > 1), 1)  # of 1 or 8 bits
        put(value, 8 if value > 1 else 1)
    data = b"\x2f" + bytes(
        sum(bit << place for place, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8)
    )
    data += b"\0" * (len(data) % 2)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
