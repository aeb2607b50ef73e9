"""Answers of the service as frozen dataclasses. Entries that a later service adds are passed over."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from winspect.client.errors import ClientError

if TYPE_CHECKING:
    import numpy as np

Made = TypeVar("Made")


@dataclass(frozen=True)
class RowError:
    """Why a picture among several could not be used: name and message of the error."""

    type: str
    message: str


@dataclass(frozen=True)
class AnomalyMap:
    """An anomaly map, of at most a megapixel.

    Attributes:
        shape: height and width. ``data``: float32, little-endian, row by row.
        range: the values at which the colours of heat maps begin and are strongest.
    """

    shape: tuple[int, int]
    data: bytes = field(repr=False)
    range: tuple[float, float]

    def array(self) -> np.ndarray:
        """The map, float32 (height, width); more is more anomalous."""
        import numpy as np

        return np.frombuffer(self.data, "<f4").reshape(self.shape)


@dataclass(frozen=True)
class Row:
    """What the service says of a picture.

    Attributes:
        path: the name that the picture was sent under. ``class_name``: what the part is called.
        anomaly_score: more is more anomalous; None where there is an ``error``.
        verdict: None without a threshold. ``threshold``: what the score was compared with; ``review_threshold``: where
            ``review`` begins. ``reason``: of the verdict, where it is looked for.
        p_value: small is anomalous; None without a calibration.
        boxes: defects as x0, y0, x1, y1 in pixels, the last two exclusive; None where none were looked for.
        warning: what is suspicious about the picture.
        parts: scores that were combined into ``anomaly_score``, by recipe; None for most recipes.
        size: width and height in pixels. ``shots``: good samples it was compared with; 0 is zero-shot.
        map, overlay_png: where they were asked for.
        product: name and revision of the product whose verdict it is; None without one.
        id: by which feedback refers to it; None for a picture that could not be used at all.
    """

    path: str
    class_name: str
    anomaly_score: float | None = None
    verdict: Literal["normal", "review", "anomalous"] | None = None
    threshold: float | None = None
    p_value: float | None = None
    boxes: tuple[tuple[int, int, int, int], ...] | None = None
    error: RowError | None = None
    warning: str | None = None
    parts: Mapping[str, float] | None = None
    size: tuple[int, int] | None = None
    shots: int | None = None
    map: AnomalyMap | None = None
    overlay_png: bytes | None = field(default=None, repr=False)
    id: str | None = None
    review_threshold: float | None = None
    reason: str | None = None
    product: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class JudgedPicture:
    """A picture as the service has judged it.

    Attributes:
        time: ISO 8601, UTC. path: the name that it was sent under.
        sha256: of the file. audit: whether it was drawn by chance for the audit sample.
    """

    id: str
    time: str
    path: str
    class_name: str
    sha256: str | None
    score: float | None
    verdict: str | None
    threshold: float | None
    p_value: float | None
    audit: bool


@dataclass(frozen=True)
class Feedback(JudgedPicture):
    """A picture and what was said of it.

    Attributes:
        answer: that stands; None where nobody has judged it. by: who said so; answered: when.
        disputed: somebody else said the opposite: it counts as neither.
        reference: it is a good sample by feedback. pooled: its class is calibrated on it.
    """

    answer: Literal["good", "defective"] | None
    by: str | None
    answered: str | None
    disputed: bool
    reference: bool
    pooled: bool


@dataclass(frozen=True)
class ReviewPicture(JudgedPicture):
    """A picture to look at.

    Attributes:
        because: why it is in the queue. doubt: 1 at the threshold, towards 0 far from it.
        has_picture: whether the service still has its file.
    """

    because: Literal["disputed", "review", "audit", "anomalous", "doubt"]
    doubt: float
    has_picture: bool


@dataclass(frozen=True)
class Rates:
    """What the audit sample of a class says: numbers of pictures.

    Attributes:
        good, defective: drawn and called so; ``alarms``, ``found``: of these flagged.
        all_defective, all_found: with those that were not drawn, of which mostly flagged ones were looked at.
        pooled: good ones that the class is calibrated on.
        waits_for: the drawn picture without an answer that holds back the ``behind`` ones.
    """

    class_name: str
    good: int
    alarms: int
    defective: int
    found: int
    all_defective: int
    all_found: int
    pooled: int
    waits_for: str | None
    behind: int


@dataclass(frozen=True)
class Calibration:
    """Where the calibration of a class stands.

    Attributes:
        state: ``none``; ``running`` (``done`` of ``total`` pictures); ``ready``; ``stale``, made with other good
            samples or another model and not used; ``failed``. ``message`` says why of the last two.
        max_false_alarms: the share of good pictures that may be flagged, 0 to 1.
        threshold, pictures, date: of a calibration that is there.
        review: the share that may be ``review`` or ``anomalous``, and its ``review_threshold``; None for two verdicts.
    """

    state: Literal["none", "running", "ready", "stale", "failed"]
    message: str | None
    max_false_alarms: float | None
    done: int
    total: int
    threshold: float | None
    pictures: int | None
    date: str | None
    review: float | None = None
    review_threshold: float | None = None


@dataclass(frozen=True)
class ClassInfo:
    """A class: ``shots`` good samples it is compared with, ``good_pictures`` stored to calibrate with."""

    class_name: str
    shots: int
    good_pictures: int
    calibration: Calibration | None


@dataclass(frozen=True)
class Reference:
    """A good sample that the service keeps. ``size`` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class References:
    """The good samples of a class."""

    class_name: str
    references: tuple[Reference, ...]


