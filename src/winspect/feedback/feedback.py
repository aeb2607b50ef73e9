"""Feedback on the pictures of a folder: answers into the audit log, and what follows from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from winspect.errors import AuditLogError
from winspect.feedback.chain import AuditLog, Writer, utc_now
from winspect.feedback.queue import Queued, review_queue
from winspect.feedback.records import Answer, JudgedPicture, Records
from winspect.feedback.settings import FeedbackSettings


class Feedback:
    """The audit log of a folder with what follows from it. Threads, and several processes, may use it at once.

    Args:
        folder: of a watch's results, or a service's data.
        settings: how much is kept.
        clock: gives the time in UTC.
    """

    def __init__(
        self,
        folder: Path,
        settings: FeedbackSettings | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.folder, self.settings = folder, settings or FeedbackSettings()
        self._log = AuditLog(folder, file_bytes=int(self.settings.file_mb * 2**20), clock=clock)
        self._records = Records(self.settings.remember)
        self._lock = threading.RLock()

    @contextmanager
    def records(self) -> Iterator[Records]:
        """What is known now, other writers' entries too; held still meanwhile."""
        with self._lock:
            self._refresh()
            yield self._records

    @contextmanager
    def writing(self) -> Iterator[tuple[Records, Writer]]:
        """:meth:`records`, and a writer; nobody else writes meanwhile. Errors as of :meth:`AuditLog.writing`."""
        with self._lock, self._log.writing() as writer:
            self._refresh()
            yield self._records, writer
            self._refresh()

    def _refresh(self) -> None:
        for entry in self._log.new_entries():
            self._records.take(entry)

    def note(self, *entries: Mapping[str, Any]) -> None:
        """Write entries into the log, such as ``{"event": "change", "what": ...}``, through to the disk.

        Raises:
            OutputError: it cannot be written.
        """
        with self.writing() as (_, writer):
            writer.append(entries)

    def check_is_there(self) -> None:
        """Refuse a folder in which nothing was ever judged.

        Raises:
            AuditLogError: it has no audit log.
        """
        if not self._log.is_there:
            raise AuditLogError(
                f"{self.folder}: holds no audit log: need the --out of `winspect watch`, or the --data of a service"
            )

    def picture(self, which: str) -> JudgedPicture:
        """A picture by its id, the path of its row, or the file's name.

        Raises:
            FeedbackError: there is none, or several.
        """
        with self.records() as records:
            return records.find(which)

    def judge(self, which: str, answer: str, *, by: str | None = None, note: str | None = None) -> Answer:
        """Write down what somebody says of a picture; returns the answer that stands.

        Args:
            which: id, path of the row, or the file's name.
            answer: ``good`` or ``defective``.
            by: who says so; not proven.
            note: what else is to be written down.

        Raises:
            FeedbackError: an unknown picture, or an unknown answer.
            AlreadyJudgedError: the picture has an answer: by this person the opposite, or somebody else's. What
                somebody else says is in the log all the same.
            OutputError: it cannot be written; nothing has changed.
        """
        with self.writing() as (records, writer):
            picture = records.find(which)
            entry, refusal = records.answering(picture, answer, by)
            if entry is not None:
                writer.append([{**entry, **({"note": note} if note else {})}])
                self._refresh()
            if refusal is not None:
                raise refusal
            return records.answers[picture.id]

    def undo(self, which: str, *, by: str | None = None) -> JudgedPicture:
        """Take back what was said of a picture, whoever said it; returns the picture, which is in the queue again.

        Raises:
            FeedbackError: an unknown picture. AlreadyJudgedError: it has no answer.
            OutputError: it cannot be written; nothing has changed.
        """
        with self.writing() as (records, writer):
            picture = records.find(which)
            writer.append([records.undoing(picture, by)])
            return picture

    def queue(self, *, class_name: str | None = None, most: int = 50) -> Sequence[Queued]:
        """The first pictures of the review queue; see :func:`winspect.feedback.queue.review_queue`."""
        with self.records() as records:
            return review_queue(records, class_name=class_name, most=most)
