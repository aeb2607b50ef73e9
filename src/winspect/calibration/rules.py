"""Rules on the defects of a picture: the tables ``[[rules]]``.

```toml
[[rules]]
name = "dust"
area = "< 5 mm2"
then = "ignore"
```

Each defect takes what the first rule says whose conditions it meets, or else the verdict of the picture's score; the
picture takes the gravest of its defects. So a rule that ignores small defects makes a picture normal that has no
others. A rule never makes a picture graver than its score does, unless it says ``raises = true``: see
:mod:`winspect.calibration.judgement` for what that costs.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from winspect.calibration.measures import Measured
from winspect.calibration.verdicts import is_number, table
from winspect.errors import SettingsError

Then = Literal["ignore", "review", "anomalous"]
_THEN = ("ignore", "review", "anomalous")
_UNITS = {"area": ("px", "mm2"), "length": ("px", "mm"), "aspect": (), "peak": (), "count": ()}
_EXAMPLES = {"area": "> 5 mm2", "length": "> 3 mm", "aspect": "> 4", "peak": "> 0.8", "count": ">= 3"}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*(\S+?)\s*(px|mm2|mm²|mm)?\s*", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """A bound of a measure, as in ``area = "> 5 mm2"``.

    Attributes:
        measure: ``area``; ``length``, the longer side of the smallest rectangle around the defect, turned as it lies;
            ``aspect``, that side over the shorter; ``peak``, the largest value of the map; ``count``, how many defects
            meet the rule's other conditions.
        unit: ``px`` or ``mm`` of a length, ``px`` or ``mm2`` of an area; empty for what has none.
    """

    measure: str
    comparison: str
    bound: float
    unit: str = ""

    @classmethod
    def read(cls, measure: str, text: object) -> Condition:
        """A condition as it is written.

        Raises:
            SettingsError: it is none, its number is not finite, or it lacks the unit.
        """
        units, example = _UNITS[measure], _EXAMPLES[measure]
        found = _CONDITION.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise SettingsError(f"{measure}: got {text!r}, need a bound in quotes, such as {example!r}")
        comparison, digits, unit = found[1], found[2], (found[3] or "").replace("²", "2")
        try:
            bound = float(digits)
        except ValueError:
            bound = float("nan")
        if not (is_number(bound) and bound >= 0):
            raise SettingsError(f"{measure}: got {text!r}, need a finite number of 0 or more, such as {example!r}")
        if unit not in (units or ("",)):
            need = f"the unit {' or '.join(units)}" if units else "no unit"
            raise SettingsError(f"{measure}: got {text!r}, need {need}, such as {example!r}")
        return cls(measure, comparison, bound, unit)

    def __str__(self) -> str:
        return f"{self.comparison} {self.bound:.15g}{self.unit and f' {self.unit}'}"

    def holds(self, value: float) -> bool:
        """Whether a measure, in the condition's unit, meets it. What is not a number meets nothing."""
        return _COMPARISONS[self.comparison](value, self.bound)

    def in_words(self, value: float) -> str:
        """A measure beside its bound.

        >>> Condition("area", ">", 5.0, "mm2").in_words(14.0)
        'area 14 mm2 > 5'
        """
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.measure} {_short(value)}{unit} {self.comparison} {self.bound:.15g}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Rule:
    """What follows for defects that meet all conditions.

    Attributes:
        then: ``ignore``: they are none, and have no box; ``review`` or ``anomalous``: the verdict on them.
        conditions: on each defect. ``count``: on how many of them meet these.
        roi: a part of the ROI by name, in which the defect's highest place lies; None for anywhere.
        inside: x0, y0, x1, y1 in pixels of the picture, the last two exclusive, in which it lies; None for anywhere.
        raises: also pictures whose score says less get this verdict.
        name: in the reason of a verdict.

    Raises:
        SettingsError: a value that cannot be, or no condition at all.
    """

    then: Then
    conditions: tuple[Condition, ...] = ()
    count: tuple[Condition, ...] = ()
    roi: str | None = None
    inside: tuple[float, float, float, float] | None = None
    raises: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.then not in _THEN:
            raise SettingsError(f"then: got {self.then!r}, need one of {', '.join(_THEN)}")
        if not isinstance(self.raises, bool):
            raise SettingsError(f"raises: got {self.raises!r}, need true or false")
        if self.raises and self.then == "ignore":
            raise SettingsError("raises: got true beside then = 'ignore', which can raise nothing; leave it out")
        for name in ("roi", "name"):
            value = getattr(self, name)
            if not (value is None or (isinstance(value, str) and value.strip())):
                raise SettingsError(f"{name}: got {value!r}, need a text")
        if self.inside is not None and not _is_rectangle(self.inside):
            raise SettingsError(
                f"inside: got {self.inside!r}, need [x0, y0, x1, y1] in pixels with x0 < x1 and y0 < y1, such as "
                "[0, 0, 100, 50]"
            )
        if not (self.conditions or self.count or self.roi or self.inside):
            raise SettingsError(f"got no condition, need one of {', '.join((*_UNITS, 'roi', 'inside'))}")

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Rule:
        """A rule from a table. Each of ``area``, ``length``, ``aspect``, ``peak`` and ``count`` is a bound, or a list.

        Raises:
            SettingsError: an unknown key, no ``then``, or a value that cannot be.
        """
        known = ["name", *_UNITS, "roi", "inside", "then", "raises"]
        values = dict(table("the rule", document, known))
        if "then" not in values:
            raise SettingsError(f"got no then, need one of {', '.join(_THEN)}")
        bounds = {
            measure: tuple(
                Condition.read(measure, text) for text in (given if isinstance(given, list | tuple) else [given])
            )
            for measure in _UNITS
            if (given := values.pop(measure, None)) is not None
        }
        count = bounds.pop("count", ())
        if isinstance(values.get("inside"), list):
            values["inside"] = tuple(values["inside"])
        return cls(conditions=tuple(each for group in bounds.values() for each in group), count=count, **values)

    def document(self) -> dict[str, Any]:
        """The JSON and TOML form; what is at its default is left out."""
        bounds: dict[str, list[str]] = {}
        for condition in (*self.conditions, *self.count):
            bounds.setdefault(condition.measure, []).append(str(condition))
        return {
            **({} if self.name is None else {"name": self.name}),
            **{measure: texts[0] if len(texts) == 1 else texts for measure, texts in bounds.items()},
            **({} if self.roi is None else {"roi": self.roi}),
            **({} if self.inside is None else {"inside": list(self.inside)}),
            "then": self.then,
            **({"raises": True} if self.raises else {}),
        }

    def meets(self, defect: Measured, mm_per_pixel: float | None) -> bool:
        """Whether a defect meets the conditions, but for the count."""
        x, y = defect.peak_xy
        if self.roi is not None and self.roi not in defect.parts:
            return False
        if self.inside is not None and not (
            self.inside[0] <= x < self.inside[2] and self.inside[1] <= y < self.inside[3]
        ):
            return False
        return all(each.holds(_value(each, defect, mm_per_pixel)) for each in self.conditions)

    def reason(self, defect: Measured, mm_per_pixel: float | None, count: int) -> str:
        """What of the defect met the rule, in words: ``area 14 mm2 > 5``."""
        words = [each.in_words(_value(each, defect, mm_per_pixel)) for each in self.conditions]
        words += [each.in_words(count) for each in self.count]
        words += [] if self.roi is None else [f"in {self.roi}"]
        words += [] if self.inside is None else ["inside " + ", ".join(f"{edge:.15g}" for edge in self.inside)]
        return f"{self.name}: {', '.join(words)}" if self.name else ", ".join(words)


