"""Good pictures as good samples: copied into a folder that ``--reference`` names, and taken back."""

from __future__ import annotations

import hashlib
from pathlib import Path

from winspect.errors import FeedbackError
from winspect.feedback.feedback import Feedback
from winspect.feedback.records import JudgedPicture
from winspect.system.files import make_folder, write_file
from winspect.system.opening import read_bytes


def content_of(picture: JudgedPicture) -> bytes:
    """The file of a picture, as it was judged.

    Raises:
        FeedbackError: it is not there any more, or has another content.
    """
    if picture.file is None:
        raise FeedbackError(
            f"{picture.path} ({picture.id}): its picture was not kept; a camera's frames are with --keep-frames"
        )
    try:
        content = read_bytes(picture.file)
    except OSError as error:
        raise FeedbackError(f"{picture.file}: the picture is not there any more ({error.strerror or error})") from error
    is_frame = picture.file != picture.path and Path(picture.path).name != Path(picture.file).name
    if not is_frame and picture.sha256 is not None and hashlib.sha256(content).hexdigest() != picture.sha256:
        raise FeedbackError(f"{picture.file}: the file was written over since it was judged; it is another picture now")
    return content


def add_sample(feedback: Feedback, picture: JudgedPicture, folder: Path, *, by: str | None = None) -> Path:
    """Copy a good picture to the good samples in a folder, and write that down; returns where it is.

    What was calibrated without it no longer fits; the model's identity says so.

    Raises:
        FeedbackError: it may not become one (see :meth:`Records.check_reference`), or is not there any more.
        OutputError: it cannot be written.
    """
    content = content_of(picture)
    place = make_folder(folder) / f"{picture.id[:12]}-{Path(picture.file or picture.path).name}"
    change = {"event": "change", "what": "reference", "id": picture.id, "sha256": picture.sha256, "by": by}
    change["place"] = str(place.absolute())
    with feedback.writing() as (records, writer):
        records.check_reference(picture)
        writer.append([{**change, "do": "add"}])
    try:
        write_file(place, content)
    except BaseException:
        feedback.note({**change, "do": "remove"})
        raise
    return place


def remove_sample(feedback: Feedback, picture: JudgedPicture, *, by: str | None = None) -> Path | None:
    """Take a picture back out of the good samples, and write that down.

    Returns:
        Where it was; None where it was none.
    """
    with feedback.writing() as (records, writer):
        place = records.references.get(picture.id)
        if place is None:
            return None
        change = {"event": "change", "what": "reference", "do": "remove", "id": picture.id, "place": place, "by": by}
        writer.append([change])
    path = Path(place)
    path.unlink(missing_ok=True)
    return path
