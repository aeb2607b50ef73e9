"""When to ask again, and when to give up. Numbers and headers only; nothing waits here."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from winspect.errors import SettingsError

BUSY = (429, 503)
"""Statuses after which nothing was done: overload; loading, restarting or ending."""


@dataclass(frozen=True)
class Retries:
    """How often a request is made again, and how long it waits.

    The service's Retry-After is honoured: a request is never made sooner than it says, and not at all where it says
    more than ``max_wait_s``. Every wait is lengthened at random, so that many clients do not come back together.

    Attributes:
        times: after the first try; 0 for none.
        backoff_s: before the first retry where there is no Retry-After; doubled each time.
        max_wait_s: of one wait.
        jitter: the largest random share that is added to a wait.

    Raises:
        SettingsError: a value out of its range.
    """

    times: int = 4
    backoff_s: float = 0.5
    max_wait_s: float = 30.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        numbers = (self.times, self.backoff_s, self.max_wait_s, self.jitter)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise SettingsError(f"got {self}, need numbers from 0")

    def wait_s(
        self, tried: int, retry_after_s: float | None = None, *, chance: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait before the next try; None to give up.

        Args:
            tried: requests made so far, 1 or more.
            retry_after_s: what the service asks for.
            chance: a number from 0 to 1.

        >>> [Retries().wait_s(tried, chance=lambda: 0.0) for tried in (1, 2, 3, 4, 5)]
        [0.5, 1.0, 2.0, 4.0, None]
        >>> Retries().wait_s(1, 2.0, chance=lambda: 1.0), Retries().wait_s(1, 60.0)
        (2.5, None)
        """
        asked = 0.0 if retry_after_s is None else retry_after_s
        if tried > self.times or asked > self.max_wait_s:
            return None
        backoff = min(self.backoff_s * 2.0 ** (tried - 1), self.max_wait_s)
        return (asked if retry_after_s is not None else backoff) * (1 + self.jitter * chance())


def retry_after(headers: Mapping[str, str], *, now: Callable[[], float] = time.time) -> float | None:
    """Seconds of a Retry-After header, in seconds or as a date (RFC 9110, 10.2.3); None where there is none to be read.

    >>> retry_after({"retry-after": "3"}), retry_after({"retry-after": "soon"}), retry_after({})
    (3.0, None, None)
    >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=lambda: 50.0)
    10.0
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
    except (TypeError, ValueError, OverflowError):
        return None