def _is_rectangle(inside: object) -> bool:
    if not (isinstance(inside, tuple) and len(inside) == 4 and all(is_number(edge) for edge in inside)):
        return False
    x0, y0, x1, y1 = inside
    return bool(x0 < x1 and y0 < y1)


def _value(condition: Condition, defect: Measured, mm_per_pixel: float | None) -> float:
    """A defect's measure in the condition's unit."""
    value: float = getattr(defect, condition.measure)
    if condition.unit not in ("mm", "mm2"):
        return value
    assert mm_per_pixel is not None  # checked with the rules
    return value * mm_per_pixel ** (2 if condition.unit == "mm2" else 1)


@dataclass(frozen=True)
class Ruled:
    """What follows for a defect.

    Attributes:
        then, raises: of the rule it met. ``reason``: in words.
    """

    then: Then
    raises: bool
    reason: str


@dataclass(frozen=True)
class Rules(Sequence[Rule]):
    """The rules on the defects of a picture, in order: the first that a defect meets decides on it."""

    items: tuple[Rule, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    @classmethod
    def read(cls, tables: Sequence[Mapping[str, Any]]) -> Rules:
        """The rules of ``[[rules]]``.

        Raises:
            SettingsError: names the rule by its number or name, and the key.
        """
        if isinstance(tables, str | Mapping) or not isinstance(tables, Sequence):
            raise SettingsError(f"rules: got {tables!r}, need tables [[rules]]")
        return cls(tuple(_read_rule(number, document) for number, document in enumerate(tables, start=1)))

    def document(self) -> list[dict[str, Any]]:
        """The tables, as JSON and TOML have them."""
        return [rule.document() for rule in self.items]

    @property
    def raises(self) -> bool:
        """Whether a rule can make a picture graver than its score does."""
        return any(rule.raises for rule in self.items)

    def apply(self, defects: Sequence[Measured], mm_per_pixel: float | None) -> list[Ruled | None]:
        """What the rules say of each defect; None where no rule is met, so that the score's verdict holds."""
        ruled: list[Ruled | None] = [None] * len(defects)
        for rule in self.items:
            met = [
                number
                for number, defect in enumerate(defects)
                if ruled[number] is None and rule.meets(defect, mm_per_pixel)
            ]
            if all(condition.holds(len(met)) for condition in rule.count):
                for number in met:
                    reason = rule.reason(defects[number], mm_per_pixel, len(met))
                    ruled[number] = Ruled(rule.then, rule.raises, reason)
        return ruled

    def check(self, mm_per_pixel: float | None, parts: Collection[str] = ()) -> None:
        """Refuse a length in mm without a scale, and a part that the ROI has not.

        Args:
            parts: names of the ROI's parts.

        Raises:
            SettingsError: names the rule.
        """
        for number, rule in enumerate(self.items, start=1):
            place = f"rules: {rule.name or number}"
            for condition in rule.conditions:
                if mm_per_pixel is None and condition.unit in ("mm", "mm2"):
                    raise SettingsError(
                        f'{place}: {condition.measure}: got "{condition}" without a scale; set mm_per_pixel in '
                        "[verdict], or count in px"
                    )
            check_part(place, rule.roi, parts)


def check_part(place: str, name: str | None, parts: Collection[str]) -> None:
    """Refuse a part that the ROI has not. Raises SettingsError."""
    if name is not None and name not in parts:
        known = f"its named parts are {', '.join(sorted(parts))}" if parts else "there is no ROI with named parts"
        raise SettingsError(f"{place}: roi: got {name!r}, but {known}; correct the name, or name a part of the ROI so")


def _read_rule(number: int, document: object) -> Rule:
    name = document.get("name") if isinstance(document, Mapping) else None
    try:
        return Rule.read(document)  # type: ignore[arg-type]
    except SettingsError as error:
        raise SettingsError(f"rules: {name or number}: {error}") from error