def rows_of(answer: Any) -> list[Row]:
    """The rows of ``POST /v1/predict``."""
    return [_row(entry) for entry in _entry(answer, "results")]


def calibration_of(answer: Any) -> Calibration:
    """The answer of ``/v1/calibrations``."""
    return _made(Calibration, answer)


def class_of(answer: Any) -> ClassInfo:
    """A class."""
    state = _entry(answer, "calibration")
    return _made(ClassInfo, answer, calibration=None if state is None else calibration_of(state))


def classes_of(answer: Any) -> list[ClassInfo]:
    """The answer of ``GET /v1/classes``."""
    return [class_of(entry) for entry in _entry(answer, "classes")]


def references_of(answer: Any) -> References:
    """The answer of ``GET /v1/references``."""
    samples = tuple(_made(Reference, entry) for entry in _entry(answer, "references"))
    return _made(References, answer, references=samples)


def feedback_of(answer: Any) -> Feedback:
    """The answer of ``/v1/feedback``."""
    return _made(Feedback, answer)


def review_of(answer: Any) -> list[ReviewPicture]:
    """The answer of ``GET /v1/review``."""
    return [_made(ReviewPicture, entry) for entry in _entry(answer, "pictures")]


def rates_of(answer: Any) -> Rates:
    """The answer of ``GET /v1/feedback/rates``."""
    return _made(Rates, answer)


def lines_of(answer: Any) -> list[dict[str, Any]]:
    """The lines of ``/v1/drift``, which stay JSON."""
    return [document_of(line) for line in _entry(answer, "lines")]


def good_pictures_of(answer: Any) -> int:
    """How many good pictures a class has."""
    return int(_entry(answer, "good_pictures"))


def document_of(answer: Any) -> dict[str, Any]:
    """An answer that stays JSON."""
    if not isinstance(answer, dict):
        raise ClientError(
            f"got an answer of the kind {type(answer).__name__}, need an object: is this winspect's service?"
        )
    return answer


def _row(entry: Any) -> Row:
    row = document_of(entry)
    boxes, error, heat, overlay = (row.get(name) for name in ("boxes", "error", "map", "overlay_png"))
    return _made(
        Row,
        row,
        anomaly_score=_entry(row, "anomaly_score"),
        boxes=None if boxes is None else tuple(tuple(box) for box in boxes),
        error=None if error is None else _made(RowError, error),
        size=None if row.get("size") is None else tuple(row["size"]),
        map=None if heat is None else _map(heat),
        overlay_png=None if overlay is None else base64.b64decode(overlay),
    )


def _map(entry: Mapping[str, Any]) -> AnomalyMap:
    height, width = _entry(entry, "shape")
    low, high = _entry(entry, "range")
    return AnomalyMap((height, width), base64.b64decode(_entry(entry, "data")), (low, high))


def _made(kind: type[Made], answer: Any, **read: Any) -> Made:
    """A dataclass from the entries of its names, but for those read already; defaults stand for absent ones."""
    left = {each.name: each.default for each in fields(kind) if each.name not in read}  # type: ignore[arg-type]
    keys = {name: "class" if name == "class_name" else name for name in left}
    needed = [name for name, default in left.items() if default is MISSING or keys[name] in document_of(answer)]
    return kind(**read, **{name: _entry(answer, keys[name]) for name in needed})


def _entry(answer: Any, name: str) -> Any:
    if name not in document_of(answer):
        raise ClientError(
            f"got an answer without {name!r}: is this winspect's service, of this release or a later one?"
        )
    return answer[name]
