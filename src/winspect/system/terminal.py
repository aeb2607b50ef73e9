"""Text for people on a terminal, and cells for a spreadsheet, whatever names the files have.

A file name may hold line breaks, terminal escapes and characters that reverse the direction of writing; a spreadsheet
takes a cell that begins with ``=`` for a formula. JSON needs neither function: it escapes what it must, and holds names
exactly.
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")

_LIBRARIES = ("ray", "torch", "onnxscript", "openvino", "nncf", "asyncua")
"""Libraries whose notices are none of the user's business; torch.cuda's say why a GPU is not used."""

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))
_FORMULA = ("'", "=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: object) -> str:
    """Make text safe for a terminal: one line, with control characters, line breaks, direction marks and bytes that are
    no UTF-8 escaped as Python escapes them.

    >>> print(printable("a\\x1b[2K\\nwinspect: error"), printable("Prüfling 1.png"))
    a\\x1b[2K\\nwinspect: error Prüfling 1.png
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character in _DIRECTIONS or unicodedata.category(character) in _CONTROLS
        else character
        for character in text
    )


def cell(value: Any) -> Any:
    """Make a value safe for a CSV cell. Text that a spreadsheet would take for a formula gets an apostrophe in
    front, and so does text that begins with one: a reader drops the first. So does what follows a semicolon: where the
    system separates lists by semicolons, a spreadsheet begins a cell there. Control characters are escaped. Numbers
    stay numbers.

    >>> cell("=1+1"), cell("a.png"), cell("a;=1+1"), cell(-0.5), cell(None)
    ("'=1+1", 'a.png', "a;'=1+1", -0.5, None)
    """
    return ";".join(map(_piece, value.split(";"))) if isinstance(value, str) else value


def _piece(text: str) -> str:
    return f"'{printable(text)}" if text.lstrip(" ").startswith(_FORMULA) else printable(text)


def text_of_cell(cell_text: str) -> str:
    """Undo :func:`cell`, but for what it escaped."""
    return ";".join(piece.removeprefix("'") for piece in cell_text.split(";"))


def say(message: object) -> None:
    """Print a message on stderr, with the program's name in front."""
    print(f"winspect: {printable(message)}", file=sys.stderr, flush=True)


def show(*lines: object) -> None:
    """Print lines of a result on stdout."""
    print("\n".join(map(printable, lines)))


def progress_bar(items: Iterable[Item], name: str, total: int, *, shown: bool) -> Iterable[Item]:
    """Hand the items through; with ``shown``, and ``total`` above 0, count them on stderr, where that is a terminal."""
    if not shown or not total:
        return items
    from tqdm import tqdm

    return tqdm(items, name, total=total, unit="picture", file=sys.stderr, disable=None, leave=False)


def open_streams() -> None:
    """Open stdin, stdout and stderr on the null device where the caller closed them (``>&-``).

    Else the next file opened takes the place of one of them, and what a library prints ends up in that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (as Python's own)


class LineFormatter(logging.Formatter):
    """``winspect: message``, each record one line."""

    def __init__(self) -> None:
        super().__init__("winspect: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """The record's line; a traceback, where there is one, follows it."""
        text = record.message
        if record.name == "py.warnings":  # its last line repeats the code that warned
            text = text.rstrip().rpartition("\n  ")[0] or text
        record.message = printable(text)
        return super().formatMessage(record)


def log_to_stderr(level: int) -> None:
    """Send the log and the warnings of this process to stderr, a line each.

    Above INFO, those of the libraries below stay out of it, but for errors: their reader cannot do anything about them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    if level > logging.INFO:
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(?!\.cuda)(\.|$)")
