"""Which judged pictures may join the pool of a calibration, and why its promise on false alarms is kept.

Operators look at high scores first, so that what they call good is no sample of the line's good pictures. Nor is what
the model calls normal: taken for good unseen it ends at the threshold, which then sinks from round to round.

*The audit sample joins.* A picture is drawn by its random id, whatever its score. So the drawn good pictures, those of
the calibration and the next good picture are exchangeable, and :mod:`winspect.calibration.conformal` holds as it stands
for the larger pool. Drawn pictures join in the order of their drawing, up to the first that nobody has judged or people
disagree on: otherwise which of them are answered first would choose them.

*Wrong answers.* A defective picture called good can only raise the threshold, which costs detections and no promise. A
good picture called defective is missing. Where that happens at all scores alike, nothing is lost but its count. Where
it happens more often at high scores, but at each score with a probability of at most e, at least 1 - e of any tail of
the good pictures is in the answers; so a tail that holds a share a of those holds at most a / (1 - e) of the good
pictures: 0.0105 for a = 0.01 and e = 0.05.

*Good pictures that were not drawn* are chosen by their scores. They are left out, or (``also_raise``) those above the
threshold join. Of n + m scores the threshold is the k'-th largest, k' = floor(a (n + m + 1)) <= k + m, and k - 1 + m
lie above the old one: it stays or rises, the promise is kept. The price: where every false alarm joins, in the long run
a share of a^2 is flagged in place of a, and fewer defects are found (figures: ``benchmarks/feedback.py``). They serve
better as good samples, which lowers the scores of their like.

*Good samples.* A drawn picture cannot become one, all others cannot join a pool unseen by score: no picture is in both.
A calibration that was made with other good samples is refused by its identity, and pool pictures must be scored again.

*The promise is tested again.* Before they join, the new good pictures are held out: how many does the calibration at
hand flag, and how likely is that (:func:`winspect.calibration.conformal.chance_of_alarms`)? Below
:data:`winspect.calibration.conformal.SUSPICIOUS` the line has changed, and a pool of old and new pictures would promise
for neither. Without a change that happens in one of a hundred recalibrations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from winspect._version import __version__
from winspect.calibration.calibration import Calibration
from winspect.calibration.conformal import SUSPICIOUS, check_enough
from winspect.calibration.findings import Defective, HeldOut
from winspect.errors import FeedbackError, SettingsError
from winspect.feedback.records import JudgedPicture, Records
from winspect.methods.identity import Identity


@dataclass(frozen=True)
class Pool:
    """Judged pictures of a class by what may become of them.

    Attributes:
        joining: drawn good ones, in order, before the first drawn one that has no answer.
        chosen: good ones that were not drawn and are no good samples.
        defective: all that were called so.
        waits_for: the first drawn picture without an answer; None where all have one.
        behind: drawn pictures with an answer that wait behind it.
    """

    joining: tuple[JudgedPicture, ...]
    chosen: tuple[JudgedPicture, ...]
    defective: tuple[JudgedPicture, ...]
    waits_for: JudgedPicture | None
    behind: int


@dataclass(frozen=True)
class Rates:
    """What the audit sample says of the line; numbers of pictures.

    Attributes:
        good, alarms: drawn and called good; of these flagged.
        defective, found: drawn and called defective; of these flagged.
        all_defective, all_found: with those that were not drawn, of which mostly flagged ones were looked at.
    """

    good: int
    alarms: int
    defective: int
    found: int
    all_defective: int
    all_found: int


@dataclass(frozen=True)
class Recalibration:
    """A calibration of more pictures, and what became of each.

    Attributes:
        retest: of the calibration at hand on the pictures that join; None where it is made anew.
        joined, raised_by: drawn pictures; chosen ones above the threshold.
        left_out: chosen good ones that are not used.
        skipped: scored by something else than the calibration's model, or without the peak of their map.
    """

    calibration: Calibration
    retest: HeldOut | None
    joined: tuple[JudgedPicture, ...]
    raised_by: tuple[JudgedPicture, ...]
    left_out: int
    skipped: int

    @property
    def is_contradicted(self) -> bool:
        """Whether the new pictures contradict the promise of the old calibration."""
        return self.retest is not None and self.retest.chance < SUSPICIOUS

    @property
    def ids(self) -> tuple[str, ...]:
        """Pictures that joined now."""
        return tuple(each.id for each in (*self.joined, *self.raised_by))


def pool_of(records: Records, class_name: str) -> Pool:
    """See :class:`Pool`."""
    drawn: list[JudgedPicture] = []
    chosen, defective = [], []
    for picture in sorted(records.pictures(class_name), key=lambda each: each.n):
        answer = records.standing(picture.id)
        if picture.is_drawn:
            drawn.append(picture)
        if answer is not None and answer.answer == "defective":
            defective.append(picture)
        elif answer is not None and not picture.is_drawn and picture.id not in records.references:
            chosen.append(picture)
    answers = [records.standing(picture.id) for picture in drawn]
    end = answers.index(None) if None in answers else len(drawn)
    joining = _once(
        picture
        for picture, answer in zip(drawn[:end], answers[:end], strict=True)
        if answer is not None and answer.answer == "good"
    )
    waits_for = drawn[end] if end < len(drawn) else None
    behind = sum(answer is not None for answer in answers[end:])
    return Pool(joining, tuple(chosen), tuple(defective), waits_for, behind)


def rates_of(records: Records, class_name: str) -> Rates:
    """See :class:`Rates`. Pictures that had no verdict are not counted."""
    counts = dict.fromkeys(("good", "alarms", "defective", "found", "all_defective", "all_found"), 0)
    for picture in records.pictures(class_name):
        answer = records.standing(picture.id)
        if answer is None or picture.verdict is None:
            continue
        is_flagged = picture.verdict == "anomalous"
        if answer.answer == "good" and picture.is_drawn:
            counts["good"] += 1
            counts["alarms"] += is_flagged
        elif answer.answer == "defective":
            counts["all_defective"] += 1
            counts["all_found"] += is_flagged
            counts["defective"] += picture.is_drawn
            counts["found"] += picture.is_drawn and is_flagged
    return Rates(**counts)


def recalibrated(
    calibration: Calibration, records: Records, *, date: str, also_raise: bool = False, fresh: bool = False
) -> Recalibration:
    """A calibration with the judged pictures of its class joined; nothing is scored.

    Args:
        calibration: in use, or one that feedback made before: what joined then is not counted twice.
        date: of the new one, ISO 8601, UTC.
        also_raise: good pictures that were not drawn join where they lie above the threshold.
        fresh: of the drawn pictures alone, without the calibration's: after a change of the line.

    Raises:
        FeedbackError: nothing joins; or a picture that joined before is no longer good.
        SettingsError: too few pictures for the rate; or the calibration has areas with thresholds of their own.
    """
    if calibration.area_maxima:
        raise SettingsError(
            "this calibration has thresholds for areas of its own, which judged pictures are not logged with: "
            "calibrate again, with the pictures of `winspect feedback DIR --pool` among the good ones"
        )
    earlier = () if fresh else records.calibrations.get(digest_of(calibration), ())
    _check_earlier(earlier, records)
    pool, fits = pool_of(records, calibration.class_name), _fitting(calibration, records)
    joined = tuple(each for each in pool.joining if each.id not in earlier and fits(each))
    chosen = [each for each in pool.chosen if each.id not in earlier and fits(each)]
    defective = [each.score for each in pool.defective if each.score is not None and fits(each)]
    left = (*pool.joining, *pool.chosen)
    skipped = sum(each.id not in earlier and not fits(each) for each in left)
    if not joined and not (also_raise and chosen):
        raise FeedbackError(_nothing_joins(pool, len(chosen), skipped))
    made = _with(calibration, joined, date, alone=fresh)
    raised_by = tuple(each for each in chosen if also_raise and _score(each) > made.threshold)
    if raised_by:
        made = _with(made, raised_by, date, at_least=made.pixel_threshold)
    if defective:
        made = replace(made, defective=Defective.of(defective, made.scores, made.max_false_alarms))
    rate = calibration.max_false_alarms
    retest = None if fresh or not joined else HeldOut.of(list(map(_score, joined)), calibration.scores, rate)
    return Recalibration(made, retest, joined, raised_by, len(chosen) - len(raised_by), skipped)


def digest_of(calibration: Calibration) -> str:
    """SHA-256 of a calibration's document, by which the log names it."""
    return hashlib.sha256(json.dumps(calibration.document(), sort_keys=True).encode()).hexdigest()


