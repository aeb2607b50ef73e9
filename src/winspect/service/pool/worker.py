"""The model process: pictures are decoded in threads when they arrive, the main thread scores batch after batch.

Asked over a pipe: ``(number, job, arguments)``; answers ``(number, done, value)``, where ``value`` is an exception
when not done. Jobs are done in order, but for ``check`` and ``decode``. The process ends when its pipe does.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import queue
import signal
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from winspect.errors import PictureError, WinspectError
from winspect.methods.result import Result
from winspect.outputs.maps import overlay_of, smaller_picture
from winspect.pictures.decoding import Demanding
from winspect.pictures.given import picture_given
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, heat_range, png_of, run_range
from winspect.pictures.pool import default_workers
from winspect.pictures.tiles import Prepared, prepare
from winspect.service.contract import Answer, Question, ServiceError
from winspect.service.pool.batcher import Ran
from winspect.service.settings import ModelSpec, ServiceSettings
from winspect.system.terminal import log_to_stderr

logger = logging.getLogger(__name__)

_PAINTERS = 2
_WARM_UP_SIDE = 256

_Prepared = tuple[Prepared, float]
"""A picture ready for the model, and since when."""


def load_model(spec: ModelSpec, device: str | None) -> Any:
    """The predictor that a specification describes, on one of its devices."""
    from winspect.inspector.starting import load

    place = {} if device is None else {"device": device}
    model = load({**spec.options, **place})
    model.method.check_alone("a service")
    return model


def decoders(spec: ModelSpec) -> int:
    """Threads that decode and resize: as the options say, or one per core, at most 8, as in `predict_many`."""
    return spec.options.get("workers") or default_workers()


def serve(pipe: Connection, settings: ServiceSettings, spec: ModelSpec, device: str | None, log_level: int) -> None:
    """Work until a stop is asked for, or until the pipe is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they reach all processes; the parent drains, then ends this
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
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._decoders = ThreadPoolExecutor(decoders(spec), thread_name_prefix="winspect-pictures")
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="winspect-demanding")
        self._painters = ThreadPoolExecutor(_PAINTERS, thread_name_prefix="winspect-overlays")
        self._passing: OrderedDict[str, None] = OrderedDict()  # scored, and nothing else: oldest first
        self._shown: dict[str, tuple[str, ...]] = {}  # class -> hashes of its references
        self.model: Any = None

    def run(self) -> None:
        """Do jobs until a stop is asked for."""
        threading.Thread(target=self._listen, name="winspect-listener", daemon=True).start()
        while (job := self._inbox.get()) is not None:
            job()
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
                    self._decoders.submit(self.do, number, job, arguments)
                elif job == "decode":  # takes long: no thread that others' pictures need
                    self._apart.submit(self.do, number, job, arguments)
                else:
                    if job == "score":
                        arguments = self._start(*arguments)
                    self._inbox.put(partial(self.do, number, job, arguments))
        except (EOFError, OSError):
            os._exit(0)  # nobody is left to answer to

    def do(self, number: int, job: str, arguments: Sequence[Any]) -> None:
        """Do a job and send what comes of it."""
        self._answer(number, lambda: getattr(self, f"_{job}")(*arguments))

    def _answer(self, number: int, make: Callable[[], Any]) -> None:
        try:
            value = make()
        except Exception as error:
            self._send(number, False, _public(error))
        else:
            if callable(value):  # what is left to do takes its time: the model goes on meanwhile
                self._painters.submit(self._answer, number, value)
            else:
                self._send(number, True, value)

    def _send(self, number: int, done: bool, value: Any) -> None:
        with self._sending:
            try:
                self._pipe.send((number, done, value))
            except OSError:
                os._exit(0)

    # -- jobs

    def _load(self) -> dict[str, Any]:
        module, _, name = self.spec.loader.partition(":")
        self.model = getattr(importlib.import_module(module), name)(self.spec, self.device)
        return self._described()

    def _described(self) -> dict[str, Any]:
        """See :meth:`winspect.service.backend.Backend.info`."""
        method = self.model.method
        ends = [end if math.isfinite(end) else None for end in method.score_range]
        return {**self.model.describe(), "score_range": ends, "zero_shot": method.zero_shot}

    def _show(self, category_name: str, hashes: tuple[str, ...], pictures: Sequence[tuple[str, bytes]]) -> None:
        self.model.reference([picture_given(picture) for picture in pictures], category_name)
        self._shown[category_name] = hashes

    def _forget(self, category_name: str) -> None:
        self.model.forget(category_name)
        self._shown.pop(category_name, None)

    def _check(self, questions: Sequence[Question]) -> None:
        """Raise what is wrong with a picture. What is kept must not be demanding: it is decoded at every start."""
        for question in questions:
            self._prepare(question, demanding="refuse")

    def _decode(self, question: Question) -> Prepared | None:
        """A demanding picture, ready for the model; None where nobody waits for it any more."""
        return self._prepare(question)[0] if time.monotonic() < question.deadline else None

    def _warm_up(self, classes: Sequence[str]) -> dict[str, Any]:
        """Build and run once what the first pictures of these classes need."""
        from winspect.inspector.starting import keep

        self._warmed_up = frozenset(classes)
        # The others are scored when they have good samples, which run the engine when they are shown.
        scored = [name for name in classes if self.model.method.zero_shot or name in self._shown]
        for category_name in scored:
            self.model.prepare_class(category_name)
            for maps in (True, False):
                self.model.prepare_engine(category_name, maps=maps)
            keep(self.model, category_name)
        for maps in (True, False) if scored else ():
            cut = self.model.cut_of(scored[0])
            width, height = cut.picture_wh or (_WARM_UP_SIDE, _WARM_UP_SIDE)
            noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            item = prepare(noise, self.model.preprocess, cut)
            self.model.predict_prepared([item], scored[0], maps=maps)
        return self._described()  # engines are made when first needed, and may have been replaced

    def _start(self, questions: Sequence[Question]) -> tuple[Sequence[Question], list[Future[_Prepared]], float]:
        """Arguments of :meth:`_score`: decoding begins when a batch arrives."""
        prepared = [self._decoders.submit(self._prepare, question, demanding="refuse") for question in questions]
        return questions, prepared, time.monotonic()

    def _score(
        self, questions: Sequence[Question], futures: Sequence[Future[_Prepared]], arrived: float
    ) -> Ran | Callable[[], Ran]:
        """Score a batch of one key; where overlays are to be painted, what is left to do."""
        category_name, zero_shot, maps = questions[0].key
        ready = [future.result() for future in futures if future.exception() is None]
        started = time.monotonic()
        references = () if zero_shot else self._shown.get(category_name, ())
        scored = iter(self._results([item for item, _ in ready], category_name, zero_shot, maps))
        results = [_public(error) if (error := future.exception()) else next(scored) for future in futures]
        if ready:
            self._note_use(category_name)
        seconds = time.monotonic() - started
        levels = self.model.good_levels(category_name) if maps and references else ()
        score_range = run_range(levels, limits=self.model.method.score_range)

        def answer(question: Question, result: Result | Exception) -> Answer | Exception:
            if isinstance(result, Exception):
                return result
            answer = Answer(
                question.rule.decide(result),
                references=references,
                score_range=question.score_range or score_range or _range_of(result),
                queue_seconds=max(0.0, started - question.asked),
                compute_seconds=seconds,
                batch_size=len(questions),
            )
            return _painted(answer) if question.overlay else answer

        def ran() -> Ran:
            answers = list(map(answer, questions, results))
            return Ran(answers, max((since for _, since in ready), default=arrived) - arrived, seconds)

        return ran if any(question.overlay for question in questions) else ran()

    def _note_use(self, category_name: str) -> None:
        """Drop the class not scored for longest, where there are too many; those with references stay, and ours."""
        if category_name in self._shown or category_name in self._warmed_up:
            self._passing.pop(category_name, None)
            return
        self._passing[category_name] = None
        self._passing.move_to_end(category_name)
        if len(self._passing) > self.settings.max_classes:
            self.model.drop_class(self._passing.popitem(last=False)[0])

    # -- scoring

    def _prepare(self, question: Question, demanding: Demanding = "elsewhere") -> _Prepared:
        if isinstance(question.picture, Prepared):
            return question.picture, time.monotonic()
        # One that is only looked at has no class.
        cut = self.model.cut_of(question.category_name) if question.category_name else self.model.cut
        try:
            item = prepare(
                question.picture,
                self.model.preprocess,
                replace(cut, max_pixels=self.settings.max_pixels, measure=self.settings.drift is not None),
                keep_rgb=question.overlay,
                demanding=demanding,
            )
        except PictureError as error:
            raise type(error)(question.name, error.reason) from error
        rgb = None if item.rgb is None else smaller_picture(item.rgb, self.settings.overlay_side)
        return replace(item, name=question.name, rgb=rgb), time.monotonic()

    def _results(
        self, items: Sequence[Prepared], category_name: str, zero_shot: bool, maps: bool
    ) -> list[Result | Exception]:
        """Results in order. Where a batch fails its pictures are scored one by one, so that one cannot fail others."""
        if not items:
            return []
        try:
            results = self.model.predict_prepared(items, category_name, maps=maps, zero_shot=zero_shot)
            return [result.error or result for result in results]
        except WinspectError as error:
            return [error] * len(items)  # of the class, or of the machine
        except Exception as error:
            if len(items) == 1:
                return [_public(error)]
            return [result for item in items for result in self._results([item], category_name, zero_shot, maps)]


def _range_of(result: Result) -> ScoreRange:
    """The colours of a picture by itself."""
    return UNIT_RANGE if result.tile_maps is None else heat_range(result.tile_maps)


def _painted(answer: Answer) -> Answer | Exception:
    """An answer with its overlay, in place of its picture."""
    try:
        png = png_of(overlay_of(answer.judgement, answer.score_range))
    except Exception as error:
        return _public(error)
    judgement = replace(answer.judgement, result=replace(answer.result, picture_rgb=None))
    return replace(answer, judgement=judgement, overlay_png=png)


def _public(error: BaseException) -> Exception:
    """An error that callers may see. What nobody raised on purpose goes to the log, and is named there only."""
    if isinstance(error, WinspectError):
        return error
    logger.error("a model process failed: %s", error, exc_info=error)
    return ServiceError("the model failed on this; the service's log says why")
