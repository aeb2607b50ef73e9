"""Make calibrations from good pictures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from winspect._version import __version__
from winspect.calibration import Calibration, Defective, HeldOut, LeftOut
from winspect.calibration.areas import area_peaks
from winspect.calibration.conformal import check_enough, check_rate
from winspect.calibration.findings import LeftOutBecause
from winspect.calibration.regions import map_peak
from winspect.calibration.verdicts import check_above
from winspect.errors import SettingsError
from winspect.pictures.fingerprints import fingerprint
from winspect.pictures.given import pictures_given
from winspect.system.terminal import progress_bar

if TYPE_CHECKING:
    from winspect.inspector.protocol import CalibratedScorer
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)


def calibrate(
    model: CalibratedScorer,
    pictures: Any,
    category_name: str,
    *,
    max_false_alarms: float = 0.01,
    review: float | None = None,
    held_out: Any = (),
    defective: Any = (),
    maps: bool = True,
    progress: bool = False,
    bgr: bool = False,
) -> Calibration:
    """Find the thresholds above which at most ``max_false_alarms`` of the good pictures of a line will lie.

    Left out are reference pictures, because the model has seen them, and copies of a picture, both found by path and by
    content, and pictures that cannot be used. Each is named in the log and in ``left_out``.

    Args:
        model: with the references it will inspect with.
        pictures: good ones from the line that is to be inspected, as they come: not chosen, not sorted out. A folder,
            file or glob, or any number of pictures.
        category_name: the class they are scored as.
        max_false_alarms: above 0 and below 1.
        review: above it and below 1: of good pictures at most this share is ``review`` or ``anomalous``; None for two
            verdicts. Another rate can be asked for when it decides: the scores are kept.
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
    check_above(review, max_false_alarms)
    model.identity(category_name).recipe.check_alone("a calibrated line")
    good, further, bad = (list(pictures_given(given, bgr=bgr)) for given in (pictures, held_out, defective))
    check_enough(len(good), max_false_alarms)
    usable = _Usable(model, category_name, progress)
    scores, maxima, in_areas = [], [], defaultdict[str, list[float]](list)
    for result in usable.results(good, "good", maps=maps):
        scores.append(_score(result))
        if maps:
            maxima.append(map_peak(result))
            for name, peak in area_peaks(result).items():
                in_areas[name].append(peak)
    references = sum(left_out.because == "reference" for left_out in usable.left_out)
    check_enough(len(scores), max_false_alarms, references=references)
    scores.sort()
    further_scores, bad_scores = usable.scores(further, "held-out"), usable.scores(bad, "defective")
    return Calibration(
        identity=replace(model.identity(category_name), release=__version__),
        max_false_alarms=float(max_false_alarms),
        scores=tuple(scores),
        map_maxima=tuple(sorted(maxima)) if maps else None,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        left_out=tuple(usable.left_out),
        held_out=HeldOut.of(further_scores, scores, max_false_alarms) if further else None,
        defective=Defective.of(bad_scores, scores, max_false_alarms) if bad else None,
        review=None if review is None else float(review),
        area_maxima={name: tuple(sorted(peaks)) for name, peaks in in_areas.items()},
    )


class _Usable:
    """Scores each picture once, and notes those that are left out."""

    def __init__(self, model: CalibratedScorer, category_name: str, progress: bool) -> None:
        self.model, self.category_name, self.progress = model, category_name, progress
        self.left_out: list[LeftOut] = []
        self._references = {key for reference in model.references_of(category_name) for key in reference.keys}
        self._used: dict[str, str] = {}

    def results(self, pictures: Sequence[Any], kind: str, *, maps: bool = False) -> Iterator[Result]:
        """Results of the pictures that can be used."""
        usable = [picture for picture in pictures if self._is_new(picture)]
        results = self.model.predict_many(usable, self.category_name, maps=maps)
        for result in progress_bar(results, kind, len(usable), shown=self.progress):
            if result.error is not None:
                self._leave_out(result.path, "unreadable", str(result.error))
                continue
            if result.alignment is not None and not result.alignment.aligned:  # never normal, whatever its score
                message = f"{result.path}: not aligned: {result.alignment.reason}"
                self._leave_out(result.path, "not aligned", message)
                continue
            if result.warning is not None:
                logger.warning("used for calibration, but %s: %s", result.path, result.warning)
            yield result

    def scores(self, pictures: Sequence[Any], kind: str) -> list[float]:
        """Scores of the pictures that can be used, at least one where any are given."""
        scores = [_score(result) for result in self.results(pictures, kind)]
        if pictures and not scores:
            raise SettingsError(f"none of the {kind} pictures can be used; see what was left out")
        return scores

    def _is_new(self, picture: Any) -> bool:
        identity = fingerprint(picture)
        original = next((self._used[key] for key in identity.keys if key in self._used), None)
        if self._references & identity.keys:
            message = f"{identity.path}: a reference picture, which the model has seen"
            self._leave_out(identity.path, "reference", message)
        elif original is not None:
            self._leave_out(identity.path, "copy", f"{identity.path}: the same picture as {original}")
        else:
            self._used.update(dict.fromkeys(identity.keys, identity.path))
            return True
        return False

    def _leave_out(self, path: str, because: LeftOutBecause, message: str) -> None:
        logger.warning("left out (%s): %s", because, message)
        self.left_out.append(LeftOut(path, because, message))


def _score(result: Result) -> float:
    assert result.anomaly_score is not None  # there is no error
    return float(result.anomaly_score)
