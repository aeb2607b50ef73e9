"""The thread that takes rows from the spool to one channel, and waits where the other side is away."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone

from winspect.delivery.message import AwayError, Channel, Message
from winspect.delivery.settings import DeliverySettings
from winspect.delivery.spool import Spool
from winspect.system.files import append_line
from winspect.system.retrying import Retries

logger = logging.getLogger(__name__)

RETRIES = Retries(times=2**31, backoff_s=0.5, max_wait_s=60.0)
"""Pauses before rows are sent again: for ever."""
_MOST_DOUBLED = 20
IDLE_S = 5.0
"""How often a pump without rows looks round."""
_REMINDER_S = 60.0


@dataclass(frozen=True)
class DeliveryStatus:
    """Where a delivery stands.

    Attributes:
        waiting: rows that have not been delivered. delivered, refused: since the start. dropped: since the spool was
            made: rows that had to make room.
        trouble: why nothing is delivered now; empty where all is well.
        trouble_s: for how long.
    """

    name: str
    kind: str
    waiting: int
    delivered: int
    refused: int
    dropped: int
    trouble: str
    trouble_s: float

    def __str__(self) -> str:
        if not self.trouble:
            return ""
        return f"{self.name}: away for {self.trouble_s:.0f} s, {self.waiting} rows wait: {self.trouble}"


class Pump(threading.Thread):
    """Delivers the rows of a spool over one channel, in their order, until it is asked to end.

    Args:
        settings: of the delivery. channel: what sends.
        spool: where rows wait. Refused rows go to ``dead-NAME.jsonl`` beside it.
        look_round: called when there is nothing to do, and before giving up for a pause.
        retries: pauses between attempts.
    """

    def __init__(
        self,
        settings: DeliverySettings,
        channel: Channel,
        spool: Spool,
        *,
        look_round: Callable[[], None] = lambda: None,
        retries: Retries = RETRIES,
    ) -> None:
        super().__init__(name=f"winspect-delivery-{settings.name}", daemon=True)
        self.settings, self.channel, self.spool = settings, channel, spool
        self.dead_file = spool.path.with_name(f"dead-{settings.name}.jsonl")
        self.news, self._ending, self._stop_now = threading.Event(), threading.Event(), threading.Event()
        self._look_round, self._retries = look_round, retries
        self._delivered, self._tried, _, channel.state = spool.standing(settings.name)
        self._repeats_to, self._saved = self._tried, self._delivered
        self._count = self._refused = self._attempts = 0
        self._trouble, self._since, self._reminded = "", 0.0, 0.0

    def status(self) -> DeliveryStatus:
        """Where the delivery stands."""
        waiting = dropped = 0
        with suppress(sqlite3.Error):
            delivered, _, dropped, _ = self.spool.standing(self.settings.name)
            waiting = self.spool.last() - max(delivered, self._delivered)
        trouble, since = self._trouble, self._since
        seconds = time.monotonic() - since if trouble else 0.0
        counts = (waiting, self._count, self._refused, dropped)
        return DeliveryStatus(self.settings.name, self.settings.kind, *counts, trouble, seconds)

    def end_soon(self) -> None:
        """End when nothing waits, or nothing can be delivered."""
        self._ending.set()
        self.news.set()

    def end(self, *, wait_s: float) -> int:
        """Deliver what waits, for at most so long; then end. Returns how many rows are left."""
        self.end_soon()
        self.join(wait_s)
        self._stop_now.set()
        self.join(wait_s)
        return self.status().waiting

    def run(self) -> None:
        """Deliver."""
        try:
            while not self._stop_now.is_set():
                self.news.clear()
                is_ending = self._ending.is_set()
                pause_s = self._deliver_some()
                if is_ending and pause_s is not None:
                    return
                if pause_s is not None:
                    self._look_round()
                    self._wait(pause_s, for_news=not self._trouble)
        finally:
            with suppress(Exception):
                self.channel.close()

    def _wait(self, seconds: float, *, for_news: bool) -> None:
        end = time.monotonic() + seconds
        while not self._ending.is_set() and (left := end - time.monotonic()) > 0:
            if (self.news if for_news else self._ending).wait(left):
                return

    def _deliver_some(self) -> float | None:
        """Deliver the next rows; returns seconds to wait before the following ones, None for no wait."""
        try:
            messages = self.spool.behind(self._delivered, self.channel.at_once, repeats_to=self._repeats_to)
            if messages:
                if messages[-1].seq > self._tried:
                    self._tried = self.spool.note_tried(self.settings.name, messages[-1].seq)
                self._send(messages)
            else:
                self._save()
                self.channel.connect(self._stop_now)
        except AwayError as error:
            return self._away(str(error), error.retry_after_s)
        except (sqlite3.Error, OSError) as error:
            return self._away(f"the spool or the file of refused rows cannot be written ({error}); free some space")
        except Exception as error:  # a library's: the thread has to live on
            logger.debug("%s", self.settings.name, exc_info=True)
            return self._away(f"{type(error).__name__}: {error}")
        if self._trouble:
            logger.warning("%s: well again after %.0f s", self.settings.name, time.monotonic() - self._since)
        self._trouble, self._attempts = "", 0
        return None if messages else IDLE_S

    def _send(self, messages: list[Message]) -> None:
        """Send those that are asked for; how far it came is noted, whatever happens."""
        verdicts = self.settings.verdicts
        chosen = [message for message in messages if not verdicts or message.verdict in verdicts]
        is_whole, was_sent = False, True
        try:
            outcomes = self.channel.send(chosen, self._stop_now) if chosen else iter(())
            for message, refusal in zip(chosen, outcomes, strict=True):
                if refusal is not None:
                    self._bury(message, refusal)
                self._count += refusal is None
                self._delivered = message.seq
                self._attempts = 0
            is_whole = True
        except AwayError as error:
            was_sent = error.was_sent
            raise
        finally:
            if was_sent:  # all of them may have arrived
                self._repeats_to = max(self._repeats_to, messages[-1].seq)
            if is_whole:
                self._delivered = messages[-1].seq
            self._save()

    def _save(self) -> None:
        if self._saved != self._delivered:
            self.spool.note_delivered(self.settings.name, self._delivered, self.channel.state)
            self._saved = self._delivered

    def _bury(self, message: Message, refusal: str) -> None:
        """Keep a refused row in a file, and say so."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = {"time": now, "delivery": self.settings.name, "reason": refusal, "row": dict(message.row)}
        append_line(self.dead_file, json.dumps(entry).encode("ascii") + b"\n")
        self._refused += 1
        logger.warning("%s: refused (%s); row %s is in %s", self.settings.name, refusal, message.id, self.dead_file)

    def _away(self, reason: str, retry_after_s: float | None = None) -> float:
        now = time.monotonic()
        if not self._trouble:
            self._since = self._reminded = now
        if not self._trouble or now - self._reminded >= _REMINDER_S:
            self._reminded = now
            logger.warning("%s: away: %s; rows wait in %s", self.settings.name, reason, self.spool.path)
        self._trouble = reason
        self._attempts += 1
        asked_s = None if retry_after_s is None else min(retry_after_s, self._retries.max_wait_s)
        wait_s = self._retries.wait_s(min(self._attempts, _MOST_DOUBLED), asked_s)
        return self._retries.max_wait_s if wait_s is None else wait_s
