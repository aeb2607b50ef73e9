"""The bundled pictures: generated parts, good and with defects, made by ``python -m training.gate_sheet``.

One sheet, a column per kind of part. The gate scores rows 0 to 3, rows 4 and 5 calibrate int8, so that nothing
is scored that ranges were set on. No picture of them has trained the bundled model.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from winspect.pictures.decoding import read_rgb

GATE_PICTURES_VERSION = 1
"""Part of the key of every verdict: raised with the sheet."""

_SIDE = 240
_GATE_ROWS, _CALIBRATION_ROWS = (0, 1, 2, 3), (4, 5)


def _tiles(rows: tuple[int, ...]) -> list[np.ndarray]:
    with (files("winspect.engines.gate") / "pictures.jpg").open("rb") as file:
        sheet = read_rgb(file.read())
    columns = sheet.shape[1] // _SIDE
    return [
        sheet[row * _SIDE : (row + 1) * _SIDE, column * _SIDE : (column + 1) * _SIDE]
        for row in rows
        for column in range(columns)
    ]


def gate_pictures() -> tuple[list[np.ndarray], np.ndarray]:
    """Forty pictures, uint8 RGB (240, 240, 3), and their labels, bool (40,): true has a defect."""
    pictures = _tiles(_GATE_ROWS)
    per_row = len(pictures) // len(_GATE_ROWS)
    return pictures, np.repeat([row % 2 == 1 for row in _GATE_ROWS], per_row)


def calibration_pictures() -> list[np.ndarray]:
    """Twenty other pictures, uint8 RGB (240, 240, 3), good and with defects."""
    return _tiles(_CALIBRATION_ROWS)


def good_pictures() -> list[np.ndarray]:
    """The good ones of these: references for methods that score with good samples alone."""
    return _tiles(_CALIBRATION_ROWS[:1])
