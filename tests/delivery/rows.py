"""Rows, and channels that are played."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from winspect.delivery.message import AwayError, Message


def row_of(number: int, **more: Any) -> dict[str, Any]:
    """A row as a watch makes it."""
    return {
        **{"path": f"{number}.png", "class": "nut", "anomaly_score": number / 1000, "verdict": "normal"},
        **{"threshold": 0.5, "boxes": None, "map": None, "error": None, "warning": None},
        **{"time": "2026-11-22T12:00:00.250+00:00", "id": f"{number:032x}", **more},
    }


class Played:
    """A channel that does what its script says of each message in turn, and then delivers.

    A script's entry is None for delivered, a text for refused, an exception to raise.
    """

    def __init__(self, *script: Any, at_once: int = 3) -> None:
        self.script, self.at_once = list(script), at_once
        self.state: dict[str, Any] = {}
        self.tried: list[tuple[str, bool]] = []
        self.delivered: list[Message] = []
        self.is_closed = False
        self.away = ""

    def connect(self, stop: threading.Event) -> None:
        if self.away:
            raise AwayError(self.away, was_sent=False)

    def send(self, messages: Sequence[Message], stop: threading.Event) -> Iterator[str | None]:
        self.connect(stop)
        for message in messages:
            self.tried.append((message.id, message.is_repeat))
            outcome = self.script.pop(0) if self.script else None
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is None:
                self.delivered.append(message)
                self.state = {"count": self.state.get("count", 0) + 1}
            yield outcome

    def close(self) -> None:
        self.is_closed = True

    @property
    def ids(self) -> list[int]:
        return [int(message.id, 16) for message in self.delivered]
