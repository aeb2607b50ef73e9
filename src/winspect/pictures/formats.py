"""Picture formats that are read, and which files of a folder are pictures; every search uses this list.

A file is a picture when its content starts like one of :data:`FORMATS`. Opening every file of a share takes a while,
so its name answers first where it can: the usual endings of these formats count as pictures without a look, endings
that plainly belong to something else do not. All other files are opened for their first bytes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from winspect.system.opening import open_file

START_BYTES = 16
"""Number of first bytes that identify a file's format."""


class Format(NamedTuple):
    """A picture format: its name, what its files start with, and how their names usually end."""

    name: str
    start: re.Pattern[bytes]
    endings: tuple[str, ...]


FORMATS = (
    Format("JPEG", re.compile(rb"\xff\xd8\xff"), (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo")),
    Format("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), (".png", ".apng")),
    # Two letters alone would make pictures of texts: the size of BMP's second header and PNM's first number follow.
    Format("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0", re.DOTALL), (".bmp", ".dib")),
    Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), (".tif", ".tiff")),
    Format("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), (".webp",)),
    Format("GIF", re.compile(rb"GIF8"), (".gif",)),
    Format("PNM", re.compile(rb"P[1-6]\s+(?:[\d#]|$)"), (".pnm", ".pbm", ".pgm", ".ppm")),
    Format(
        "JPEG 2000",
        re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP"),
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    ),
)
FORMAT_NAMES = ", ".join(known.name for known in FORMATS)
ENDINGS = frozenset(ending for known in FORMATS for ending in known.endings)
"""Files with these endings, in either case, count as pictures; decoding shows whether they are."""

UNFINISHED = frozenset({".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart"})
"""Endings of files that something is still writing."""
_TEXTS = ".txt .md .rst .log .csv .tsv .json .jsonl .ndjson .xml .yaml .yml .toml .ini .cfg .conf .html .htm .css .rtf"
_CODE = ".js .py .ipynb .sh .bat .c .cpp .h .exe .dll .so .lnk .url .sql .db .sqlite .sqlite3 .lock .swp"
_OFFICE = ".pdf .doc .docx .xls .xlsx .ppt .pptx .odt .ods .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .iso"
_DATA = ".npy .npz .mat .h5 .hdf5 .parquet .arrow .feather .pkl .pt .pth .ckpt .onnx .safetensors"
_MEDIA = ".mp4 .avi .mov .mkv .webm .mp3 .wav"
_COPIES = ".bak .old .orig"
_OTHER = UNFINISHED.union(*(endings.split() for endings in (_TEXTS, _CODE, _OFFICE, _DATA, _MEDIA, _COPIES)))
_SYSTEM = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "$recycle.bin", "#recycle"}
    | {"system volume information", "@eadir", "__macosx", "lost+found"}
)
_MOST_ENDINGS = 8
_LONGEST_ENDING = 12


def format_of(start: bytes) -> str | None:
    """Name the format of a file with these first :data:`START_BYTES`; None for no picture read here.

    >>> format_of(b"\\xff\\xd8\\xff\\xe0"), format_of(b"BMW and others")
    ('JPEG', None)
    """
    return next((known.name for known in FORMATS if known.start.match(start)), None)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def ending_of(name: str) -> str:
    """The ending of a name, with the dot, in lower case."""
    return os.path.splitext(name)[1].lower()


def picture_by_name(name: str) -> bool | None:
    """Whether a file is a picture as far as its name tells; None where its content must be asked.

    >>> [picture_by_name(name) for name in ("a.JFIF", "a.txt", "a.raw")]
    [True, False, None]
    """
    ending = ending_of(name)
    return True if ending in ENDINGS else False if ending in _OTHER or ending.endswith("~") else None


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture: by its name where that tells, else by its first bytes."""
    known = picture_by_name(os.fspath(path))
    return format_of(read_start(path)) is not None if known is None else known


def read_start(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a file; none of what cannot be read or is no regular file."""
    try:
        with open_file(path) as file:
            return file.read(START_BYTES)
    except OSError:
        return b""


def count_left_out(names: Iterable[str]) -> dict[str, int]:
    """Count files by ending, the most first; hidden and system files are not counted."""
    endings = Counter(ending_of(name) for name in names if not is_hidden(os.path.basename(name)))
    return dict(sorted(endings.items(), key=lambda entry: (-entry[1], entry[0])))


def left_out_in_words(counts: dict[str, int]) -> str:
    """Format the counts of :func:`count_left_out` as a line for people; empty for nothing.

    >>> left_out_in_words({".txt": 9, ".db": 3})
    '12 files left out: .txt 9, .db 3'
    """
    if not counts:
        return ""
    total = sum(counts.values())
    named = [f"{ending[:_LONGEST_ENDING] or 'without ending'} {count}" for ending, count in counts.items()]
    if len(named) > _MOST_ENDINGS:
        named[_MOST_ENDINGS:] = [f"{len(named) - _MOST_ENDINGS} more endings"]
    return f"{total} file{'s' * (total > 1)} left out: {', '.join(named)}"
