"""A bounded thread pool that decodes, cuts and resizes the pictures of a stream, in order."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from winspect.errors import PictureError, SettingsError, SourceError
from winspect.pictures.decoding import Source
from winspect.pictures.given import source_name
from winspect.pictures.tiles import WHOLE, Cut, Prepared, Preprocess, prepare
from winspect.system.machine import usable_cores

LIVE_S = 0.01
"""A source that takes longer for a picture makes wait: a camera, a queue. Files are named faster by far."""


class Pace:
    """Pace of a stream's source, updated by :func:`prepare_many` at each picture that it hands out.

    Attributes:
        may_be_live: the source does not know its length, as a camera does not.
        makes_wait: nothing else is here, and the source's next picture may take a while.
    """

    def __init__(self, sources: Iterable[Any]) -> None:
        self.may_be_live, self.makes_wait = not isinstance(sources, Sized), False


def prepare_many(
    sources: Iterable[Source],
    preprocess: Preprocess,
    cut: Cut = WHOLE,
    *,
    workers: int | None = None,
    ahead: int | None = None,
    keep_rgb: bool = False,
    pace: Pace | None = None,
    angles: Callable[[int], Sequence[float]] | None = None,
) -> Iterator[Prepared | PictureError]:
    """``prepare`` for a stream of pictures, in worker threads, in the order of ``sources``.

    A picture that cannot be used yields its ``PictureError`` as a *value* in its place. Closing the iterator drops
    what waits and returns as soon as the pictures in work are done; so does an exception in the consumer, once the
    iterator is freed (hold it in ``contextlib.closing`` to be sure when).

    Args:
        sources: any iterable; it is read ``ahead`` of what was handed out, never further.
        workers: threads (Pillow decodes and resizes outside Python's lock); default: one per processor, up to 8.
        ahead: most pictures held at once, the one handed out included; default: two per worker. Of a source that
            makes wait, such as a camera, what is here is handed out before the next picture is asked for.
        pace: noted here, for whoever collects pictures.
        angles: gives those of :func:`prepare` for each picture, counted from 0.
    """
    if isinstance(sources, (str, bytes, os.PathLike, np.ndarray, Image.Image, io.BytesIO)):
        raise SourceError(f"got one picture ({source_name(sources)}), need several: put it into a list")
    workers = default_workers() if workers is None else workers
    ahead = 2 * workers if ahead is None else ahead
    if workers < 1 or ahead < 1:
        raise SettingsError(f"got workers={workers}, ahead={ahead}, need 1 or more of each")

    def job(number: int, source: Source) -> Prepared | PictureError:
        try:
            return prepare(source, preprocess, cut, keep_rgb=keep_rgb, angles=angles(number) if angles else ())
        except PictureError as error:
            return error

    return _in_order(job, sources, workers, ahead, pace or Pace(sources))


def _in_order(
    job: Callable[[int, Source], Prepared | PictureError],
    sources: Iterable[Source],
    workers: int,
    ahead: int,
    pace: Pace,
) -> Iterator[Prepared | PictureError]:
    waiting: deque[Future[Prepared | PictureError]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="winspect-pictures")
    feed = enumerate(sources)
    is_live = is_unknown = pace.may_be_live  # until it has shown its pace

    def take_next() -> bool:
        """Begin on the source's next picture; False at its end."""
        nonlocal is_live, is_unknown
        began = time.monotonic()
        for number, source in feed:
            is_live, is_unknown = pace.may_be_live and (is_unknown or time.monotonic() - began > LIVE_S), False
            waiting.append(pool.submit(job, number, source))
            return True
        return False

    try:
        has_more = True
        while True:
            while has_more and len(waiting) < ahead and not (waiting and is_live):
                has_more = take_next()
            if not waiting:
                return
            pace.makes_wait = is_live and len(waiting) == 1
            yield waiting.popleft().result()
    finally:  # also on Ctrl-C and when the caller stops early
        pool.shutdown(wait=True, cancel_futures=True)


def default_workers() -> int:
    """Number of threads that decode and resize: one per core this process may use, at most 8."""
    return min(8, usable_cores())
