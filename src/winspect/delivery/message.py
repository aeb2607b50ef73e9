"""A row as it is sent, and what a channel does with it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class AwayError(Exception):
    """The other side cannot be reached, or does not take rows now: they are sent again. The text says why.

    Attributes:
        retry_after_s: what the other side asks for; None where it does not.
        was_sent: messages may have arrived; False where there was no connection.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None, was_sent: bool = True) -> None:
        super().__init__(reason)
        self.retry_after_s, self.was_sent = retry_after_s, was_sent


@dataclass(frozen=True)
class Message:
    """A row in the spool.

    Attributes:
        seq: its number there, from 1; later rows have higher ones.
        row: with its ``id``.
        is_repeat: it may have been sent before.
    """

    seq: int
    row: Mapping[str, Any] = field(repr=False)
    is_repeat: bool = False

    @property
    def id(self) -> str:
        """The id of the row, by which receivers know it again."""
        return str(self.row["id"])

    @property
    def body(self) -> bytes:
        """JSON in ASCII: the row, and ``repeat``."""
        return json.dumps({**self.row, "repeat": self.is_repeat}).encode("ascii")

    @property
    def verdict(self) -> str:
        """One of :data:`winspect.delivery.settings.VERDICTS`."""
        return verdict_of(self.row)


class Channel(Protocol):
    """What takes messages to the other side. Called from a single thread.

    Attributes:
        at_once: messages that are handed over together at most.
        state: of the channel, as JSON has it; kept in the spool with each row that was delivered.
    """

    at_once: int
    state: dict[str, Any]

    def connect(self, stop: threading.Event) -> None:
        """Connect, where that is not done already.

        Raises:
            AwayError: it cannot be done now.
        """

    def send(self, messages: Sequence[Message], stop: threading.Event) -> Iterator[str | None]:
        """Send messages in their order; for each, once that is settled: None for delivered, or why it was refused.

        Args:
            stop: set when the process ends: then what is not settled at once is given up with an AwayError.

        Raises:
            AwayError: the messages behind the last one that was settled are to be sent again.
        """

    def close(self) -> None:
        """Hang up."""


def with_id(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with an ``id``; where it has none, a digest of its contents, the same each time."""
    if isinstance(row.get("id"), str) and row["id"]:
        return dict(row)
    return {**row, "id": hashlib.sha256(json.dumps(row, sort_keys=True).encode("ascii")).hexdigest()[:32]}


def verdict_of(row: Mapping[str, Any]) -> str:
    """The verdict of a row, ``failed`` where it has an error, ``unjudged`` where nothing decided.

    >>> verdict_of({"error": None, "verdict": "review"}), verdict_of({"error": {"type": "PictureError"}})
    ('review', 'failed')
    """
    return "failed" if row.get("error") is not None else row.get("verdict") or "unjudged"


def source_of(row: Mapping[str, Any]) -> str:
    """Where a row comes from: its source, else its class."""
    return str(row.get("source") or row.get("class") or "object")
