"""Calibrations: scores of good pictures, the identity of what made them, and the decisions that follow.

A calibration is a file beside the model, not part of a graph, so that decisions can change without the model changing.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.calibration.conformal import check_enough, conformal_threshold, p_value
from winspect.calibration.defects import Defects
from winspect.calibration.file import KIND, SCHEMA, read_file
from winspect.calibration.findings import Defective, Finding, HeldOut, LeftOut, read_finding
from winspect.calibration.judgement import DecisionRule, Judgement
from winspect.calibration.regions import RegionRule
from winspect.calibration.verdicts import Verdicts, check_above
from winspect.errors import SettingsError
from winspect.methods.identity import Identified, Identity, written_by
from winspect.system.entries import entry
from winspect.system.files import replacing
from winspect.system.installation import is_installed

if TYPE_CHECKING:
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)

_DERIVED = ("pictures", "threshold", "pixel_threshold")
_REVIEW = ("review", "review_threshold")
_IDENTITY = (
    *("model", "weights_sha256", "activation", "recipe", "prompts_sha256", "precision", "engine", "device", "class"),
    *("references", "bit_depth", "roi", "alignment"),
)


@dataclass(frozen=True)
class Calibration:
    """Decisions with a guarantee, made from good pictures alone: see :mod:`winspect.calibration.conformal`.

    Attributes:
        identity: what decides the scores of the class; its ``release`` is the one that made the calibration.
        max_false_alarms: at most this share of new good pictures is flagged.
        scores: of the good pictures, ascending.
        map_maxima: largest value of each picture's map, ascending; None when calibrated on scores alone.
        left_out: pictures that were given and not used.
        held_out, defective: results on further labelled pictures, if there were any.
        date: ISO 8601, UTC.
        area_maxima: the largest value of each picture's map in the named areas of the region of interest, ascending;
            empty without such areas, and when calibrated on scores alone.
        review: at most this share of new good pictures is ``review`` or ``anomalous``; None for two verdicts. Another
            rate can be asked for later: see :meth:`decide`.

    Raises:
        SettingsError: too few scores for the rate, a review rate that is not above it, or scores that are not finite,
            ascending numbers.
    """

    identity: Identity
    max_false_alarms: float
    scores: tuple[float, ...] = field(repr=False)
    map_maxima: tuple[float, ...] | None = field(repr=False)
    date: str
    left_out: tuple[LeftOut, ...] = ()
    held_out: HeldOut | None = None
    defective: Defective | None = None
    review: float | None = None
    area_maxima: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.identity.class_name is None:
            raise SettingsError("a calibration needs the identity of a class")
        _check_scores("scores", self.scores)
        check_enough(len(self.scores), self.max_false_alarms)
        check_above(self.review, self.max_false_alarms)
        for name, maxima in self.area_maxima.items():
            _check_scores(f"area_maxima: {name}", maxima)
            if len(maxima) != len(self.scores):
                raise SettingsError(f"got {len(maxima)} area_maxima of {name!r} for {len(self.scores)} scores")
        if self.map_maxima is not None:
            _check_scores("map_maxima", self.map_maxima)
            if len(self.map_maxima) != len(self.scores):
                raise SettingsError(f"got {len(self.map_maxima)} map_maxima for {len(self.scores)} scores")

    @property
    def class_name(self) -> str:
        """The class it decides on, as it stands in prompts."""
        assert self.identity.class_name is not None  # checked when it was built
        return self.identity.class_name

    @property
    def pictures(self) -> int:
        """How many good pictures it was made from."""
        return len(self.scores)

    @property
    def threshold(self) -> float:
        """A picture whose score lies above it is flagged."""
        return conformal_threshold(self.scores, self.max_false_alarms)

    @property
    def review_threshold(self) -> float | None:
        """A picture whose score lies above it, and not above ``threshold``, is ``review``; None for two verdicts."""
        return None if self.review is None else conformal_threshold(self.scores, self.review)

    @property
    def pixel_threshold(self) -> float | None:
        """A region's peak lies above it: at most ``max_false_alarms`` of good pictures have any such place."""
        return None if self.map_maxima is None else conformal_threshold(self.map_maxima, self.max_false_alarms)

    @property
    def regions(self) -> RegionRule | None:
        """Which defects get boxes; None when calibrated on scores alone."""
        return None if self.pixel_threshold is None else RegionRule(self.pixel_threshold)

    def __repr__(self) -> str:
        pixels = "" if self.pixel_threshold is None else f", pixels above {self.pixel_threshold:.4g}"
        pixels += "" if self.review is None else f", review above {self.review_threshold:.4g}"
        return (
            f"{type(self).__name__}({self.class_name!r}: anomalous above {self.threshold:.4g}{pixels}, at most "
            f"{self.max_false_alarms:g} false alarms, {len(self.scores)} good pictures, {self.date})"
        )

    def p_value(self, score: float) -> float:
        """See :func:`winspect.calibration.conformal.p_value`."""
        return p_value(score, self.scores)

    def decide(self, result: Result, *, review: float | None = None) -> Judgement:
        """Verdict and p-value of a result. Whether the model is the right one is checked by :meth:`check_model`.

        Args:
            review: of good pictures at most this share is ``review`` or ``anomalous``; None for the calibration's own.

        Raises:
            SettingsError: the result is of another class, or a rate that is not above ``max_false_alarms``.
        """
        return DecisionRule(calibration=self, verdicts=Verdicts(review)).decide(result)

    def defects(self, result: Result, rule: RegionRule | None = None) -> Defects | None:
        """The regions of a result, their boxes and mask; None for a picture that could not be scored.

        A normal picture has none, an anomalous picture at least the region of its highest value.

        Args:
            rule: other regions than those of this calibration's pixel threshold; see :class:`RegionRule`.

        Raises:
            SettingsError: the calibration was made on scores alone, or the result has no map.
        """
        rule = rule or self.regions
        if rule is None:
            raise SettingsError("this calibration was made on scores alone: calibrate with maps to find pixels")
        if result.error is not None:
            return None
        if result.tile_maps is None:
            raise SettingsError(f"{result.path}: predicted without its map; predict with maps to find pixels")
        return DecisionRule(calibration=self, regions=rule).decide(result).defects

    def model_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of :class:`winspect.WinCLIP` to score as calibrated: recipe, precision, engine, device.

        Args:
            given: arguments that somebody chose. They are kept, but for ``auto``; :meth:`check_model` may refuse them.
        """
        autos = [name for name in ("precision", "engine", "device") if given.get(name) == "auto"]
        chosen = {name: value for name, value in given.items() if name not in autos and value is not None}
        made = self.identity
        made_with: dict[str, Any] = {"precision": made.precision}
        if not {"recipe", "settings"} & chosen.keys():
            made_with["recipe"] = made.recipe
        # In fp32 another engine or device rounds alike: an engine that is not installed here is not asked for.
        is_here = made.device == "cpu" and is_installed(made.engine)
        same_device = str(chosen.get("device", made.device)).partition(":")[0] == made.device
        if same_device and (is_here or made.precision != "fp32"):
            made_with |= {"engine": made.engine, "device": made.device}
        return {**made_with, **chosen}

    def check_model(self, model: Identified, category_name: str | None = None) -> None:
        """Refuse a model whose scores are not those calibrated on; see :meth:`check`.

        Args:
            model: what is to inspect.
            category_name: the class it is to inspect; None for the calibration's.
        """
        self.check(model.identity(self.class_name if category_name is None else category_name))

    def check(self, identity: Identity) -> None:
        """Refuse an identity other than that calibrated with: other weights, recipe, precision, references.

        Engine and device are arithmetic in another order. In fp32 they agree within 1e-5, which is logged; in other
        precisions each rounds differently, and another engine or device is refused.

        Raises:
            SettingsError: names each difference with both values.
        """
        different = self.identity.differences(identity, ignore=("winspect", "weights"))
        rounding, deciding = (
            "; ".join(each.in_words("{name}: calibrated with {first}, now {second}") for each in kind)
            for kind in ([d for d in different if d.is_rounding], [d for d in different if not d.is_rounding])
        )
        if deciding:
            raise SettingsError(
                f"the calibration was made with something else: {deciding}. Use what it was made with"
                f"{self._samples_to_show(identity)}, or calibrate again"
            )
        if rounding:
            logger.warning("%s: in fp32 scores agree within 1e-5, verdicts that close may differ", rounding)

    def _samples_to_show(self, identity: Identity) -> str:
        """How to come to the calibration's good samples, where the first of those shown are these, or none are."""
        made, now = ([sample.sha256 for sample in each.references] for each in (self.identity, identity))
        if not made or made == now or now[: len(made)] != made[: len(now)]:
            return ""
        return f": its good samples, the first {len(made)} (--reference, --shots {len(made)})"

    def document(self) -> dict[str, Any]:
        """The calibration as JSON has it. The thresholds follow from the scores, and stand there for the reader."""
        entries = self.identity.entries()
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "winspect": self.identity.release,
            "date": self.date,
            **{name: entries[name] for name in _IDENTITY if name in entries},
            "max_false_alarms": self.max_false_alarms,
            **{name: getattr(self, name) for name in _DERIVED},
            **({} if self.review is None else {name: getattr(self, name) for name in _REVIEW}),
            "held_out": self.held_out and asdict(self.held_out),
            "defective": self.defective and asdict(self.defective),
            "left_out": [asdict(left_out) for left_out in self.left_out],
            "scores": list(self.scores),
            "map_maxima": None if self.map_maxima is None else list(self.map_maxima),
            **(
                {"area_maxima": {name: [*maxima] for name, maxima in self.area_maxima.items()}}
                if self.area_maxima
                else {}
            ),
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Calibration:
        """The inverse of :meth:`document`.

        Raises:
            SettingsError: an entry is missing, or is not what it should be. On a document of another release it names
                both.
        """
        try:
            return cls._read(document)
        except (SettingsError, TypeError, ValueError, OverflowError) as error:
            raise SettingsError(f"damaged calibration: {error}; calibrate again{written_by(document)}") from error

    @classmethod
    def _read(cls, document: Mapping[str, Any]) -> Calibration:
        def maybe(kind: Callable[..., Finding], name: str) -> Finding | None:
            return None if (finding := entry(document, name, object)) is None else read_finding(kind, finding)

        entry(document, "class", str)
        maxima = entry(document, "map_maxima", object)
        calibration = cls(
            identity=replace(Identity.read(document), release=entry(document, "winspect", str)),
            max_false_alarms=entry(document, "max_false_alarms", float),
            scores=tuple(entry(document, "scores", list)),
            map_maxima=None if maxima is None else tuple(entry(document, "map_maxima", list)),
            date=entry(document, "date", str),
            left_out=tuple(read_finding(LeftOut, finding) for finding in entry(document, "left_out", list)),
            held_out=maybe(HeldOut, "held_out"),
            defective=maybe(Defective, "defective"),
            review=entry(document, "review", float) if "review" in document else None,
            area_maxima={
                name: tuple(entry(document["area_maxima"], name, list))
                for name in (entry(document, "area_maxima", dict) if "area_maxima" in document else ())
            },
        )
        for name in (*_DERIVED, *(_REVIEW if "review" in document else ())):
            if entry(document, name, object) != (value := getattr(calibration, name)):
                raise SettingsError(f"{name} is {document[name]!r}, but {value!r} follows from scores and rate")
        return calibration

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, atomically.

        Raises:
            OutputError: the file cannot be written.
        """
        text = json.dumps(self.document(), indent=1, ensure_ascii=False, allow_nan=False)
        with replacing(Path(path)) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # names that are no UTF-8

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            SettingsError: no such file, or it is damaged, foreign, or of a newer release; names file and entry.
        """
        document = read_file(Path(path))
        try:
            return cls.read(document)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error


def _check_scores(name: str, scores: Sequence[float]) -> None:
    for number in scores:
        if not (type(number) in (int, float) and math.isfinite(number)):
            raise SettingsError(f"{name}: got {number!r}, need finite numbers")
    if list(scores) != sorted(scores):
        raise SettingsError(f"{name}: need ascending numbers")
