"""Requests of the service's API as values: what is sent, and how the answer is read. Nothing is sent here."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from winspect.client import answers
from winspect.client.errors import ClientError, RefusedError
from winspect.errors import PictureError

Found = TypeVar("Found")
Picture = Any
"""A file (str or path), its bytes, a name and bytes, a PIL image, or an array uint8 (height, width[, 3]), RGB."""

LIVE, READY = "/v2/health/live", "/v2/health/ready"
POLL_S = 0.25
"""Between two questions whether something is done."""

_PICTURE_FIELD = "pictures"


@dataclass(frozen=True)
class Request(Generic[Found]):
    """A request.

    Attributes:
        read: the answer's JSON to what the caller gets.
        params, fields, files: query, fields and pictures of the form.
        is_repeatable: whether it may be made again when nobody knows whether it arrived.
        is_json: whether the answer is; False for a file.
    """

    method: str
    path: str
    read: Callable[[Any], Found]
    params: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, tuple[str, bytes]]] = field(default=(), repr=False)
    is_repeatable: bool = True
    is_json: bool = True

    def arguments(self) -> dict[str, Any]:
        """Arguments of httpx."""
        form = {"data": dict(self.fields), "files": list(self.files)} if self.files else {"data": dict(self.fields)}
        return {"params": dict(self.params), **(form if self.method == "POST" else {})}


def predict(
    pictures: Iterable[Picture], class_name: str | None, options: Mapping[str, Any]
) -> Request[list[answers.Row]]:
    """``POST /v1/predict``."""
    return Request("POST", "/v1/predict", answers.rows_of, fields=_fields(class_name, options), files=_files(pictures))


def set_references(class_name: str, pictures: Iterable[Picture], *, add: bool) -> Request[answers.ClassInfo]:
    """``POST /v1/references``."""
    fields = _fields(class_name, {"add": add})
    files = _files(pictures)
    return Request("POST", "/v1/references", answers.class_of, fields=fields, files=files, is_repeatable=not add)


def references(class_name: str) -> Request[answers.References]:
    """``GET /v1/references``."""
    return Request("GET", "/v1/references", answers.references_of, params={"class": class_name})


def delete_references(class_name: str, name: str | None, sha256: str | None) -> Request[answers.ClassInfo]:
    """``DELETE /v1/references``; of one sample it is not made twice: the second would find none."""
    params = _fields(class_name, {"name": name, "sha256": sha256})
    is_all = name is None and sha256 is None
    return Request("DELETE", "/v1/references", answers.class_of, params=params, is_repeatable=is_all)


def add_good(class_name: str, pictures: Iterable[Picture]) -> Request[int]:
    """``POST /v1/calibrations/pictures``; copies count once, so that it may be made again."""
    files, fields = _files(pictures), _fields(class_name, {})
    return Request("POST", "/v1/calibrations/pictures", answers.good_pictures_of, fields=fields, files=files)


def delete_good(class_name: str) -> Request[answers.ClassInfo]:
    """``DELETE /v1/calibrations/pictures``."""
    return Request("DELETE", "/v1/calibrations/pictures", answers.class_of, params={"class": class_name})


def start_calibration(
    class_name: str, max_false_alarms: float, review: float | None = None
) -> Request[answers.Calibration]:
    """``POST /v1/calibrations``."""
    fields = _fields(class_name, {"max_false_alarms": max_false_alarms, "review": review})
    return Request("POST", "/v1/calibrations", answers.calibration_of, fields=fields, is_repeatable=False)


def calibration(class_name: str) -> Request[answers.Calibration]:
    """``GET /v1/calibrations``."""
    return Request("GET", "/v1/calibrations", answers.calibration_of, params={"class": class_name})


def calibration_document(class_name: str) -> Request[dict[str, Any]]:
    """``GET /v1/calibrations/document``."""
    return Request("GET", "/v1/calibrations/document", answers.document_of, params={"class": class_name})


def delete_calibration(class_name: str) -> Request[answers.ClassInfo]:
    """``DELETE /v1/calibrations``."""
    return Request("DELETE", "/v1/calibrations", answers.class_of, params={"class": class_name})


def feedback(id: str, answer: str, by: str | None, note: str | None, *, reference: bool) -> Request[answers.Feedback]:
    """``POST /v1/feedback``; the same answer by the same person counts once, so that it may be made again."""
    options = {"id": id, "answer": answer, "by": by, "note": note, "reference": reference or None}
    is_repeatable = answer != "undo" and not reference
    return Request(
        "POST", "/v1/feedback", answers.feedback_of, fields=_fields(None, options), is_repeatable=is_repeatable
    )


def review(class_name: str | None, most: int) -> Request[list[answers.ReviewPicture]]:
    """``GET /v1/review``."""
    return Request("GET", "/v1/review", answers.review_of, params=_fields(class_name, {"most": most}))


def review_picture(id: str) -> Request[bytes]:
    """``GET /v1/review/picture``."""
    return Request("GET", "/v1/review/picture", bytes, params={"id": id}, is_json=False)


def judged(id: str) -> Request[answers.Feedback]:
    """``GET /v1/feedback``."""
    return Request("GET", "/v1/feedback", answers.feedback_of, params={"id": id})


def feedback_rates(class_name: str) -> Request[answers.Rates]:
    """``GET /v1/feedback/rates``."""
    return Request("GET", "/v1/feedback/rates", answers.rates_of, params={"class": class_name})


def drift(method: str, class_name: str | None, newest: int | None) -> Request[list[dict[str, Any]]]:
    """``GET`` or ``DELETE /v1/drift``."""
    return Request(method, "/v1/drift", answers.lines_of, params=_fields(class_name, {"newest": newest}))


def classes() -> Request[list[answers.ClassInfo]]:
    """``GET /v1/classes``."""
    return Request("GET", "/v1/classes", answers.classes_of)


def model() -> Request[dict[str, Any]]:
    """``GET /v1/model``."""
    return Request("GET", "/v1/model", answers.document_of)


def server() -> Request[dict[str, Any]]:
    """``GET /v2``."""
    return Request("GET", "/v2", answers.document_of)


def one_row(group: Sequence[Picture], class_name: str | None, error: RefusedError) -> list[answers.Row]:
    """The row of a picture that was sent alone and cannot be used, as it would have among others.

    Raises:
        RefusedError: it was not for the picture that the request was refused.
    """
    if len(group) > 1 or error.kind not in ("PictureError", "DemandingPictureError"):
        raise error
    reason = answers.RowError(error.kind, error.message)
    return [answers.Row(_file(group[0], 1)[0], class_name or "object", error=reason)]


def in_groups(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Groups of pictures, in order; none is empty."""
    left = iter(pictures)
    while group := list(islice(left, size)):
        yield group


