"""Backend of the HTTP layer: questions in, answers out; references and calibrations that outlive a restart.

All methods belong to one event loop. Class names are taken as callers give them (see :func:`class_key`); each method
that takes one raises ClassNameError for what is no class, and UnknownClass for a class that is not served.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from winspect.calibration import Calibration, DecisionRule, Rules, Verdicts
from winspect.calibration.areas import area_names
from winspect.calibration.judgement import ProductRevision, chosen_regions, needs_defects
from winspect.calibration.verdicts import check_above
from winspect.delivery.deliverer import Deliverer
from winspect.errors import DemandingPictureError, PictureError, ReferencesError, SettingsError
from winspect.pictures.decoding import read_rgb
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.service.answering import ServiceFeedback
from winspect.service.contract import (
    Answer,
    CalibrationState,
    ClassInfo,
    NotReady,
    Question,
    Status,
    StoredPicture,
    UnknownClass,
    class_key,
    clean_name,
)
from winspect.service.drifting import ServiceDrift
from winspect.service.pool.batcher import Batcher
from winspect.service.pool.fleet import Fleet, whole
from winspect.service.settings import MEGABYTE, ModelSpec, ServiceSettings
from winspect.service.store.calibrating import Calibrations
from winspect.service.store.store import Kind, Picture, Store

_MOST_NAMED = 10


@dataclass(frozen=True)
class _Served:
    """A product: what its class is scored with, as long as answers are the product's."""

    revision: ProductRevision
    references: frozenset[str]
    calibration: Calibration | None


