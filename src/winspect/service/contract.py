# ruff: noqa: N818  (errors are named for what happened)
"""Questions, answers and errors of the backend."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from winspect.calibration.judgement import Boxes, DecisionRule, Judgement
from winspect.errors import ClassNameError, WinspectError
from winspect.methods.winclip import prompts
from winspect.pictures.fingerprints import Fingerprint
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange

if TYPE_CHECKING:
    import numpy as np

    from winspect.methods.result import Result
    from winspect.pictures.tiles import Prepared

_NAME_LENGTH = 100

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
class Question:
    """A picture and what is asked about it; the same from a request to the model process.

    Attributes:
        name: the client's file name.
        picture: a file's bytes, or uint8 (height, width[, 3]), RGB; where it was decoded before, what the model takes.
        category_name: what the part is called.
        deadline: on :func:`time.monotonic`'s clock. ``asked``: when the question came, on the same.
        threshold: scores from here on are anomalous, in place of the calibration's. ``review_threshold``: beside it,
            scores from here on are ``review``.
        overlay: also paint the heat map. ``maps``: False for scores alone where nothing but the score is needed; much
            less work for some recipes.
        boxes: which pictures get boxes of defects; None for ``anomalous`` where the calibration says which pixels are
            defects.
        pixel_threshold, min_area: in place of the calibration's; see :class:`winspect.calibration.RegionRule`.
        zero_shot: without the class' references, and without a calibration made with them.
        rule, score_range: verdict and colours of the overlay, as the backend has found them; None for the colours of
            the class' good samples.
    """

    name: str
    picture: bytes | np.ndarray | Prepared = field(repr=False)
    category_name: str
    deadline: float
    threshold: float | None = None
    overlay: bool = False
    maps: bool = False
    boxes: Boxes | None = None
    pixel_threshold: float | None = None
    min_area: float | None = None
    zero_shot: bool = False
    review_threshold: float | None = None
    rule: DecisionRule = field(default_factory=DecisionRule)
    score_range: ScoreRange | None = None
    asked: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[str, bool, bool]:
        """Class, zero-shot, maps: pictures of one batch have them in common."""
        return self.category_name, self.zero_shot, self.maps

    @property
    def kind(self) -> tuple[bool, bool]:
        """What the time of a batch depends on, whatever the class: zero-shot, maps."""
        return self.zero_shot, self.maps


@dataclass(frozen=True)
class Answer:
    """An answer to a question.

    Attributes:
        judgement: of a result with the maps of its tiles where they were asked for, without the picture.
        overlay_png: the heat map over the picture, its longer side at most ``overlay_side``.
        references: hashes of the references it was scored with; none for zero-shot.
        score_range: of the colours of heat maps.
        queue_seconds: from the question to the start of the model; ``compute_seconds``: of the whole batch.
        batch_size: pictures scored together; 0 for one that never came to the model.
        id: by which feedback refers to it.
    """

    judgement: Judgement
    overlay_png: bytes | None = field(default=None, repr=False)
    references: tuple[str, ...] = ()
    score_range: ScoreRange = UNIT_RANGE
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_size: int = 0
    id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def result(self) -> Result:
        """Score and maps."""
        return self.judgement.result

    @property
    def shots(self) -> int:
        """How many references it was scored with; 0 is zero-shot."""
        return len(self.references)


@dataclass(frozen=True)
class Status:
    """How the backend is.

    Attributes:
        state: ``loading`` until first ready; ``unavailable`` while no process can work; ``draining`` to the end.
        queued: pictures that wait for the model; ``in_flight``: that are with a model process.
        restarts: how often a model process was started again.
    """

    state: State
    queued: int
    in_flight: int
    restarts: int


class StoredFingerprint(Fingerprint):
    """By content alone: two files of one name may be different pictures."""

    @property
    def keys(self) -> set[str]:
        """See :class:`Fingerprint`."""
        return {self.sha256} if self.sha256 else set()


@dataclass(frozen=True)
class StoredPicture:
    """A stored picture without its content. ``name`` is the client's, cleaned; ``size`` in bytes."""

    name: str
    sha256: str
    size: int = 0

    @property
    def fingerprint(self) -> Fingerprint:
        """Identity by which copies and references are recognised."""
        return StoredFingerprint(self.name, self.sha256)


@dataclass(frozen=True)
class CalibrationState:
    """State of the calibration of a class.

    Attributes:
        state: ``none``; ``running`` (``done`` of ``total`` pictures); ``ready``; ``stale``: made with other references
            or another model, and not used; ``failed``. ``message`` says why of the last two.
        max_false_alarms: as asked for. ``review``: the rate of pictures to review, None for two verdicts;
            ``review_threshold``: its score, of a calibration that is there.
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
    review: float | None = None
    review_threshold: float | None = None
    document: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ClassInfo:
    """A class. ``category_name`` is the name as it stands in prompts."""

    category_name: str
    shots: int
    good_pictures: int
    calibration: CalibrationState


def clean_name(name: str, default: str = "picture") -> str:
    """A client's file name as it may stand in rows, messages and logs: no folders, nothing unprintable, not too long.

    >>> clean_name("C:\\\\parts\\\\a.jpg"), clean_name("../../etc/passwd"), clean_name("..", "picture-3")
    ('a.jpg', 'passwd', 'picture-3')
    """
    last = "".join(letter for letter in re.split(r"[/\\]", name)[-1] if letter.isprintable())
    last = last.strip()[:_NAME_LENGTH]
    return last if last.strip(".") else default


def class_key(category_name: str) -> str:
    """Key of a class, as :func:`prompts.class_key` has it; nothing that looks like a path.

    Raises:
        ClassNameError: see :func:`prompts.check_class_name`; or slashes, backslashes, two dots.
    """
    key = prompts.class_key(category_name)
    if any(part in key for part in ("/", "\\", "..")):
        raise ClassNameError(f"got the class name {category_name!r}: it looks like a path; name the part in words")
    return key
