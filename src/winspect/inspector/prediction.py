"""Results as a user holds them: to look at, save, show, and hand on to other programs. No torch."""

from __future__ import annotations

import html
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from winspect.calibration.defects import Box, label_regions
from winspect.calibration.judgement import DecisionRule, Judgement, check_class, check_threshold, chosen_regions
from winspect.calibration.regions import working_size
from winspect.calibration.rules_file import chosen_verdicts
from winspect.calibration.verdicts import Verdict
from winspect.errors import OutputError, PictureError, SettingsError, WinspectError
from winspect.methods.result import Result, shrunk
from winspect.outputs.maps import overlay_of, smaller_picture
from winspect.outputs.pages import data_uri
from winspect.outputs.rows import row_of
from winspect.pictures.decoding import read_rgb
from winspect.pictures.given import picture_given
from winspect.pictures.heatmaps import ScoreRange, heat_range
from winspect.system.files import make_folder, write_file
from winspect.system.installation import need

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.pictures.roi import Roi

_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 92},
}
_NOTEBOOK_SIDE = 640  # pixels of the longer side in a notebook, at most


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of a picture's defects, from top to bottom.

    Attributes:
        xyxy: int64 (boxes, 4): x0, y0, x1, y1 in pixels of the picture, x1 and y1 exclusive.
        score: float32 (boxes,): the largest value of the map inside each region, in the range of the map; more is more
            anomalous. It is not a probability.
    """

    xyxy: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[tuple[Box, float]]:
        """Each box with its score, as Python's numbers."""
        return ((tuple(box), score) for box, score in zip(self.xyxy.tolist(), self.score.tolist(), strict=True))