class Backend:
    """The queue, the model processes and the store.

    Args:
        settings: the limits.
        spec: what scores.

    Raises:
        SettingsError: the store is damaged, or of a newer release.
        OutputError: the folder of the store cannot be written.
    """

    def __init__(self, settings: ServiceSettings, spec: ModelSpec) -> None:
        self.settings, self.spec = settings, spec
        self._products: dict[str, _Served] = {}
        self._verdicts, self._rules = settings.verdicts or Verdicts(), settings.rules or Rules()
        self._rules.check(self._verdicts.mm_per_pixel, area_names(spec.options.get("roi")))
        self._served = None if settings.classes is None else {class_key(name) for name in settings.classes}
        self.store = Store(
            settings.data, max_bytes=int(settings.max_store_mb * MEGABYTE), max_classes=settings.max_classes
        )
        self.batcher = Batcher(max_queue=settings.max_queue, max_batch=settings.max_batch)
        self.drift = None if settings.drift is None else ServiceDrift(settings, lambda: self.fleet.described)
        self.fleet = Fleet(settings, spec, self.store, self.batcher, self._check_calibrations)
        self.feedback = None if settings.feedback is None else ServiceFeedback(self, settings.feedback)
        self.deliverer = Deliverer(settings.deliveries, settings.data) if settings.deliveries else None
        self._calibrations = Calibrations(
            self.store,
            self._score_good,
            self.fleet,
            refuse_stale=settings.refuse_stale,
            retest=None if self.feedback is None else self.feedback.retest,
        )

    # -- life

    def seed(
        self,
        category_name: str,
        references: Sequence[Picture] = (),
        calibration: Calibration | None = None,
        product: ProductRevision | None = None,
    ) -> None:
        """Put references (in place of those stored) and a calibration into the store, before :meth:`start`.

        Args:
            product: whose they are: what is stored and is not the product's makes room.

        Raises:
            ReferencesError: a picture cannot be used.
            SettingsError: the calibration is for another class.
        """
        key = self._key(category_name)
        for name, content in references:
            try:
                read_rgb(content, max_pixels=self.settings.max_pixels)
            except PictureError as error:
                raise ReferencesError(f"cannot use a reference picture: {name}: {error.reason}") from error
        if calibration is not None and class_key(calibration.class_name) != key:
            raise SettingsError(f"the calibration is for {calibration.class_name!r}, not for {key!r}")
        if calibration is not None:
            check_above(self._verdicts.review, calibration.max_false_alarms)
        if references or product is not None:
            self.store.replace(key, "reference", [(clean_name(name), content) for name, content in references])
        if calibration is not None:
            self._calibrations.give(key, calibration)
        if product is not None:
            hashes = frozenset(hashlib.sha256(content).hexdigest() for _, content in references)
            self._products[key] = _Served(product, hashes, calibration)
            if calibration is None:
                self.store.set_document(key, None)

    async def start(self) -> None:
        """Start the processes; returns at once. The state is ``ready`` after load and warm-up."""
        if self.deliverer is not None:
            await asyncio.to_thread(self.deliverer.start)
        self.fleet.start()

    async def wait_ready(self) -> None:
        """Return when the service is ready for the first time.

        Raises:
            SettingsError: a calibration does not fit, named at the start; or stored, where the settings say so.
            WinspectError: the model cannot be loaded: the error it ended with.
        """
        await self.fleet.wait_ready()

    async def drain(self, seconds: float) -> None:
        """Take no new work, answer what is queued for at most so long, end the processes, close the store."""
        self.fleet.draining = True
        await self._calibrations.stop()
        await self.batcher.drain(seconds)
        await self.fleet.stop()
        if self.feedback is not None:
            await asyncio.to_thread(self.feedback.close)
        if self.drift is not None:
            await asyncio.to_thread(self.drift.close)
        if self.deliverer is not None:
            await asyncio.to_thread(self.deliverer.close)
        self.store.close()

    async def deliver(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hand rows over to the deliveries; they are on the disk afterwards, where there is space."""
        if self.deliverer is not None:
            for row in rows:
                await asyncio.to_thread(self.deliverer.take, row)

    async def _check_calibrations(self, classes: Sequence[str]) -> None:
        await self._calibrations.check_all([key for key in classes if self._served is None or key in self._served])

    @property
    def status(self) -> Status:
        """State, queue and restarts."""
        return Status(self.fleet.state, self.batcher.waiting, self.batcher.in_flight, self.fleet.restarts)

    # -- scoring

    async def predict(self, question: Question) -> Answer:
        """Answer a question. Cancelling the call takes the picture out of the queue.

        Raises:
            Overloaded: at once, when the queue is full or the deadline cannot be kept.
            DeadlineExceeded: the deadline passed, in the queue or under way.
            NotReady: loading, restarting or draining, or the process died under the picture.
            PictureError, SettingsError: the caller's mistake.
        """
        key = self._key(question.category_name)
        self.fleet.check_ready()
        references = () if question.zero_shot else self.fleet.references_of(key)
        rule = self._rule(question, key, references)
        asked = replace(
            question,
            category_name=key,
            zero_shot=not references,
            maps=question.maps or question.overlay or rule.regions is not None,
            rule=rule.verdicts_only(),
            score_range=_range_of(rule.calibration),
        )
        answer = await self._ask(asked)
        rule = self._rule(question, key, answer.references)  # references may have changed meanwhile
        if rule.regions is None:
            judgement = rule.decide(answer.result)
        else:  # looking for regions takes milliseconds: not in the thread that answers everyone
            judgement = await asyncio.to_thread(rule.decide, answer.result)
        if question.boxes == "none":  # looked for by rules alone
            judgement = replace(judgement, defects=None)
        answer = replace(answer, judgement=judgement)
        if self.feedback is not None:
            await self.feedback.take(question, answer)
        if self.drift is not None:
            await self.drift.take(question, answer, rule.calibration)
        return answer

    def _rule(self, question: Question, key: str, references: tuple[str, ...]) -> DecisionRule:
        """Rule for a result that was scored with these references."""
        calibration = self._calibrations.fitting(key, references)
        calibrated = None if calibration is None else calibration.regions
        verdicts = _verdicts_of(question, self._verdicts, calibration)
        decides = calibration is not None or verdicts.threshold is not None
        rules, roi = self._rules if decides else Rules(), self.spec.options.get("roi")
        ruled = decides and needs_defects(verdicts, rules, roi)
        boxes = None if ruled and question.boxes == "none" else question.boxes
        regions = chosen_regions(boxes, question.pixel_threshold, question.min_area, calibrated, ruled=ruled)
        product = self._product_of(question, key, references, calibration)
        return DecisionRule(
            verdicts.threshold, calibration, regions, verdicts=verdicts, rules=rules, roi=roi, product=product
        )

    def _product_of(
        self, question: Question, key: str, references: tuple[str, ...], calibration: Calibration | None
    ) -> ProductRevision | None:
        """The product that an answer is of: none where somebody has changed what it says, or asks for another."""
        served = self._products.get(key)
        chosen = (question.threshold, question.review_threshold, question.pixel_threshold)
        if served is None or any(value is not None for value in chosen):
            return None
        is_same = served.references == frozenset(references) and served.calibration == calibration
        return served.revision if is_same else None

    async def _ask(self, question: Question) -> Answer:
        """Queue a picture; a demanding one is decoded on its own before, so that no other waits for it."""
        try:
            return await self.batcher.submit(question)
        except DemandingPictureError:
            return await self.batcher.submit(replace(question, picture=await self.fleet.decode(question)))

    async def _score_good(self, key: str, name: str, content: bytes, maps: bool) -> Answer:
        """Score a picture of a calibration, through the same queue."""
        self.fleet.check_ready()
        deadline = time.monotonic() + 10 * self.settings.deadline_s  # nobody waits for it
        zero_shot = not self.fleet.references_of(key)
        return await self._ask(Question(name, content, key, deadline, maps=maps, zero_shot=zero_shot))

    async def info(self) -> dict[str, Any]:
        """Description of the running model, as of :meth:`winspect.WinCLIP.describe`, and what its scores are.

        ``score_range`` is the lowest and the highest score, None where there is no highest; ``zero_shot`` whether a
        class is scored without references.

        Raises:
            NotReady: no model has been loaded yet.
        """
        if self.fleet.described is None:
            raise NotReady("the model is loading; ask again later")
        return self.fleet.described

    # -- classes, references

    def _key(self, category_name: str) -> str:
        key = class_key(category_name)
        if self._served is not None and key not in self._served:
            some = ", ".join(sorted(self._served)[:_MOST_NAMED])
            raise UnknownClass(f"the class {key!r} is not served here; served are {some}")
        return key

    def check_class(self, category_name: str) -> None:
        """Refuse a class that is not served.

        Raises:
            UnknownClass: it is not.
        """
        self._key(category_name)

    async def _key_with(self, category_name: str, kind: Kind, noun: str) -> str:
        key = self._key(category_name)
        if not await self._count(key, kind):
            raise UnknownClass(f"there are no {noun} of {key!r}")
        return key

    async def _count(self, key: str, kind: Kind) -> int:
        return await asyncio.to_thread(self.store.count, key, kind)

    async def classes(self) -> list[ClassInfo]:
        """All classes that have something stored, and those of the settings; by name."""
        keys = await asyncio.to_thread(self.store.classes) if self._served is None else self._served
        return [await self.class_info(key) for key in sorted(keys)]

    async def class_info(self, category_name: str) -> ClassInfo:
        """A class, whether anything is stored of it or not."""
        key = self._key(category_name)
        counts = await self._count(key, "reference"), await self._count(key, "good")
        return ClassInfo(key, *counts, self._calibrations.state(key))

    async def references(self, category_name: str) -> list[StoredPicture]:
        """The references of a class, in the order shown; none for zero-shot."""
        return await asyncio.to_thread(self.store.pictures, self._key(category_name), "reference")

    async def set_references(self, category_name: str, pictures: Sequence[Picture], *, add: bool = False) -> ClassInfo:
        """Show good samples of a class, in place of those shown before or beside them; all of them or none.

        Predictions that are asked for after the answer are made with them.

        Raises:
            ReferencesError: none, too many, or one that cannot be used.
            OutputError: the disk is full; nothing has changed.
            NotReady: as for :meth:`predict`.
        """
        key = self._key(category_name)
        if not pictures:
            raise ReferencesError(f"got no reference picture of {key!r}, need at least one good sample")
        try:
            await self.fleet.check_pictures(pictures)
        except PictureError as error:
            raise ReferencesError(f"cannot use a reference picture: {error}") from error
        await self.fleet.change_references(key, pictures, add=add)
        await self._calibrations.check(key)
        return await self.class_info(key)

    async def delete_references(self, category_name: str) -> None:
        """Make the class zero-shot again.

        Raises:
            UnknownClass: it has no references.
        """
        key = await self._key_with(category_name, "reference", "references")
        await self.fleet.change_references(key, (), add=False)
        await self._calibrations.check(key)

    async def remove_reference(self, category_name: str, *, name: str | None = None, sha256: str | None = None) -> None:
        """Forget one reference of a class, by its name, its hash, or both; the others stay as they are.

        Raises:
            UnknownClass: it has no such reference.
            ReferencesError: it has several of this name.
            NotReady: as for :meth:`predict`.
        """
        key = self._key(category_name)
        await self.fleet.remove_reference(key, name, sha256)
        await self._calibrations.check(key)

    # -- calibration

    async def add_good(self, category_name: str, pictures: Sequence[Picture]) -> int:
        """Store good pictures to calibrate with; returns how many the class has. Copies are stored once.

        Raises:
            SettingsError: too many.
            PictureError: one cannot be used; none is stored.
            OutputError: the disk is full; none is stored.
            NotReady: as for :meth:`predict`.
        """
        key = self._key(category_name)
        await self.fleet.check_pictures(pictures)
        known, most = await self._count(key, "good"), self.settings.max_good_pictures
        if known + len(pictures) > most:
            raise SettingsError(f"got {len(pictures)} good pictures beside {known}, at most {most} of a class are kept")
        await whole(asyncio.to_thread(self.store.add, key, "good", pictures))
        return await self._count(key, "good")

    async def delete_good(self, category_name: str) -> None:
        """Forget the good pictures of a class.

        Raises:
            UnknownClass: it has none.
        """
        key = await self._key_with(category_name, "good", "good pictures")
        await whole(asyncio.to_thread(self.store.replace, key, "good", ()))

    async def start_calibration(
        self, category_name: str, max_false_alarms: float, review: float | None = None, *, force: bool = False
    ) -> None:
        """Score the stored good pictures in the background and keep the calibration; see :meth:`calibration`.

        Args:
            review: of good pictures at most this share is to be ``review`` or ``anomalous``; None for what the settings
                say, or two verdicts.
            force: keep it even where good pictures of the audit sample contradict the others.

        Raises:
            SettingsError: a rate out of range, too few pictures for it, or a calibration of the class is running.
            NotReady: as for :meth:`predict`.
        """
        key = self._key(category_name)
        self.fleet.check_ready()
        check_above(self._verdicts.review if review is None else review, max_false_alarms)
        await self._calibrations.start(key, max_false_alarms, review, force=force)

    async def calibration(self, category_name: str) -> CalibrationState:
        """State of the calibration of a class."""
        return self._calibrations.state(self._key(category_name))

    async def delete_calibration(self, category_name: str) -> None:
        """Drop the calibration of a class, or stop the one that is running.

        Raises:
            UnknownClass: it has none.
        """
        await self._calibrations.delete(self._key(category_name))


def _verdicts_of(question: Question, verdicts: Verdicts, calibration: Calibration | None) -> Verdicts:
    """The levels of a question: its own thresholds, or those of the settings as far as the class has a calibration."""
    if question.threshold is not None or question.review_threshold is not None:
        levels: dict[str, Any] = {"threshold": question.threshold, "review_threshold": question.review_threshold}
        return replace(verdicts, review=None, roi={}, **levels)
    return verdicts if calibration is not None else replace(verdicts, review=None, roi={})


def _range_of(calibration: Calibration | None) -> ScoreRange | None:
    """The scale of heat maps by a calibration; None where it says nothing of maps."""
    if calibration is None or calibration.map_maxima is None:
        return None
    limits = calibration.identity.recipe.score_range
    return run_range(calibration.map_maxima, calibration.pixel_threshold, limits)
