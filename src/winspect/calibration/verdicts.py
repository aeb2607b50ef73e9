"""What the verdict of three is made of: a product's section ``[verdict]``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from winspect.calibration.conformal import check_rate
from winspect.errors import SettingsError

Verdict = Literal["normal", "review", "anomalous"]
VERDICTS: tuple[Verdict, ...] = ("normal", "review", "anomalous")
"""From good to bad."""


def gravest(*verdicts: Verdict) -> Verdict:
    """The worst of some verdicts.

    >>> gravest("review", "normal")
    'review'
    """
    return max(verdicts, key=VERDICTS.index)


def mildest(*verdicts: Verdict) -> Verdict:
    """The best of some verdicts."""
    return min(verdicts, key=VERDICTS.index)


@dataclass(frozen=True)
class Verdicts:
    """Where ``review`` and ``anomalous`` begin, and the scale of lengths.

    Attributes:
        review: at most this share of good pictures is ``review`` or ``anomalous``; more than the calibration's
            ``max_false_alarms``. None for the calibration's, or for two verdicts.
        threshold: scores from here on are ``anomalous``, in place of the calibration's.
        review_threshold: scores from here on are ``review``, below ``threshold``.
        mm_per_pixel: of the pictures as they come from the camera; None where rules count in pixels.
        roi: rates by the names of areas of the ROI: at most this share of good pictures is flagged for what lies in the
            area, whose threshold the calibration finds. They are part of its ``max_false_alarms``, not beside it.

    Raises:
        SettingsError: a value out of range, or values that exclude each other.
    """

    review: float | None = None
    threshold: float | None = None
    review_threshold: float | None = None
    mm_per_pixel: float | None = None
    roi: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_review(self.review, self.threshold, self.review_threshold)
        check_positive("mm_per_pixel", self.mm_per_pixel, "the width of a pixel in mm above 0, such as 0.05")
        if not isinstance(self.roi, Mapping):
            raise SettingsError(f"roi: got {self.roi!r}, need a table of rates by area, as in roi = {{rim = 0.002}}")
        for name, rate in self.roi.items():
            check_rate(rate, f"roi: {name}")

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Verdicts:
        """Settings from a document, as :meth:`document` makes it; what is not there keeps its default.

        Raises:
            SettingsError: an unknown key, or a value out of range.
        """
        values = table("verdict", document, [entry.name for entry in fields(cls)])
        try:
            return cls(**values)
        except SettingsError as error:
            raise SettingsError(f"verdict: {error}") from error

    def document(self) -> dict[str, Any]:
        """The JSON and TOML form; what is at its default is left out."""
        numbers = {
            name: value
            for name in ("review", "threshold", "review_threshold", "mm_per_pixel")
            if (value := getattr(self, name)) is not None
        }
        return {**numbers, **({"roi": dict(self.roi)} if self.roi else {})}


def table(name: str, document: object, known: list[str]) -> Mapping[str, Any]:
    """A document that has no other keys than those known.

    Raises:
        SettingsError: it has, or is no table.
    """
    keys = ", ".join(known)
    if not isinstance(document, Mapping):
        raise SettingsError(f"{name}: got {document!r}, need a table with keys of {keys}")
    if unknown := [key for key in document if key not in known]:
        raise SettingsError(
            f"{name}: got the unknown key {unknown[0]!r}; known are {keys}; correct it, or leave it out"
        )
    return document


def check_positive(name: str, value: object, need: str) -> None:
    """Refuse what is not a finite number above 0; None is left alone. Raises SettingsError."""
    if value is not None and not (is_number(value) and value > 0):  # type: ignore[operator]
        raise SettingsError(f"{name}: got {value!r}, need {need}")


def is_number(value: object) -> bool:
    """Whether it is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_review(
    review: float | None,
    threshold: float | None,
    review_threshold: float | None,
    names: tuple[str, str, str] = ("review", "threshold", "review_threshold"),
) -> None:
    """Refuse levels of the verdict that exclude each other.

    Args:
        review: a rate. threshold, review_threshold: scores.
        names: of the three, for the error.

    Raises:
        SettingsError: a rate or a score out of range, a rate beside a threshold, or thresholds in the wrong order.
    """
    if review is not None:
        check_rate(review, names[0])
    for name, value in zip(names[1:], (threshold, review_threshold), strict=True):
        if value is not None and not (is_number(value) and value >= 0):
            raise SettingsError(f"{name}: got {value!r}, need a score, such as 0.5")
    if review is not None and (threshold is not None or review_threshold is not None):
        other = names[1] if threshold is not None else names[2]
        raise SettingsError(
            f"got {names[0]}, a rate that a calibration keeps, beside {other}, a score chosen by hand: leave one out; "
            f"beside {names[1]} the score where review begins is {names[2]}"
        )
    if review_threshold is None:
        return
    if threshold is None:
        raise SettingsError(f"{names[2]}: needs {names[1]}; with a calibration use {names[0]}, a rate")
    if not review_threshold < threshold:
        raise SettingsError(
            f"{names[2]}: got {review_threshold:g}, need a score below {names[1]} ({threshold:g}): review lies below "
            "anomalous"
        )


def check_above(review: float | None, max_false_alarms: float, name: str = "review") -> None:
    """Refuse a review rate that is not above the rate of alarms.

    Raises:
        SettingsError: says both.
    """
    if review is not None and not check_rate(review, name) > check_rate(max_false_alarms):
        raise SettingsError(
            f"{name}: got {review:g}, need a rate above max_false_alarms ({max_false_alarms:g}): of good pictures at "
            "most so many are review or anomalous"
        )
