"""The model process: pictures are decoded in threads when they arrive, the main thread judges batch after batch.

Asked over a pipe: ``(number, job, arguments)``; answers ``(number, done, value)``, where ``value`` is an exception
when not done. Jobs are done in order, but for ``check``. The process ends when its pipe does, whatever it is doing.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import signal
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.errors import PictureError, WinspectError
from winspect.pictures.decoding import Demanding
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, run_range
from winspect.pictures.pool import default_workers
from winspect.pictures.tiles import Prepared, prepare
from winspect.service.contract import ServiceError
from winspect.service.pool.overlay import Look, overlay_png, shrink_picture
from winspect.service.settings import ModelSpec, ServiceSettings
from winspect.system.terminal import log_to_stderr

if TYPE_CHECKING:
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)

_PAINTERS = 2
_WARM_UP_SIDE = 256


@dataclass(frozen=True)
class Question:
    """A picture to judge, or one decoded before. ``number`` comes back with its answer; ``name`` is for results."""

    number: int
    name: str
    picture: bytes | np.ndarray | Prepared
    overlay: Look | None


@dataclass(frozen=True)
class BatchAnswer:
    """What became of a batch.

    Attributes:
        answers: number -> result and overlay, or the exception that is this picture's own.
        references: which set of references it was judged with, as numbered by ``show``; 0 for none.
        shots: how many they are.
        prepare_seconds: from arrival to prepared; ``compute_seconds``: of the model.
        score_range: of the colours of heat maps, by the class' good samples.
        started: when the model started, on :func:`time.monotonic`'s clock, which processes share.
    """

    answers: dict[int, tuple[Result, bytes | None] | Exception]
    references: int
    shots: int
    prepare_seconds: float
    compute_seconds: float
    started: float
    score_range: ScoreRange = UNIT_RANGE


def load_model(spec: ModelSpec, device: str | None) -> Any:
    """The predictor that a specification describes, on one of its devices."""
    from winspect.inspector.winclip import WinCLIP

    place = {} if device is None else {"device": device}
    return WinCLIP(**{**spec.options, **place})


def decoders(spec: ModelSpec) -> int:
    """Threads that decode and resize: as the options say, or one per core, at most 8, as in `predict_many`."""
    return spec.options.get("workers") or default_workers()


def serve(pipe: Connection, settings: ServiceSettings, spec: ModelSpec, device: str | None, log_level: int) -> None:
    """Work until told to stop, or until the pipe is closed."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # they reach all processes of a service; the parent drains, then ends this
    os.dup2(2, 1)  # stdout belongs to the parent, whatever a library prints
    log_to_stderr(log_level)
    # Python keeps a note of every warning it has shown once, and these name pictures: the notes would pile up.
    warnings.simplefilter("always")
    Worker(pipe, settings, spec, device).run()


