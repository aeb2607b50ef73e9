"""A calibration: the scores of good pictures, what made them, and the decisions that follow. It lives in a file of its
own, outside the model and outside every exported graph, so that a decision can change without the model changing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from winspect.calibration.conformal import check_enough, conformal_threshold, p_value
from winspect.calibration.defects import Defects
from winspect.calibration.judgement import DecisionRule, Judgement
from winspect.calibration.regions import RegionRule
from winspect.errors import SettingsError
from winspect.methods.winclip.prompts import check_class_name, class_key
from winspect.methods.winclip.recipes import Recipe, all_settings
from winspect.system.files import replacing
from winspect.system.installation import is_installed

if TYPE_CHECKING:
    from winspect.methods.result import Result
    from winspect.pictures.fingerprints import Fingerprint

logger = logging.getLogger(__name__)

LeftOutBecause = Literal["unreadable", "reference", "copy"]
MADE_BY = (
    "model",
    "weights_sha256",
    "activation",
    "recipe",
    "prompts_sha256",
    "precision",
    "engine",
    "device",
    "class",
    "references",
)
"""What decides a score, and is compared before a calibration is used."""
SINCE_LATER = ("activation",)
"""Of these, what calibrations and bundles of earlier releases do not say, and is not compared then."""
BIT_DEPTH = "bit_depth"
"""Compared as well; no entry where the values are of their whole range, which is the rule."""
_ROUNDING_ONLY = ("engine", "device")


class Described(Protocol):
    """A model as far as a calibration knows it."""

    def describe(self) -> dict[str, Any]:
        """What decides the scores."""

    def references_of(self, category_name: str) -> tuple[Fingerprint, ...]:
        """Names and hashes of a class's good samples."""


def made_by(model: Described, category_name: str) -> dict[str, Any]:
    """What decides the scores of a class, as JSON has it; the keys are :data:`MADE_BY`."""
    described = model.describe()
    prompts = json.dumps(described["prompts"], sort_keys=True)
    references = [
        {"name": Path(shown.path).name, "sha256": shown.sha256} for shown in model.references_of(category_name)
    ]
    identity = {
        **described,
        "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        "class": check_class_name(category_name),
        "references": references,
    }
    said = [name for name in (*MADE_BY, BIT_DEPTH) if name in identity or name not in (*SINCE_LATER, BIT_DEPTH)]
    return json.loads(json.dumps({name: identity[name] for name in said}))


@dataclass(frozen=True)
class LeftOut:
    """A picture that was given and not used.

    Attributes:
        because: ``unreadable``; ``reference``, which the model has seen; or ``copy`` of a picture that is used, which
            would count one part twice.
        message: the reason in words.
    """

    path: str
    because: LeftOutBecause
    message: str


@dataclass(frozen=True)
class HeldOut:
    """A check on further good pictures.

    Attributes:
        pictures: how many; ``alarms``: how many of them are flagged.
        chance: of as many alarms or more, if these pictures are like those calibrated on; 0 to 1, small is bad.
    """

    pictures: int
    alarms: int
    chance: float


@dataclass(frozen=True)
class Defective:
    """What labelled defective pictures say.

    Attributes:
        pictures: how many; ``found``: how many of them the calibrated threshold flags.
        f1: the largest F1 of these and the good pictures, 0 to 1; ``f1_threshold``: where it is reached.
    """

    pictures: int
    found: int
    f1: float
    f1_threshold: float


