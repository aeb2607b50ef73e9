"""Calibrating: good pictures go in, a calibration comes out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from winspect._version import __version__
from winspect.calibration.calibration import Calibration, Defective, HeldOut, LeftOut, LeftOutBecause, made_by
from winspect.calibration.conformal import best_f1, chance_of_alarms, check_enough, check_rate, conformal_threshold
from winspect.calibration.judgement import verdict_of
from winspect.calibration.regions import map_peak
from winspect.errors import SettingsError
from winspect.pictures.fingerprints import fingerprint
from winspect.pictures.given import pictures_given
from winspect.system.progress import progress_bar

if TYPE_CHECKING:
    from winspect.inspector.base import Predictor
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)

SUSPICIOUS = 0.01
"""Held-out good pictures are at odds with a calibration when so many alarms have less than this chance."""


def calibrate(
    model: Predictor,
    pictures: Iterable[Any],
    category_name: str,
    *,
    max_false_alarms: float = 0.01,
    held_out: Iterable[Any] = (),
    defective: Iterable[Any] = (),
    maps: bool = True,
    progress: bool = False,
    bgr: bool = False,
) -> Calibration:
    """Find the thresholds above which at most ``max_false_alarms`` of the good pictures of a line will lie.

    A reference picture among them is left out, because the model has seen it, and so is the copy of a picture: both are
    told by their path and by their content. So is a picture that cannot be used. Each is named in the log and in
    ``left_out``.

    Args:
        model: with the references it will judge with.
        pictures: good ones from the line that is to be inspected, as they come: not chosen, not sorted out. A folder,
            file or glob, or any number of pictures.
        category_name: the class they are judged as.
        max_false_alarms: above 0 and below 1.
        held_out: further good pictures, to see whether the promise holds for them.
        defective: pictures of defective parts, for an F1-optimal threshold, and to see how many are found.
        maps: False for scores alone, which are much less work (see :meth:`WinCLIP.predict_many`): no pixel threshold.
        progress: show it on stderr.
        bgr: the channels of arrays and tensors are BGR, as OpenCV has them.

    Raises:
        SettingsError: a rate out of range, or too few usable pictures for the rate; says how many are needed.
        SourceError: a folder or glob without pictures.
        ClassNameError: the class name cannot be put into a prompt.
    """
    check_rate(max_false_alarms)
    good, further, bad = (list(pictures_given(given, bgr=bgr)) for given in (pictures, held_out, defective))
    check_enough(len(good), max_false_alarms)
    judging = _Judging(model, category_name, progress)
    scores, maxima = [], []
    for result in judging.results(good, "good", maps=maps):
        scores.append(_score(result))
        if maps:
            maxima.append(map_peak(result))
    check_enough(len(scores), max_false_alarms)
    scores.sort()
    threshold = conformal_threshold(scores, max_false_alarms)
    further_scores = [_score(result) for result in judging.results(further, "held out")]
    bad_scores = [_score(result) for result in judging.results(bad, "defective")]
    return Calibration(
        made_by=made_by(model, category_name),
        max_false_alarms=float(max_false_alarms),
        scores=tuple(scores),
        map_maxima=tuple(sorted(maxima)) if maps else None,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        winspect=__version__,
        left_out=tuple(judging.left_out),
        held_out=_held_out(further_scores, threshold, len(scores), max_false_alarms) if further else None,
        defective=_defective(bad_scores, threshold, scores) if bad else None,
    )


class _Judging:
    """Judges pictures once each, and notes those that are left out."""

    def __init__(self, model: Predictor, category_name: str, progress: bool) -> None:
        self.model, self.category_name, self.progress = model, category_name, progress
        self.left_out: list[LeftOut] = []
        self._references = {key for shown in model.references_of(category_name) for key in shown.keys}
        self._used: dict[str, str] = {}

    def results(self, pictures: Sequence[Any], kind: str, *, maps: bool = False) -> Iterator[Result]:
        """The results of those that can be used."""
        usable = [picture for picture in pictures if self._is_new(picture)]
        results = self.model.predict_many(usable, self.category_name, maps=maps)
        for result in progress_bar(results, kind, len(usable), shown=self.progress):
            if result.error is None:
                if result.warning is not None:
                    logger.warning("used for calibration, but %s: %s", result.path, result.warning)
                yield result
            else:
                self._leave_out(result.path, "unreadable", str(result.error))

    def _is_new(self, picture: Any) -> bool:
        own = fingerprint(picture)
        original = next((self._used[key] for key in own.keys if key in self._used), None)
        if self._references & own.keys:
            self._leave_out(own.path, "reference", f"{own.path}: a reference picture, which the model has seen")
        elif original is not None:
            self._leave_out(own.path, "copy", f"{own.path}: the same picture as {original}")
        else:
            self._used.update(dict.fromkeys(own.keys, own.path))
            return True
        return False

    def _leave_out(self, path: str, because: LeftOutBecause, message: str) -> None:
        logger.warning("left out (%s): %s", because, message)
        self.left_out.append(LeftOut(path, because, message))


def _score(result: Result) -> float:
    assert result.anomaly_score is not None  # there is no error
    return float(result.anomaly_score)


def _held_out(scores: Sequence[float], threshold: float, pictures: int, max_false_alarms: float) -> HeldOut:
    if not scores:
        raise SettingsError("none of the held-out pictures can be used; see what was left out")
    alarms = _flagged(scores, threshold)
    chance = chance_of_alarms(alarms, len(scores), pictures=pictures, max_false_alarms=max_false_alarms)
    return HeldOut(len(scores), alarms, chance)


def _defective(scores: Sequence[float], threshold: float, good: Sequence[float]) -> Defective:
    if not scores:
        raise SettingsError("none of the defective pictures can be used; see what was left out")
    best = best_f1(good, scores)
    return Defective(len(scores), _flagged(scores, threshold), best.f1, best.threshold)


def _flagged(scores: Sequence[float], threshold: float) -> int:
    return sum(verdict_of(score, threshold, anomalous_at=False) == "anomalous" for score in scores)
