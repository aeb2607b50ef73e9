"""Judged pictures, and what was answered of each: what follows from the entries of an audit log. Nothing is written."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from winspect.errors import AlreadyJudgedError, FeedbackError, UnknownPictureError
from winspect.methods.winclip.prompts import class_key

Verdict = Literal["good", "defective"]
ANSWERS: tuple[str, ...] = get_args(Verdict)
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class JudgedPicture:
    """A picture as the model judged it; entry ``picture`` of the log.

    Attributes:
        n: of the entry: pictures in order of their judging.
        sha256: of the file, or of the pixels of what is no file; None where it could not be read again.
        score: more is more anomalous; None for a picture that could not be scored, of which nothing can be answered.
        is_drawn: for the audit sample, by chance, whatever its score.
        peak: the largest value of its map, where that was looked at.
        run: digest of the identity that scored it.
        file: absolute path of the file that it is in; None for what is no file.
        review_threshold: where the verdict ``review`` begins; None for two verdicts.
    """

    id: str
    n: int
    time: str
    path: str
    class_name: str
    sha256: str | None
    score: float | None
    verdict: str | None
    threshold: float | None
    p_value: float | None
    is_drawn: bool = False
    peak: float | None = None
    run: str | None = None
    file: str | None = None
    review_threshold: float | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> JudgedPicture:
        """The picture of an entry."""
        values: dict[str, Any] = {name: entry.get(name) for name in _ENTRIES}
        return cls(**values, class_name=entry["class"], is_drawn=bool(entry.get("audit")))

    def document(self) -> dict[str, Any]:
        """The picture as ``--json`` and ``GET /v1/review`` have it."""
        names = ("id", "time", "path", "sha256", "score", "verdict", "threshold", "p_value")
        return {**{name: getattr(self, name) for name in names}, "class": self.class_name, "audit": self.is_drawn}


_ENTRIES = tuple(each.name for each in fields(JudgedPicture) if each.name not in ("class_name", "is_drawn"))


@dataclass(frozen=True)
class Answer:
    """What somebody said of a picture.

    Attributes:
        by: name of who said so, as given, not proven; None for nobody named.
        objections: who said the opposite afterwards. A disputed picture counts as one that nobody has judged.
    """

    answer: Verdict
    by: str | None
    time: str
    objections: tuple[str | None, ...] = ()

    @property
    def is_disputed(self) -> bool:
        """Whether somebody else said the opposite."""
        return bool(self.objections)

    def document(self) -> dict[str, Any]:
        """The answer as JSON has it."""
        return {"answer": self.answer, "by": self.by, "time": self.time, "disputed": self.is_disputed}


@dataclass
class Records:
    """Pictures, answers, references and calibrations, in memory.

    Attributes:
        remember: so many pictures are kept that are neither drawn nor answered; the oldest are forgotten.
        answers: that stand, by id.
        references: where a picture went that became a good sample, by id.
        runs: identities by their digests, as documents.
        pooled: hashes of the pictures that a service has put among a class' good ones, by id.
        last: picture of the log. product: name and revision of the one that judged last; None for none.
        calibrations: digests of those that were made by feedback -> ids of the pictures that joined.
    """

    remember: int = 100_000
    answers: dict[str, Answer] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    calibrations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pooled: dict[str, str] = field(default_factory=dict)
    last: JudgedPicture | None = None
    product: Mapping[str, Any] | None = None
    _kept: dict[str, JudgedPicture] = field(default_factory=dict)  # drawn or answered: never forgotten
    _recent: OrderedDict[str, JudgedPicture] = field(default_factory=OrderedDict)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take the next entry of the log into account."""
        kinds = {"picture": self._picture, "feedback": self._feedback, "undo": self._undo, "run": self._run}
        if take := kinds.get(entry["event"]) or (self._change if entry["event"] == "change" else None):
            take(entry)

    def _picture(self, entry: Mapping[str, Any]) -> None:
        picture = self.last = JudgedPicture.read(entry)
        if picture.is_drawn:
            self._kept[picture.id] = picture
            return
        self._recent[picture.id] = picture
        while len(self._recent) > self.remember:
            self._recent.popitem(last=False)

    def _feedback(self, entry: Mapping[str, Any]) -> None:
        id, by = entry["id"], entry.get("by")
        if entry.get("stands"):
            self.answers[id] = Answer(entry["answer"], by, entry["time"])
        elif (known := self.answers.get(id)) and known.answer != entry["answer"]:
            self.answers[id] = replace(known, objections=(*known.objections, by))
        if picture := self._recent.pop(id, None):
            self._kept[id] = picture

    def _undo(self, entry: Mapping[str, Any]) -> None:
        self.answers.pop(entry["id"], None)

    def _run(self, entry: Mapping[str, Any]) -> None:
        self.runs[entry["run"]] = entry["identity"]

    def _change(self, entry: Mapping[str, Any]) -> None:
        if entry.get("what") == "reference" and entry.get("do") == "add":
            self.references[entry["id"]] = entry["place"]
        elif entry.get("what") == "reference":  # taken back
            self.references.pop(entry["id"], None)
        elif entry.get("what") == "product":
            self.product = entry["product"]
        elif entry.get("what") == "pool" and entry.get("do") == "add":
            self.pooled[entry["id"]] = entry["sha256"]
        elif entry.get("what") == "pool":
            self.pooled.pop(entry["id"], None)
        elif entry.get("what") == "calibration" and "ids" in entry:
            self.calibrations[entry["sha256"]] = tuple(entry["ids"])

    # -- pictures

    def pictures(self, class_name: str | None = None) -> Iterator[JudgedPicture]:
        """Those that are known, of a class or of all."""
        key = None if class_name is None else class_key(class_name)
        for picture in (*self._kept.values(), *self._recent.values()):
            if key is None or class_key(picture.class_name) == key:
                yield picture

    def get(self, id: str) -> JudgedPicture | None:
        """The picture of an id; None for an unknown one."""
        return self._kept.get(id) or self._recent.get(id)

    def find(self, which: str) -> JudgedPicture:
        """A picture by its id, the path of its row, or the file's name.

        Raises:
            UnknownPictureError: there is none. FeedbackError: there are several.
        """
        if (picture := self.get(which)) is not None:
            return picture
        place = os.path.abspath(which)
        found = [each for each in self.pictures() if each.path == which or each.file == place]
        found = found or [each for each in self.pictures() if os.path.basename(each.path) == which]
        if not found:
            raise UnknownPictureError(
                f"{which!r}: unknown here: need the id of a row, or the path of a picture as its row has it; only the "
                f"newest {self.remember} pictures can be judged"
            )
        if len(found) > 1:
            named = ", ".join(f"{each.id} ({each.time})" for each in found[-_MOST_NAMED:])
            raise FeedbackError(
                f"{which!r}: {len(found)} pictures were judged by this name; name one by its id: {named}"
            )
        return found[0]

    def standing(self, id: str) -> Answer | None:
        """The answer that counts; None where nobody has judged the picture, or people disagree."""
        answer = self.answers.get(id)
        return None if answer is None or answer.is_disputed else answer

    # -- answers

    def answering(
        self, picture: JudgedPicture, answer: str, by: str | None
    ) -> tuple[dict[str, Any] | None, AlreadyJudgedError | None]:
        """What an answer adds to the log, if anything, and the error that it ends with, if any.

        The first answer stands. The same one again, by the same person, changes nothing and is no error: a request may
        be sent twice. Somebody else's is written down; where it is the opposite, the picture is disputed.

        Raises:
            FeedbackError: no answer, or the picture could not be scored.
        """
        if answer not in ANSWERS:
            raise FeedbackError(f"got the answer {answer!r}, need good or defective")
        if picture.score is None:
            raise FeedbackError(f"{picture.path}: it could not be scored, so that there is nothing to answer")
        entry = {"event": "feedback", "id": picture.id, "answer": answer, "by": by}
        known = self.answers.get(picture.id)
        if known is None:
            return {**entry, "stands": True}, None
        said = f"{picture.path} ({picture.id}): {_who(known.by)} said {known.answer} on {known.time}"
        if known.by == by:
            if known.answer == answer:
                return None, None
            return None, AlreadyJudgedError(f"{said}; undo that first to say {answer}")
        if known.answer == answer:
            return {**entry, "stands": False}, AlreadyJudgedError(f"{said}; yours agrees, and is in the audit log")
        message = f"{said}, {_who(by)} says {answer}: it is disputed, and counts as neither until one of you undoes it"
        if by in known.objections:
            return None, AlreadyJudgedError(message)
        return {**entry, "stands": False}, AlreadyJudgedError(message)

    def undoing(self, picture: JudgedPicture, by: str | None) -> dict[str, Any]:
        """What taking back the answers of a picture adds to the log.

        Raises:
            AlreadyJudgedError: it has none.
        """
        if picture.id not in self.answers:
            raise AlreadyJudgedError(f"{picture.path} ({picture.id}): nobody has judged it: there is nothing to undo")
        return {"event": "undo", "id": picture.id, "by": by}

    def check_reference(self, picture: JudgedPicture) -> None:
        """Refuse a picture as a good sample where that would break the promise of a calibration.

        Raises:
            FeedbackError: it was drawn for the audit sample, whose pictures belong to the calibration pool.
            AlreadyJudgedError: it is one already, or its answer is not good.
        """
        if picture.is_drawn:
            raise FeedbackError(
                f"{picture.path} ({picture.id}): it was drawn for the audit sample, whose good pictures join the "
                "calibration pool; no picture can be in the pool and among the good samples"
            )
        if picture.id in self.references:
            raise AlreadyJudgedError(f"{picture.path} ({picture.id}): it is a good sample already")
        answer = self.standing(picture.id)
        if answer is not None and answer.answer != "good":
            raise AlreadyJudgedError(f"{picture.path} ({picture.id}): {_who(answer.by)} said {answer.answer}")


def _who(by: str | None) -> str:
    return by or "somebody"
