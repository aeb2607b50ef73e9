"""Every judged picture into the audit log, from a thread beside the line, which it never stops."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from winspect.calibration.regions import map_peak
from winspect.errors import WinspectError
from winspect.feedback.feedback import Feedback
from winspect.pictures.fingerprints import fingerprint

if TYPE_CHECKING:
    from winspect.methods.identity import Identity
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)

MOST_WAITING = 20_000
"""Pictures that wait for a disk that cannot be written; of further ones only the number is written down."""
_RETRY_S, _REMINDER_S = 1.0, 60.0
_COPIED = ("path", "class", "verdict", "threshold", "review_threshold", "p_value", "product", "reason", "error")


def is_drawn(id: str, audit_rate: float) -> bool:
    """Whether a picture is of the audit sample: by the first 48 bits of its random id, which know nothing of its score.

    >>> is_drawn("0" * 32, 0.02), is_drawn("f" * 32, 0.02), is_drawn("f" * 32, 1.0), is_drawn("0" * 32, 0.0)
    (True, False, True, False)
    """
    return int(id[:12], 16) < audit_rate * 2**48


class AuditTrail:
    """Takes rows and writes them into the log, several at once where they come fast. Use it in a with-block.

    A picture is on the disk a moment after :meth:`take`; a power cut in between loses that moment, which a watch makes
    good from its rows at the next start (:meth:`missing`). While the disk cannot be written, pictures wait.

    Args:
        feedback: where they go.
        identity: what scores, for recalibrations without scoring again; None where pictures are scored again for them.
        product: name and revision of the product that judges; a change of it is written down.
    """

    def __init__(
        self, feedback: Feedback, *, identity: Identity | None = None, product: Mapping[str, Any] | None = None
    ) -> None:
        self.feedback, self._product = feedback, product
        self.lost = 0
        self._run = None if identity is None else _run_of(identity)
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._in_hand, self._is_ending, self._trouble = 0, False, ""
        self._thread = threading.Thread(target=self._write, name="winspect-audit", daemon=True)

    def __enter__(self) -> AuditTrail:
        with self.feedback.records() as records:
            if self._run is not None and self._run["run"] not in records.runs:
                self._put(self._run)
            if self._product != records.product:
                self._put({"event": "change", "what": "product", "product": self._product})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(
        self,
        row: Mapping[str, Any],
        *,
        picture: Any = None,
        sha256: str | None = None,
        file: str | os.PathLike[str] | None = None,
        result: Result | None = None,
        may_be_drawn: bool = True,
    ) -> None:
        """Take a row that has its ``id``. Never waits for the disk, but to read the picture's hash, and never raises.

        Args:
            picture: path, array or bytes, for the hash where that is not given.
            file: that the picture is in; None for ``picture``, where it is a path.
            result: with its maps, where there are any: the peak of one that was drawn is kept.
            may_be_drawn: whether it can be of the audit sample; may depend on nothing that its score depends on.
        """
        drawn = may_be_drawn and self.draws(row)
        if sha256 is None and picture is not None:
            sha256 = fingerprint(picture).sha256
        if file is None and isinstance(picture, str | os.PathLike):
            file = picture
        entry = {"event": "picture", "id": row["id"], "sha256": sha256, "score": row["anomaly_score"]}
        if file is not None:
            entry["file"] = os.path.abspath(file)
        entry |= {name: row[name] for name in _COPIED if row.get(name) is not None}
        if "time" in row:
            entry["time"] = row["time"]
        if self._run is not None:
            entry["run"] = self._run["run"]
        if drawn:
            entry["audit"] = True
            if result is not None and result.tile_maps is not None:
                entry["peak"] = map_peak(result)
        self._put(entry)

    def draws(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of the audit sample by its id; see :func:`is_drawn`."""
        return row["anomaly_score"] is not None and is_drawn(row["id"], self.feedback.settings.audit_rate)

    def missing(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Take those rows behind the log's last picture that are not in it: of a run that was killed.

        Args:
            rows: with ``id`` and ``time``, in order; those without are passed over.

        Returns:
            How many there were.
        """
        with self.feedback.records() as records:
            since = "" if records.last is None else records.last.time
            late = (row for row in rows if "id" in row and str(row.get("time", "")) >= since)
            left = [row for row in late if records.get(row["id"]) is None]
        for row in left:
            self.take(row, picture=row["path"])
        return len(left)

    @property
    def waiting(self) -> int:
        """Pictures that are not on the disk yet."""
        return len(self._waiting) + self._in_hand

    def trouble(self) -> str:
        """Why pictures wait or were lost, in words for a line of status; empty where all is well."""
        lost = f"{self.lost} pictures are missing in the audit log" if self.lost else ""
        waits = f"{self.waiting} pictures wait for the audit log: {self._trouble}" if self._trouble else ""
        return "; ".join(filter(None, (waits, lost)))

    def flush(self, within_s: float = 10.0) -> bool:
        """Wait until all that was taken is on the disk; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting, within_s)

    def close(self, within_s: float = 10.0) -> None:
        """Write what waits, for at most so long, and end."""
        if self._thread.is_alive():
            self.flush(within_s)
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(within_s)
        if self.waiting:
            logger.error("audit log: %d pictures could not be written: %s", self.waiting, self._trouble)

    def _put(self, entry: dict[str, Any]) -> None:
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self.lost += 1
                return
            self._waiting.append(entry)
            self._changed.notify_all()

    def _write(self) -> None:
        reported_lost, reminded = 0, 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_ending)
                if self._is_ending and (not self._waiting or self._trouble):
                    return
                batch = list(self._waiting)
                self._waiting.clear()
                self._in_hand = len(batch)
                lost = self.lost - reported_lost
            notes = [{"event": "lost", "pictures": lost}] if lost else []
            try:
                self.feedback.note(*batch, *notes)
            except (WinspectError, OSError) as error:
                with self._changed:
                    self._waiting.extendleft(reversed(batch))
                    self._in_hand, self._trouble = 0, str(error)
                if not reminded or time.monotonic() - reminded > _REMINDER_S:
                    reminded = time.monotonic()
                    logger.warning("audit log: %s; the line goes on, pictures wait", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_ending, _RETRY_S)
                continue
            reported_lost += lost
            with self._changed:
                self._in_hand, self._trouble, reminded = 0, "", 0.0
                self._changed.notify_all()


def _run_of(identity: Identity) -> dict[str, Any]:
    document = {name: value for name, value in identity.entries().items() if name != "prompts"}
    if identity.prompts_sha256:
        document["prompts_sha256"] = identity.prompts_sha256
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
    return {"event": "run", "run": digest, "identity": document}