def decision_rule(
    threshold: float | None = None,
    calibration: Calibration | None = None,
    pixel_threshold: float | None = None,
    min_area: float | None = None,
    *,
    review: float | None = None,
    review_threshold: float | None = None,
    rules: str | os.PathLike[str] | None = None,
    roi: Roi | None = None,
) -> DecisionRule:
    """What decides on pictures: a calibration, or thresholds that somebody chose, and a file of rules.

    Raises:
        SettingsError: a value out of range.
    """
    check_threshold(threshold, (0.0, float("inf")))
    check_threshold(pixel_threshold, (0.0, float("inf")), "pixel_threshold")
    decides = threshold is not None or calibration is not None or pixel_threshold is not None
    if min_area is not None and not decides:
        raise SettingsError("min_area: needs a threshold, pixel_threshold or calibration: they say what is a defect")
    calibrated = None if calibration is None else calibration.regions
    verdicts, listed = chosen_verdicts(rules, review=review, threshold=threshold, review_threshold=review_threshold)
    decides = decides or verdicts.threshold is not None
    regions = chosen_regions("anomalous" if decides else None, pixel_threshold, min_area, calibrated)
    return DecisionRule(threshold, calibration, regions, verdicts=verdicts, rules=listed, roi=roi)


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Result):
    """What the model says of a picture, and what one does with that: draw it, save it, decide, hand it on.

    It has the attributes of :class:`winspect.Result`, and these:

    Attributes:
        rule: what decides on it; see :meth:`decide`.
        colours: values of the map at which colour starts and is strongest, or what finds them when a heat map is drawn;
            None for ``heat_range``, or else the map's median and maximum.
        read_picture: reads the picture again, where it can be read; None where it would have had to be kept.
    """

    rule: DecisionRule = field(default_factory=DecisionRule, repr=False)
    colours: ScoreRange | Callable[[], ScoreRange | None] | None = field(default=None, repr=False)
    read_picture: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, result: Result, **more: Any) -> Prediction:
        """The same result, with more attributes."""
        return cls(**({entry.name: getattr(result, entry.name) for entry in fields(result)} | more))

    def __repr__(self) -> str:
        outcome = f"error={str(self.error)!r}" if self.error is not None else f"anomaly_score={self.anomaly_score:.4f}"
        outcome += "" if self.verdict is None else f", verdict={self.verdict!r}"
        outcome += "" if self.warning is None else f", warning={self.warning!r}"
        return f"{type(self).__name__}({self.path!r}, {self.category_name!r}, {outcome})"

    # What was decided

    def decide(
        self,
        *,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        pixel_threshold: float | None = None,
        min_area: float | None = None,
        review: float | None = None,
        review_threshold: float | None = None,
        rules: str | os.PathLike[str] | None = None,
    ) -> Prediction:
        """The same result, decided on anew; what was decided before is dropped.

        Args:
            threshold: scores from here on are anomalous; replaces the calibration's.
            calibration: of :meth:`winspect.WinCLIP.calibrate`, with this model and class: scores above its threshold
                are anomalous, and it gives ``p_value``. That the model is this one is checked by ``predict`` alone.
            pixel_threshold: a defect's region has a map value above it; None for the calibration's, else for the
                region of the highest value alone.
            min_area: in pixels; smaller regions are no defects. None for a tenth of a patch.
            review: with a calibration: of good pictures at most this share is ``review`` or ``anomalous``.
            review_threshold: with a threshold: scores from here on are ``review``.
            rules: a TOML file of rules on defects; see :mod:`winspect.calibration.rules`.

        Raises:
            SettingsError: a value out of range, or a calibration for another class.
        """
        more: dict[str, Any] = {"review": review, "review_threshold": review_threshold, "rules": rules}
        more["roi"] = self.roi
        return self.decided_by(decision_rule(threshold, calibration, pixel_threshold, min_area, **more))

    def decided_by(self, rule: DecisionRule) -> Prediction:
        """The same result, decided on by a rule; errors as of :meth:`decide`."""
        check_class(rule.calibration, self)  # now, not when it is first looked at
        return replace(self, rule=rule)

    @cached_property
    def judgement(self) -> Judgement:
        """What was decided."""
        return self.rule.decide(self)

    @property
    def verdict(self) -> Verdict | None:
        """``normal``, ``review`` or ``anomalous``; None where nothing decides, or there is no score."""
        return self.judgement.verdict

    @property
    def reason(self) -> str | None:
        """Why, in words, where there is a verdict ``review`` or rules: ``region 2: area 14 mm2 > 5``."""
        return self.judgement.reason

    @property
    def threshold(self) -> float | None:
        """What the score was compared with; None where nothing decides."""
        return self.judgement.threshold

    @property
    def p_value(self) -> float | None:
        """1 / (n + 1) to 1, small is anomalous; None without a calibration."""
        return self.judgement.p_value

    @cached_property
    def boxes(self) -> Boxes | None:
        """Boxes of the defects, each with a score. A picture judged normal has none.

        None where nothing says which pixels are defects: give ``predict``, or :meth:`decide`, a threshold or a
        calibration. None also without a map.
        """
        defects = self.judgement.defects
        if defects is None:
            return None
        scores: list[float] = []
        heat = shrunk(self, working_size(self)).anomaly_map
        if defects.boxes and heat is not None:
            labels, count = label_regions(defects.cells)
            scores = [float(heat[labels == number].max()) for number in range(1, count + 1)]
        return Boxes(np.array(defects.boxes, np.int64).reshape(-1, 4), np.array(scores, np.float32))

    @property
    def mask(self) -> np.ndarray | None:
        """bool (height, width), at the picture's own size: True in a defect. None where :attr:`boxes` is None."""
        defects = self.judgement.defects
        return None if defects is None else defects.mask

    def keys(self) -> tuple[str, ...]:
        """The names that ``result[name]`` knows."""
        return (*super().keys(), "verdict", "reason", "threshold", "p_value", "boxes", "mask")

    # To look at

    def plot(self, picture: Any = None, *, longest: int | None = None) -> Image.Image:
        """Draw the heat map over the picture, with score, verdict and boxes of defects, and a bar of the colours.

        Args:
            picture: to draw on, in place of the one that was scored: anything that ``predict`` takes for one picture.
                Needed where the picture was neither kept (``keep_picture=True``) nor can be read again.
            longest: pixels of the longer side, at most; None for the picture's own size.

        Returns:
            RGB, uint8; ``numpy.asarray(...)`` makes (height, width, 3) of it. A picture of less than 120 x 60 pixels
            has no room for the score.

        Raises:
            PictureError: the picture could not be scored, or cannot be read any more.
            SettingsError: the picture was not kept, or it was scored without its map.
        """
        if self.error is not None:
            raise self.error
        if self.anomaly_map is None:
            raise SettingsError(f"{self.path}: scored without its map: predict with maps=True to see where")
        rgb = self.thumbnail(longest, picture)
        colours = (
            self._found_colours()
            or self.heat_range
            or heat_range(self.anomaly_map[slice(None) if self.inside is None else self.inside])
        )
        judged = replace(self.judgement, result=replace(self, picture_rgb=rgb))
        return Image.fromarray(overlay_of(judged, colours))

    def _found_colours(self) -> ScoreRange | None:
        return self.colours() if callable(self.colours) else self.colours

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "colours": self._found_colours()}  # what finds them holds the model

    def thumbnail(self, longest: int | None = None, picture: Any = None) -> np.ndarray:
        """The picture that was scored, read again where it was not kept: uint8 (height, width, 3), RGB.

        Args:
            longest, picture: as of :meth:`plot`, and so are the errors.
        """
        if picture is not None:
            rgb = read_rgb(picture_given(picture))
        elif self.picture_rgb is not None:
            rgb = self.picture_rgb
        elif self.read_picture is not None:
            rgb = self.read_picture()
        else:
            raise SettingsError(
                f"{self.path}: the picture was not kept; use predict(..., keep_picture=True), or plot(picture)"
            )
        if self.size_wh is not None and rgb.shape[1::-1] != self.size_wh:
            (width, height), (height_now, width_now) = self.size_wh, rgb.shape[:2]
            sizes = f"{width}x{height} pixels when it was scored, now {width_now}x{height_now}"
            raise PictureError(self.path, f"another picture ({sizes}): predict again")
        return rgb if longest is None else smaller_picture(rgb, longest)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save what :meth:`plot` draws, atomically; folders are made.

        Args:
            path: a file ending in .png, .jpg, .jpeg or .webp.

        Raises:
            OutputError: a folder, another ending, the picture itself, or a place that cannot be written.
            PictureError, SettingsError: as of :meth:`plot`.
        """
        target = Path(path)
        if target.is_dir():
            example = target / f"{Path(self.path).stem or 'heat'}.png"
            raise OutputError(f"{target}: this is a folder; name a file in it, such as {example}")
        options = _FORMATS.get(target.suffix.lower())
        if options is None:
            raise OutputError(f"{target}: need a name that ends in {', '.join(_FORMATS)}")
        if target.exists() and os.path.exists(self.path) and os.path.samefile(target, self.path):
            raise OutputError(f"{target}: this is the picture itself; choose another name")
        drawn = self.plot()
        make_folder(target.parent)
        write_file(target, _bytes_of(drawn, **options))
        return target

    def show(self) -> None:
        """Show what :meth:`plot` draws: in a notebook below the cell, else in the system's viewer of pictures.

        Raises:
            OutputError: there is no display; says what to use instead.
            PictureError, SettingsError: as of :meth:`plot`.
        """
        drawn = self.plot()
        if _in_notebook():
            importlib.import_module("IPython.display").display(drawn)
            return
        has_display = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if not has_display or not _open_viewer(drawn):
            raise OutputError(
                "no display here to show a picture on: use result.save('heat.png'), or in a notebook the result as the "
                "last line of a cell"
            )

    def _repr_png_(self) -> bytes | None:
        """For notebooks: what :meth:`plot` draws; None where it cannot be drawn."""
        try:
            return _bytes_of(self.plot(longest=_NOTEBOOK_SIDE), format="PNG")
        except (WinspectError, OSError):
            return None

    def _repr_html_(self) -> str:
        """For notebooks: the heat map with its path, class, score and verdict below; without a picture these alone."""
        try:
            uri = data_uri(self.plot(longest=_NOTEBOOK_SIDE), quality=90, fine_colour=True)
            image = f'<img src="{uri}" alt="heat map" style="max-width: 100%">'
        except (WinspectError, OSError) as error:
            image = "" if self.error is not None else f"<small>{html.escape(str(error))}</small>"
        return f"<figure style='margin: 0'>{image}<figcaption>{html.escape(self._caption())}</figcaption></figure>"

    def _caption(self) -> str:
        if self.error is not None:
            return f"failed: {self.error}"
        score = f"{self.path} · {self.category_name} · score {self.anomaly_score:.4f}"
        verdict = "" if self.verdict is None else f" · {self.verdict}"
        return score + verdict + (f" · warning: {self.warning}" if self.warning else "")

    # To hand on

    def to_dict(self) -> dict[str, Any]:
        """What was found, ready for ``json.dumps``: a row of ``predictions.jsonl``, and what boxes score.

        ``path``, ``class``, ``anomaly_score``, ``verdict``, ``threshold``, ``p_value``, ``boxes`` ([x0, y0, x1, y1]
        each; None where none were looked for), ``box_scores``, ``size_wh``, ``error`` ({type, message}), ``warning``.
        """
        row = row_of(self.judgement)
        del row["map"]
        scores = None if self.boxes is None else self.boxes.score.tolist()
        size = None if self.size_wh is None else [int(side) for side in self.size_wh]
        return {**row, "p_value": self.p_value, "box_scores": scores, "size_wh": size}

    def to_supervision(self) -> Any:
        """The defects as ``supervision.Detections``; needs the extra ``supervision``.

        ``xyxy`` float32 (n, 4); ``mask`` bool (n, height, width), one for each region; ``confidence`` float32 (n,), the
        scores of :attr:`boxes`, which are no probabilities and may exceed 1 with some recipes; ``class_id`` 0;
        ``data["class_name"]``: ``"candle defect"`` of class candle.

        Raises:
            MissingExtraError: supervision is not installed.
            PictureError: the picture could not be scored.
            SettingsError: nothing says which pixels are defects.
        """
        supervision = need("supervision", "supervision", job="to_supervision")
        if self.error is not None:
            raise self.error
        if self.boxes is None or self.mask is None:
            raise SettingsError(
                f"{self.path}: nothing says which pixels are defects: predict(..., threshold=...), or calibration=...; "
                "or decide(threshold=...)"
            )
        if not len(self.boxes):
            return supervision.Detections.empty()
        labels, count = label_regions(self.mask)
        return supervision.Detections(
            xyxy=self.boxes.xyxy.astype(np.float32),
            mask=np.stack([labels == number for number in range(1, count + 1)]),
            confidence=self.boxes.score,
            class_id=np.zeros(count, int),
            data={"class_name": np.array([f"{self.category_name} defect"] * count)},
        )


def _bytes_of(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _open_viewer(image: Image.Image) -> bool:
    """Open the system's viewer of pictures; returns whether there is one."""
    from PIL import ImageShow

    return ImageShow.show(image)
