# ruff: noqa: N818  (the errors are named for what they say)
"""What the backend answers with, and the errors it refuses with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from winspect.errors import ClassNameError, WinspectError
from winspect.methods.winclip import prompts
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange

if TYPE_CHECKING:
    from winspect.calibration import Judgement, RegionRule
    from winspect.methods.result import Result

State = Literal["loading", "ready", "unavailable", "draining"]


class ServiceError(WinspectError):
    """The service cannot answer this now, whatever is asked."""


class Overloaded(ServiceError):
    """The queue is full (429). ``retry_after_s`` is when to ask again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ServiceError):
    """The answer was not there in time (504)."""


class NotReady(ServiceError):
    """Loading, restarting or draining (503). ``retry_after_s`` is when to ask again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreFull(ServiceError):
    """A limit of what is stored would be passed (507); nothing has changed."""


class UnknownClass(ServiceError):
    """A class that is not served, or has nothing of what is asked for (404)."""


@dataclass(frozen=True)
class Judged:
    """The judgement of one picture.

    Attributes:
        result: with the maps of its tiles where they were asked for; without the picture.
        decision: by the class' calibration; None without one that fits the references and the model.
        overlay_png: the heat map over the picture, its longer side at most ``overlay_side``.
        queue_seconds: from the call to the start of the model; ``compute_seconds``: of the whole batch.
        batch_size: pictures judged together.
        shots: references it was judged with, 0 for zero-shot.
        score_range: of the colours of heat maps.
        regions: which defects get boxes by that calibration; None without one that knows a pixel threshold.
    """

    result: Result
    decision: Judgement | None
    overlay_png: bytes | None = field(repr=False)
    queue_seconds: float
    compute_seconds: float
    batch_size: int
    shots: int
    regions: RegionRule | None = None
    score_range: ScoreRange = UNIT_RANGE


@dataclass(frozen=True)
class StoredPicture:
    """A reference. ``name`` is the client's, cleaned; ``size`` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class CalibrationState:
    """Where the calibration of a class stands.

    Attributes:
        state: ``none``; ``running`` (``done`` of ``total`` pictures); ``ready``; ``stale``: made with other references
            or another model, and not used; ``failed``. ``message`` says why of the last two.
        max_false_alarms: as asked for.
        threshold, pictures, date: of a calibration that is there (``ready``, ``stale``).
        document: the same as the file of ``winspect calibrate``, for download.
    """

    state: Literal["none", "running", "ready", "stale", "failed"] = "none"
    message: str | None = None
    max_false_alarms: float | None = None
    done: int = 0
    total: int = 0
    threshold: float | None = None
    pictures: int | None = None
    date: str | None = None
    document: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ClassInfo:
    """What is known of a class. ``category_name`` is the name as it stands in prompts."""

    category_name: str
    shots: int
    good_pictures: int
    calibration: CalibrationState


@dataclass(frozen=True)
class BatchRecord:
    """One execution of the model, for metrics. ``error`` is the name of its error's class, if there is one."""

    size: int
    compute_seconds: float
    error: str | None = None


def class_key(category_name: str) -> str:
    """What a class is known by, as :func:`prompts.class_key` has it; nothing that looks like a path.

    Raises:
        ClassNameError: see :func:`prompts.check_class_name`; or slashes, backslashes, two dots.
    """
    key = prompts.class_key(category_name)
    if any(part in key for part in ("/", "\\", "..")):
        raise ClassNameError(f"got the class name {category_name!r}: it looks like a path; name the part in words")
    return key