def retest_of(scores: Sequence[float], made: Calibration) -> HeldOut | None:
    """Hold the scores of pictures that have joined a calibration out again: do they contradict what the others promise?

    Args:
        scores: of those that joined; the others are the rest of ``made.scores``.

    Returns:
        None where there are none, or the others are too few for the rate.
    """
    others = list(made.scores)
    for score in scores:
        others.remove(score)
    try:
        check_enough(len(others), made.max_false_alarms)
    except SettingsError:
        return None
    return HeldOut.of(scores, others, made.max_false_alarms) if scores else None


def _with(
    calibration: Calibration,
    pictures: Sequence[JudgedPicture],
    date: str,
    *,
    alone: bool = False,
    at_least: float | None = None,
) -> Calibration:
    """A calibration with further pictures.

    Args:
        alone: without those it has.
        at_least: for the peaks of pictures that may only raise.
    """
    scores, maxima = ((), ()) if alone else (calibration.scores, calibration.map_maxima or ())
    peaks = [max(each.peak or 0.0, at_least) if at_least is not None else each.peak for each in pictures]
    has_maps = calibration.map_maxima is not None
    return replace(
        calibration,
        identity=replace(calibration.identity, release=__version__),
        scores=tuple(sorted((*scores, *map(_score, pictures)))),
        map_maxima=tuple(sorted((*maxima, *(each for each in peaks if each is not None)))) if has_maps else None,
        date=date,
        held_out=None,
        defective=None,
    )