def _fields(class_name: str | None, options: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a form; what is None is left to the service."""
    given = {name: value for name, value in {"class": class_name, **options}.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}


def _files(pictures: Iterable[Picture]) -> list[tuple[str, tuple[str, bytes]]]:
    files = [(_PICTURE_FIELD, _file(picture, number)) for number, picture in enumerate(pictures, 1)]
    if not files:
        raise ClientError("got no pictures, need at least one")
    return files


def _file(picture: Picture, number: int) -> tuple[str, bytes]:
    """Name and bytes of a picture."""
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        try:
            return path.name, path.read_bytes()
        except OSError as error:
            raise PictureError(str(path), f"cannot be read: {error.strerror or error}") from error
    if isinstance(picture, tuple):
        return picture
    if isinstance(picture, bytes | bytearray | memoryview):
        return f"picture-{number}", bytes(picture)
    return f"picture-{number}.png", _encoded(picture, number)


def _encoded(picture: Picture, number: int) -> bytes:
    """A PIL image or an array as PNG, which loses nothing."""
    from PIL import Image

    try:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        file = io.BytesIO()
        image.save(file, "PNG")
    except (TypeError, ValueError, AttributeError, OSError) as error:
        need = "a file, bytes, a PIL image or an array uint8 (height, width[, 3])"
        raise PictureError(f"picture-{number}", f"got {type(picture).__name__}, need {need} ({error})") from error
    return file.getvalue()