@dataclass(frozen=True)
class Calibration:
    """Decisions with a guarantee, made from good pictures alone: see :mod:`winspect.calibration.conformal`.

    Attributes:
        made_by: what decides the scores; see :data:`MADE_BY`.
        max_false_alarms: at most this share of new good pictures is flagged.
        scores: of the good pictures, ascending.
        map_maxima: the largest value of each one's map, ascending; None when calibrated on scores alone.
        left_out: pictures that were given and not used.
        held_out, defective: what further labelled pictures said, if there were any.
        date: ISO 8601, UTC. ``winspect``: the release that made it.

    Raises:
        SettingsError: too few scores for the rate, or scores that are not finite, ascending numbers.
    """

    made_by: Mapping[str, Any]
    max_false_alarms: float
    scores: tuple[float, ...] = field(repr=False)
    map_maxima: tuple[float, ...] | None = field(repr=False)
    date: str
    winspect: str
    left_out: tuple[LeftOut, ...] = ()
    held_out: HeldOut | None = None
    defective: Defective | None = None

    def __post_init__(self) -> None:
        _check_scores("scores", self.scores)
        check_enough(len(self.scores), self.max_false_alarms)
        if self.map_maxima is not None:
            _check_scores("map_maxima", self.map_maxima)
            if len(self.map_maxima) != len(self.scores):
                raise SettingsError(f"got {len(self.map_maxima)} map_maxima for {len(self.scores)} scores")

    @property
    def class_name(self) -> str:
        """The class it decides on, as it stands in prompts."""
        return self.made_by["class"]

    @property
    def pictures(self) -> int:
        """How many good pictures it was made from."""
        return len(self.scores)

    @property
    def threshold(self) -> float:
        """A picture whose score lies above it is flagged."""
        return conformal_threshold(self.scores, self.max_false_alarms)

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
        return (
            f"{type(self).__name__}({self.class_name!r}: anomalous above {self.threshold:.4g}{pixels}, at most "
            f"{self.max_false_alarms:g} false alarms, {len(self.scores)} good pictures, {self.date})"
        )

    def p_value(self, score: float) -> float:
        """See :func:`winspect.calibration.conformal.p_value`."""
        return p_value(score, self.scores)

    def decide(self, result: Result) -> Judgement:
        """Verdict and p-value of a result. That the model is the right one is :meth:`check_model`'s to say.

        Raises:
            SettingsError: the result is of another class.
        """
        return DecisionRule(calibration=self).decide(result)

    def defects(self, result: Result, rule: RegionRule | None = None) -> Defects | None:
        """The regions of a result, their boxes and mask; None for a picture that could not be judged.

        A picture judged normal has none, an anomalous one has at least that of its highest value.

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
            given: arguments that somebody chose. They stand, ``auto`` apart, and are :meth:`check_model`'s to refuse.
        """
        autos = [name for name in ("precision", "engine", "device") if given.get(name) == "auto"]
        chosen = {name: value for name, value in given.items() if name not in autos and value is not None}
        made_with = {"precision": self.made_by["precision"]}
        if not {"recipe", "settings"} & chosen.keys():
            made_with["recipe"] = Recipe(**all_settings(self.made_by["recipe"]))
        # In fp32 another engine or device rounds alike; one that is not here is done without.
        is_here = self.made_by["device"] == "cpu" and is_installed(self.made_by["engine"])
        same_device = str(chosen.get("device", self.made_by["device"])).partition(":")[0] == self.made_by["device"]
        if same_device and (is_here or made_with["precision"] != "fp32"):
            made_with |= {name: self.made_by[name] for name in _ROUNDING_ONLY}
        return {**made_with, **chosen}

    def check_model(self, model: Described, category_name: str | None = None) -> None:
        """Refuse a model whose scores are not those calibrated on: other weights, recipe, precision, references.

        Engine and device are arithmetic in another order. In fp32 they agree within 1e-5, which is noted in the log; in
        other precisions each rounds in its own way, and another one is refused.

        Args:
            model: what is to judge.
            category_name: the class it is to judge; None for the calibration's.

        Raises:
            SettingsError: names each difference with both values.
        """
        theirs = made_by(model, self.class_name if category_name is None else category_name)
        said = [name for name in MADE_BY if name in self.made_by and name in theirs] + [BIT_DEPTH]
        different = [name for name in said if _comparable(name, self.made_by) != _comparable(name, theirs)]
        rounding = [name for name in different if name in _ROUNDING_ONLY and theirs["precision"] == "fp32"]
        told = [
            _difference(name, self.made_by.get(name), theirs.get(name)) for name in different if name not in rounding
        ]
        if told:
            raise SettingsError(
                f"the calibration was made with something else: {'; '.join(told)}. Use what it was made with, or "
                "calibrate again"
            )
        if rounding:
            told = [_difference(name, self.made_by.get(name), theirs.get(name)) for name in rounding]
            logger.warning("%s: in fp32 scores agree within 1e-5, verdicts that close may differ", "; ".join(told))

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        from winspect.calibration.file import to_document

        text = json.dumps(to_document(self), indent=1, ensure_ascii=False, allow_nan=False)
        with replacing(Path(path)) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            SettingsError: no such file, or it is damaged, foreign, or of a newer release; names file and entry.
        """
        from winspect.calibration.file import read

        return read(Path(path))


def _check_scores(name: str, scores: Sequence[float]) -> None:
    for number in scores:
        if not (type(number) in (int, float) and math.isfinite(number)):
            raise SettingsError(f"{name}: got {number!r}, need finite numbers")
    if list(scores) != sorted(scores):
        raise SettingsError(f"{name}: need ascending numbers")


def _comparable(name: str, identity: Mapping[str, Any]) -> Any:
    """References are a set of contents: neither their order nor their names decide a score. Settings that an earlier
    release did not know are as it judged. A class is the same however it is typed."""
    if name == "class":
        return class_key(identity[name])
    if name == "references":
        return sorted(str(reference["sha256"]) for reference in identity[name])
    return all_settings(identity[name]) if name == "recipe" else identity.get(name)


def _difference(name: str, ours: Any, theirs: Any) -> str:
    if name == "references":
        return f"references: calibrated with {_names(ours)}, now {_names(theirs)}"
    if name == "recipe":
        ours, theirs = all_settings(ours), all_settings(theirs)
        changed = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        ours, theirs = ({key: recipe.get(key) for key in changed} for recipe in (ours, theirs))
    return f"{name}: calibrated with {ours!r}, now {theirs!r}"


def _names(references: Sequence[Mapping[str, Any]], most: int = 4) -> str:
    if not references:
        return "none (zero-shot)"
    shown = [f"{reference['name']} ({str(reference['sha256'])[:8]})" for reference in references[:most]]
    return ", ".join(shown) + (f" and {len(references) - most} more" if len(references) > most else "")