def _check_earlier(earlier: Iterable[str], records: Records) -> None:
    for id in earlier:
        answer = records.standing(id)
        if answer is None or answer.answer != "good":
            raise FeedbackError(
                f"the picture {id} joined this calibration and is not good any more: recalibrate from the calibration "
                "that was there before feedback"
            )


def _fitting(calibration: Calibration, records: Records) -> Callable[[JudgedPicture], bool]:
    """Whether a picture was scored as the calibration's were, and has what it needs."""
    known: dict[str | None, bool] = {None: False}

    def fits(picture: JudgedPicture) -> bool:
        if picture.run not in known:
            known[picture.run] = _is_same(calibration, records.runs.get(picture.run or ""))
        has_peak = calibration.map_maxima is None or picture.peak is not None or not picture.is_drawn
        return known[picture.run] and has_peak

    return fits


def _is_same(calibration: Calibration, document: dict[str, object] | None) -> bool:
    if document is None:
        return False
    try:
        calibration.check(Identity.read(document))
    except SettingsError:
        return False
    return True


def _once(pictures: Iterable[JudgedPicture]) -> tuple[JudgedPicture, ...]:
    """Pictures of different contents: a part that was inspected twice counts once."""
    known: dict[str, JudgedPicture] = {}
    for picture in pictures:
        known.setdefault(picture.sha256 or picture.id, picture)
    return tuple(known.values())


def _score(picture: JudgedPicture) -> float:
    assert picture.score is not None  # only what could be scored is judged
    return picture.score


def _nothing_joins(pool: Pool, chosen: int, skipped: int) -> str:
    reasons = ["no drawn picture was called good that has not joined already"]
    if pool.waits_for is not None:
        reasons.append(f"{pool.behind} wait for an answer on {pool.waits_for.path} ({pool.waits_for.id})")
    if chosen:
        reasons.append(f"{chosen} that were not drawn can only raise the threshold (--raise)")
    if skipped:
        reasons.append(f"{skipped} were scored by another model, recipe or good samples, or without their maps")
    return "nothing to recalibrate with: " + "; ".join(reasons)
