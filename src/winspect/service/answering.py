"""Feedback in a service: every answer into the audit log, pictures kept for the review queue, and what answers change.

Drawn good pictures become good pictures of their class (``POST /v1/calibrations`` scores them with all others); good
pictures that were not drawn become references where that is asked for, and the class is calibrated again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from winspect.calibration import Calibration
from winspect.calibration.conformal import SUSPICIOUS, check_enough
from winspect.calibration.findings import HeldOut
from winspect.errors import SettingsError, UnknownPictureError, WinspectError
from winspect.feedback.feedback import Feedback
from winspect.feedback.pool import pool_of, rates_of, retest_of
from winspect.feedback.queue import queue_length, review_queue
from winspect.feedback.records import JudgedPicture, Records
from winspect.feedback.settings import FeedbackSettings
from winspect.feedback.trail import AuditTrail
from winspect.outputs.rows import row_of
from winspect.pictures.fingerprints import fingerprint
from winspect.service.contract import Answer, Question, clean_name
from winspect.service.settings import MEGABYTE
from winspect.service.store.kept import KeptPictures

if TYPE_CHECKING:
    from winspect.service.backend import Backend

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

KEPT_FOLDER = "feedback"
_SHOWN = ("review", "anomalous")  # verdicts whose pictures are kept


class ServiceFeedback:
    """See the module. What it is asked belongs to the backend's event loop; files are touched in threads.

    Args:
        backend: whose answers they are; has its store and settings already.
    """

    def __init__(self, backend: Backend, settings: FeedbackSettings) -> None:
        folder = backend.settings.data
        self._backend, self.feedback = backend, Feedback(folder, settings)
        self.kept = KeptPictures(folder / KEPT_FOLDER, int(settings.keep_mb * MEGABYTE))
        self.trail = AuditTrail(self.feedback)
        self._changing = asyncio.Lock()
        self.trail.__enter__()

    def close(self) -> None:
        """Write what waits."""
        self.trail.close()

    # -- pictures in

    async def take(self, question: Question, answer: Answer) -> None:
        """Take an answer; never fails, and does not wait for the audit log to be on the disk.

        Args:
            question: as the caller asked it. What was asked without the class' good samples is not drawn.
        """
        await asyncio.to_thread(self._take, question, answer)

    def _take(self, question: Question, answer: Answer) -> None:
        row = {**row_of(answer.judgement), "id": answer.id}
        content = question.picture if isinstance(question.picture, bytes) else None
        sha256 = fingerprint(question.picture).sha256 if content is None else hashlib.sha256(content).hexdigest()
        drawn = content is not None and not question.zero_shot and self.trail.draws(row)
        drawn = drawn and self.kept.has_room(len(content or b""))
        file = None
        if content is not None and (drawn or row["verdict"] in _SHOWN):
            try:
                file = self.kept.save("drawn" if drawn else "recent", answer.id, content)
            except OSError as error:
                logger.warning("a judged picture cannot be kept: %s", error)
                drawn = False
        self.trail.take(row, sha256=sha256, file=file, result=answer.result, may_be_drawn=drawn)

    # -- questions

    async def _known(self, ask: Callable[[Records], Value]) -> Value:
        """What the records say; in a thread, because somebody may be writing to the disk."""

        def read() -> Value:
            with self.feedback.records() as records:
                return ask(records)

        return await asyncio.to_thread(read)

    async def picture(self, id: str) -> JudgedPicture:
        """A judged picture.

        Raises:
            UnknownPictureError: none has this id. UnknownClass: its class is not served.
        """
        return await asyncio.to_thread(self._find, id)

    def _find(self, id: str) -> JudgedPicture:
        self.trail.flush()
        with self.feedback.records() as records:
            picture = records.get(id)
        if picture is None:
            most = self.feedback.settings.remember
            raise UnknownPictureError(f"{id!r}: no picture of this id was judged here, or not among the newest {most}")
        self._backend.check_class(picture.class_name)
        return picture

    async def content(self, id: str) -> bytes:
        """The file of a judged picture.

        Raises:
            UnknownPictureError: none has this id. FeedbackError: it is not kept.
        """
        return await asyncio.to_thread(self._content, await self.picture(id))

    def _content(self, picture: JudgedPicture) -> bytes:
        with self.feedback.records() as records:
            is_pooled = picture.id in records.pooled
        if is_pooled:
            return self._backend.store.content(picture.class_name, "good", picture.sha256 or "")
        return self.kept.read(picture.id)

    async def document(self, id: str) -> dict[str, Any]:
        """A picture with what was said of it."""
        picture = await self.picture(id)
        return await asyncio.to_thread(self._document, picture)

    def _document(self, picture: JudgedPicture) -> dict[str, Any]:
        with self.feedback.records() as records:
            answer = records.answers.get(picture.id)
            return {
                **picture.document(),
                **({"answer": None, "by": None, "answered": None, "disputed": False} if answer is None else {}),
                **({} if answer is None else {"answer": answer.answer, "by": answer.by, "answered": answer.time}),
                **({} if answer is None else {"disputed": answer.is_disputed}),
                "reference": picture.id in records.references,
                "pooled": picture.id in records.pooled,
            }

    async def review(self, category_name: str | None, most: int) -> dict[str, Any]:
        """The first pictures of the queue, and how many wait."""
        return await asyncio.to_thread(self._review, category_name, most)

    def _review(self, category_name: str | None, most: int) -> dict[str, Any]:
        self.trail.flush()
        with self.feedback.records() as records:
            queue = review_queue(records, class_name=category_name, most=most)
            pictures = [
                {**queued.picture.document(), "because": queued.because, "doubt": queued.doubt}
                | {"has_picture": self.kept.has(queued.picture.id)}
                for queued in queue
            ]
            return {"pictures": pictures, "waiting": queue_length(records, category_name)}

    async def rates(self, category_name: str) -> dict[str, Any]:
        """What the audit sample of a class says, and how its pool stands."""
        return await asyncio.to_thread(self._rates, category_name)

    def _rates(self, key: str) -> dict[str, Any]:
        with self.feedback.records() as records:
            pool = pool_of(records, key)
            pooled = sum(picture.id in records.pooled for picture in records.pictures(key))
            waits_for = None if pool.waits_for is None else pool.waits_for.id
            return {**vars(rates_of(records, key)), "pooled": pooled, "waits_for": waits_for, "behind": pool.behind}

    # -- answers

    async def judge(self, id: str, answer: str, *, by: str | None, note: str | None, reference: bool) -> None:
        """Write down an answer, and do what follows from it.

        Args:
            reference: whether a good picture becomes a reference, too.

        Raises:
            UnknownPictureError, AlreadyJudgedError, FeedbackError: see :meth:`Feedback.judge`.
            SettingsError: the class could not be calibrated again with another reference.
            OutputError: the disk is full; nothing was changed.
        """
        async with self._changing:
            picture = await self.picture(id)
            content = await self._checked_reference(picture) if reference else None
            try:
                await asyncio.to_thread(self.feedback.judge, id, answer, by=by, note=note)
            finally:
                await self._settle(picture.class_name)  # a dispute takes a picture out, too
            if picture.is_drawn and answer == "defective":
                await asyncio.to_thread(self.kept.release, id)
            if content is not None:
                name = f"{id[:8]}-{clean_name(picture.path)}"
                await self._note(picture, "reference", "add", by)  # first: what the log does not know nobody can undo
                try:
                    await self._backend.set_references(picture.class_name, [(name, content)], add=True)
                except BaseException:
                    await self._note(picture, "reference", "remove", by)
                    raise
                await self._calibrate_again(picture.class_name)

    async def undo(self, id: str, *, by: str | None) -> None:
        """Take back what was said of a picture, and what followed from it.

        Raises:
            UnknownPictureError: none has this id. AlreadyJudgedError: nobody has judged it.
        """
        async with self._changing:
            picture = await self.picture(id)
            await asyncio.to_thread(self.feedback.undo, id, by=by)
            await self._settle(picture.class_name)
            if await self._known(lambda records: id in records.references):
                with suppress(WinspectError):  # somebody has deleted it meanwhile
                    await self._backend.remove_reference(picture.class_name, sha256=picture.sha256)
                await self._note(picture, "reference", "remove", by)
                await self._calibrate_again(picture.class_name)

    async def _checked_reference(self, picture: JudgedPicture) -> bytes:
        """The file of a picture that can become a reference."""
        await self._known(lambda records: records.check_reference(picture))
        content = await asyncio.to_thread(self.kept.read, picture.id)
        info = await self._backend.class_info(picture.class_name)
        if info.calibration.state == "running":
            raise SettingsError(f"a calibration of {info.category_name!r} is running; answer again when it is done")
        rate = info.calibration.max_false_alarms
        if info.calibration.state in ("ready", "stale") and rate is not None:
            try:
                check_enough(info.good_pictures, rate)
            except SettingsError as error:
                raise SettingsError(
                    "with another reference the class must be calibrated again, which needs its good pictures "
                    f"(POST /v1/calibrations/pictures): {error}"
                ) from error
        return content

    async def _calibrate_again(self, key: str) -> None:
        """Calibrate a class again whose references have changed, where it was calibrated."""
        state = await self._backend.calibration(key)
        if state.state in ("ready", "stale") and state.max_false_alarms is not None:
            await self._backend.start_calibration(key, state.max_false_alarms, state.review)

    async def _note(self, picture: JudgedPicture, what: str, do: str, by: str | None) -> None:
        change = {"event": "change", "what": what, "do": do, "id": picture.id, "sha256": picture.sha256, "by": by}
        await asyncio.to_thread(self.feedback.note, {**change, "class": picture.class_name, "place": "service"})

    # -- the pool

    async def _settle(self, key: str) -> None:
        """Put drawn good pictures among the good ones of their class, and take out those that are none any more.

        What cannot be done now, as on a full disk, is done at the next answer.
        """
        joining, pooled = await self._known(lambda records: _joining_and_pooled(records, key))
        for id, picture in pooled.items():
            if id not in joining:
                await self._take_out(key, picture)
            else:
                self.kept.drop(id)  # left behind by a service that was killed
        for id, picture in joining.items():
            if id not in pooled:
                try:
                    content = await asyncio.to_thread(self.kept.read, id)
                    await self._backend.add_good(key, [(clean_name(picture.path), content)])
                    await self._note(picture, "pool", "add", None)
                    await asyncio.to_thread(self.kept.drop, id)
                except WinspectError as error:
                    logger.warning("%s: does not join the good pictures: %s", id, error)

    async def _take_out(self, key: str, picture: JudgedPicture) -> None:
        store, sha256 = self._backend.store, picture.sha256 or ""
        with suppress(WinspectError, OSError):  # its file, for the queue and for another answer
            content = await asyncio.to_thread(store.content, key, "good", sha256)
            await asyncio.to_thread(self.kept.save, "drawn", picture.id, content)
        await asyncio.to_thread(store.remove, key, "good", sha256)
        await self._note(picture, "pool", "remove", None)

    def retest(self, key: str, made: Calibration, scores: Mapping[str, float]) -> HeldOut | None:
        """Hold the pictures of the audit sample out of a new calibration again.

        Args:
            scores: of all its pictures, by their hashes.

        Raises:
            SettingsError: they contradict what the others promise.
        """
        with self.feedback.records() as records:
            joined = {each.sha256 for each in records.pictures(key) if each.id in records.pooled}
        found = retest_of([score for sha256, score in scores.items() if sha256 in joined], made)
        if found is not None and found.chance < SUSPICIOUS:
            raise SettingsError(
                f"of {found.pictures} good pictures of the audit sample {found.alarms} are flagged by what the other "
                f"good pictures promise, which has a chance of {found.chance:.3g}: the line has changed. Delete the "
                "good pictures (DELETE /v1/calibrations/pictures) and send new ones, or calibrate with force"
            )
        return found


def _joining_and_pooled(records: Records, key: str) -> tuple[dict[str, JudgedPicture], dict[str, JudgedPicture]]:
    """Pictures that are to be among the good ones of a class, and those that are, by id."""
    pooled = {picture.id: picture for picture in records.pictures(key) if picture.id in records.pooled}
    return {picture.id: picture for picture in pool_of(records, key).joining}, pooled