class Worker:
    """See the module. ``run`` belongs to the main thread."""

    def __init__(self, pipe: Connection, settings: ServiceSettings, spec: ModelSpec, device: str | None) -> None:
        self._pipe, self.settings, self.spec, self.device = pipe, settings, spec, device
        self._sending = threading.Lock()
        self._warmed_up: frozenset[str] = frozenset()  # those of the settings or the default, and stored ones
        self._inbox: queue.SimpleQueue[tuple[int, str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(decoders(spec), thread_name_prefix="winspect-pictures")
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="winspect-demanding")
        self._painters = ThreadPoolExecutor(_PAINTERS, thread_name_prefix="winspect-overlays")
        self._passing: OrderedDict[str, None] = OrderedDict()  # judged, and nothing else: oldest first
        self._shown: dict[str, tuple[int, int]] = {}  # class -> number of its set of references, how many they are
        self.model: Any = None

    def run(self) -> None:
        """Answer jobs until told to stop."""
        threading.Thread(target=self._listen, name="winspect-listener", daemon=True).start()
        while (message := self._inbox.get()) is not None:
            self._do(*message)
        self._painters.shutdown(wait=True)

    def _listen(self) -> None:
        try:
            while True:
                number, job, arguments = self._pipe.recv()
                if job == "stop":
                    self._inbox.put(None)
                elif job == "ping":
                    self._send(number, True, None)
                elif job == "check":
                    self._pool.submit(self._do, number, job, arguments)
                elif job == "decode":  # takes long: no thread that others' pictures need
                    self._apart.submit(self._do, number, job, arguments)
                else:
                    if job == "judge":
                        *options, questions = arguments
                        arguments = (*options, time.monotonic(), [(one, self._start(one)) for one in questions])
                    self._inbox.put((number, job, arguments))
        except (EOFError, OSError):
            os._exit(0)  # nobody is left to answer to

    def _start(self, question: Question) -> Future[tuple[Prepared | Exception, float]]:
        return self._pool.submit(self._prepare, question, demanding="refuse")

    def _do(self, number: int, job: str, arguments: tuple[Any, ...]) -> None:
        try:
            value = getattr(self, f"_job_{job}")(*arguments)
        except Exception as error:
            self._send(number, False, _own(error))
        else:
            if job != "judge":
                self._send(number, True, value)
            elif any(question.overlay for question in value[0]):
                self._painters.submit(self._finish, number, *value)  # takes its time: the model goes on meanwhile
            else:
                self._finish(number, *value)

    def _send(self, number: int, done: bool, value: Any) -> None:
        with self._sending:
            try:
                self._pipe.send((number, done, value))
            except OSError:
                os._exit(0)

    # -- jobs

    def _job_load(self) -> dict[str, Any]:
        module, _, name = self.spec.loader.partition(":")
        self.model = getattr(importlib.import_module(module), name)(self.spec, self.device)
        return self.model.describe()

    def _job_show(self, category_name: str, version: int, pictures: Sequence[bytes]) -> None:
        self.model.reference(pictures, category_name)
        self._shown[category_name] = (version, len(pictures))

    def _job_forget(self, category_name: str) -> None:
        self.model.forget(category_name)
        self._shown.pop(category_name, None)

    def _job_check(self, pictures: Sequence[tuple[str, bytes]]) -> list[Exception | None]:
        """What is wrong with each picture. What is kept must not be demanding: it is decoded at every start."""
        questions = [Question(0, name, content, None) for name, content in pictures]
        checked = [self._prepare(question, demanding="refuse")[0] for question in questions]
        return [item if isinstance(item, Exception) else None for item in checked]

    def _job_decode(self, name: str, picture: bytes, overlay: Look | None) -> Prepared:
        """A demanding picture, ready for :class:`Question`."""
        item, _ = self._prepare(Question(0, name, picture, overlay))
        if isinstance(item, Exception):
            raise item
        return item

    def _job_warm_up(self, classes: Sequence[str]) -> dict[str, Any]:
        """Build and run once what the first pictures of these classes need."""
        noise = np.random.default_rng(0).integers(0, 256, (_WARM_UP_SIDE, _WARM_UP_SIDE, 3), np.uint8)
        self._warmed_up = frozenset(classes)
        for category_name in classes:
            self.model.prepare_class(category_name)
            for maps in (True, False):
                self.model.prepare_engine(category_name, maps=maps)
        for maps in (True, False):
            item = prepare(noise, self.model.preprocess, self.model.cut)
            self.model.predict_prepared([item], classes[0], maps=maps)
        return self.model.describe()  # engines are made when first needed, and may have been replaced

    def _job_judge(
        self,
        category_name: str,
        zero_shot: bool,
        maps: bool,
        arrived: float,
        batch: Sequence[tuple[Question, Future[tuple[Prepared | Exception, float]]]],
    ) -> tuple[list[Question], list[Result | Exception], BatchAnswer]:
        prepared = [future.result() for _, future in batch]
        started = time.monotonic()
        version, shots = (0, 0) if zero_shot else self._shown.get(category_name, (0, 0))
        usable = [item for item, _ in prepared if not isinstance(item, Exception)]
        judged = iter(self._judge(usable, category_name, zero_shot, maps))
        results = [item if isinstance(item, Exception) else next(judged) for item, _ in prepared]
        if usable:
            self._note_use(category_name)
        answer = BatchAnswer(
            answers={},
            references=version,
            shots=shots,
            prepare_seconds=max(at for _, at in prepared) - arrived,
            compute_seconds=time.monotonic() - started,
            started=started,
            score_range=run_range(self.model.good_levels(category_name)) if maps and version else UNIT_RANGE,
        )
        return [question for question, _ in batch], results, answer

    def _note_use(self, category_name: str) -> None:
        """Let the class not judged for longest go, where there are too many; those with references stay, and ours."""
        if category_name in self._shown or category_name in self._warmed_up:
            self._passing.pop(category_name, None)
            return
        self._passing[category_name] = None
        self._passing.move_to_end(category_name)
        if len(self._passing) > self.settings.max_classes:
            self.model.drop_class(self._passing.popitem(last=False)[0])

    # -- judging

    def _prepare(self, question: Question, demanding: Demanding = "elsewhere") -> tuple[Prepared | Exception, float]:
        """A picture ready for the model, or what is wrong with it; and when it was done."""
        item: Prepared | Exception
        if isinstance(question.picture, Prepared):
            return question.picture, time.monotonic()
        try:
            item = prepare(
                question.picture,
                self.model.preprocess,
                replace(self.model.cut, max_pixels=self.settings.max_pixels),
                keep_rgb=bool(question.overlay),
                demanding=demanding,
            )
            rgb = None if item.rgb is None else shrink_picture(item.rgb, self.settings.overlay_side)
            item = replace(item, name=question.name, rgb=rgb)
        except PictureError as error:
            item = type(error)(question.name, error.reason)
        except Exception as error:
            item = _own(error)
        return item, time.monotonic()

    def _judge(
        self, items: Sequence[Prepared], category_name: str, zero_shot: bool, maps: bool
    ) -> list[Result | Exception]:
        """Results in order. Where a batch fails its pictures are judged one by one, so that one cannot fail others."""
        if not items:
            return []
        try:
            results = self.model.predict_prepared(items, category_name, maps=maps, zero_shot=zero_shot)
            return [result.error or result for result in results]
        except WinspectError as error:
            return [error] * len(items)  # of the class, or of the machine
        except Exception as error:
            if len(items) == 1:
                return [_own(error)]
            return [one for item in items for one in self._judge([item], category_name, zero_shot, maps)]

    def _finish(
        self, number: int, questions: Sequence[Question], results: Sequence[Result | Exception], answer: BatchAnswer
    ) -> None:
        for question, result in zip(questions, results, strict=True):
            look = question.overlay
            painted = result if isinstance(result, Exception) else _painted(result, look, answer.score_range)
            answer.answers[question.number] = painted
        self._send(number, True, answer)


def _painted(result: Result, look: Look | None, own: ScoreRange) -> tuple[Result, bytes | None] | Exception:
    if result.picture_rgb is None or look is None:
        return result, None
    score_range = look.score_range or own
    try:
        return replace(result, picture_rgb=None), overlay_png(result, result.picture_rgb, score_range, look)
    except Exception as error:
        return _own(error)


def _own(error: Exception) -> Exception:
    """An error that callers may see. What nobody raised on purpose goes to the log, and is named there only."""
    if isinstance(error, WinspectError):
        return error
    logger.error("a model process failed: %s", error, exc_info=error)
    return ServiceError("the model failed on this; the service's log says why")
