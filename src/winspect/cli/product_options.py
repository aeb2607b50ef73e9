"""``--product``: fills in the options that a product decides, and refuses those that contradict it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.calibration.judgement import ProductRevision
    from winspect.product.document import Product

_SCORING = ("weights", "recipe", "settings", "precision", "engine", "prompts", "bit_depth")
_MODEL = ("model", *_SCORING, "roi", "align")
# What a product leaves open, a run may choose.
_OF_SERVICE = ("review", "threshold", "review_threshold", "rules", "drift", "audit_rate", "deliver")
_FREE_WHERE_OPEN = ("precision", "engine", "drift", "audit_rate", "deliver", "threshold")
_CLASS = ("category_name", "class_name", "categories", "classes")
_DECIDING = ("threshold", "pixel_threshold")
_FLAGS = {"settings": "--set", **dict.fromkeys(_CLASS, "--class")}


def use_product(args: argparse.Namespace, *, model_only: bool = False, calibrating: bool = False) -> None:
    """Take the options of a run from ``--product``, or from the product in ``--bundle``; without either do nothing.

    Afterwards ``args.product_used`` is the product, or None.

    Args:
        model_only: what scores, and the class; good samples and calibrations are the verb's own.
        calibrating: the calibration is about to be made.

    Raises:
        SettingsError: the product has changed since it was recorded, or an option contradicts it; names both values.
        BundleError: a packed product is damaged, or is none.
    """
    args.product_used = None
    bundle = getattr(args, "bundle", None)
    if args.product is not None and bundle is not None:
        raise SettingsError(f"got --product {args.product} and --bundle {bundle}: leave one of them out")
    place = args.product or bundle
    if place is None:
        return
    from winspect.product.packing import is_packed, may_hold_product

    if bundle is not None and not may_hold_product(bundle):
        return
    if is_packed(place):
        _use_packed(args, place)
    else:
        from winspect.product.file import load_product

        product = load_product(place)
        _Options(args, product).take(_values(product, calibrating=calibrating), model_only=model_only)
        args.product_used = product


def use_products(args: argparse.Namespace) -> list[Product]:
    """Take the options of a service from the products of ``--product``: a class each, scored by one model.

    Returns:
        The products; none where none is named.

    Raises:
        SettingsError: as of :func:`use_product`; or two products have one name or class, or need different models or
            settings of the service.
    """
    args.product_used = None
    if not args.product:
        return []
    from winspect.product.file import load_product
    from winspect.product.packing import is_packed

    products: list[Product] = []
    for place in args.product:
        if is_packed(place):
            raise SettingsError(f"{place}: a packed product only inspects; a service needs the product's TOML file")
        products.append(load_product(place))
    first = products[0]
    values = _values(first)
    for number, other in enumerate(products[1:], 1):
        _check_beside(products[:number], other, values, _values(other))
    if args.reference or args.calibration:
        name = "reference" if args.reference else "calibration"
        raise SettingsError(f"--{name}: {first.title} ({first.path}) brings its own; leave --{name} out")
    per_class = ("reference", "shots", "calibration", *_CLASS)
    _Options(args, first).take({name: value for name, value in values.items() if name not in per_class})
    names = [product.class_name for product in products]
    if args.classes and _keys(args.classes) != _keys(names):
        raise SettingsError(f"--class {' '.join(args.classes)}: the products serve {', '.join(names)}; leave it out")
    args.classes, args.product_used = names, first
    args.calibration = [product.place(product.calibration) for product in products if product.calibration is not None]
    return products


def _check_beside(
    others: Sequence[Product], product: Product, values: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    """Refuse a product that one service cannot serve beside others."""
    for other in others:
        for what, first, second in (
            ("name", other.name.casefold(), product.name.casefold()),
            ("class", _keys([other.class_name]), _keys([product.class_name])),
        ):
            if first == second:
                raise SettingsError(f"{other.path} and {product.path} have the same {what}: serve them apart")
    for name in (*_MODEL, *_OF_SERVICE):
        if values[name] != here[name]:
            raise SettingsError(
                f"{others[0].path} and {product.path} need different {name} ({_words(values[name])} and "
                f"{_words(here[name])}): one service has one of them; serve them apart"
            )


def _keys(names: Sequence[str]) -> list[str]:
    from winspect.methods.winclip.prompts import class_key

    return sorted(map(class_key, names))


def mark_of(args: argparse.Namespace) -> ProductRevision | None:
    """The product that the run's verdicts are of."""
    product: Product | None = getattr(args, "product_used", None)
    return None if product is None else product.mark


def section_of(args: argparse.Namespace, name: str) -> Any:
    """A section of the product that is used; None without it, or without a product."""
    product: Product | None = getattr(args, "product_used", None)
    return None if product is None else product.sections.get(name)


def _use_packed(args: argparse.Namespace, place: Path) -> None:
    from winspect.product.packing import bundle_folder, packed_product

    if not hasattr(args, "bundle"):
        raise SettingsError(f"{place}: a packed product only inspects; this verb needs the product's TOML file")
    given = getattr(args, "category_name", None) if args.bundle is not None else None
    found = packed_product(place, given)
    if found is None:
        if args.product is not None:
            raise SettingsError(f"{place}: this bundle was not made of a product; use it with --bundle")
        args.bundle = bundle_folder(place)
        return
    product, calibration = found
    values = {**_values(product, packed=True), "calibration": calibration}
    _Options(args, product).take(values)
    for name in (*_MODEL, "reference", "shots"):  # the bundle brings them
        setattr(args, name, None)
    args.bundle, args.product_used = bundle_folder(place), product


def _values(product: Product, *, packed: bool = False, calibrating: bool = False) -> dict[str, Any]:
    """What a product says, by the attributes of options; None for what it does not name."""
    from winspect.product.named_files import model_name, prompts_file, reference_files, weights_file

    model, references = product.model, product.references
    values: dict[str, Any] = {"model": model.name, **{name: getattr(model, name) for name in _SCORING}}
    values |= _sections(product)
    values |= dict.fromkeys(_CLASS, product.class_name)
    values["shots"] = None if references is None else references.shots
    values["reference"] = None if references is None else list(references.files)
    if packed:
        return values
    values["model"] = model_name(product)
    for name, file in (("weights", weights_file(product)), ("prompts", prompts_file(product))):
        values[name] = values[name] if file is None else str(file)
    values["reference"] = [str(path) for path in reference_files(product)] or None
    if not calibrating:
        values["calibration"] = None if product.calibration is None else product.place(product.calibration)
    return values


def _sections(product: Product) -> dict[str, Any]:
    """What the sections say of options."""
    sections: Mapping[str, Any] = product.sections
    roi, drift, feedback = (sections.get(name) for name in ("roi", "drift", "feedback"))
    deliveries, verdict, rules = (sections.get(name) for name in ("deliveries", "verdict", "rules"))
    levels = {name: getattr(verdict, name, None) for name in ("review", "threshold", "review_threshold")}
    decides = None
    if verdict is not None or rules is not None:
        from winspect.calibration import Rules, Verdicts

        decides = verdict or Verdicts(), rules or Rules()
    return {
        **levels,
        "rules": decides,
        "roi": None if roi is None else roi.roi,
        "align": sections.get("alignment"),
        "drift": drift,
        "audit_rate": None if feedback is None else feedback.audit_rate,
        "deliver": None if deliveries is None else deliveries.below(product.path.parent),
    }


class _Options:
    """The options of a verb, which a product fills in."""

    def __init__(self, args: argparse.Namespace, product: Product) -> None:
        self.args, self.product = args, product

    def take(self, values: Mapping[str, Any], *, model_only: bool = False) -> None:
        """Fill in what the product says, where nothing was given; refuse what was given and is something else."""
        if values.get("calibration") is not None and not model_only:
            for name in _DECIDING:
                if getattr(self.args, name, None) is not None and values.get(name) is None:
                    raise self._contradiction(name, getattr(self.args, name), f"[calibration] {values['calibration']}")
        names = [*_MODEL, *_CLASS] if model_only else list(values)
        for name in names:
            if hasattr(self.args, name):
                self._take_one(name, values[name])

    def _take_one(self, name: str, value: Any) -> None:
        given = getattr(self.args, name)
        is_given = given is not None and given != [] and not (given == "none" and value is None)
        if is_given and not (value is None and name in _FREE_WHERE_OPEN) and not _is_same(name, given, value):
            raise self._contradiction(name, given, value)
        if value is None or value == {}:
            return
        is_list = name in ("categories", "classes")
        setattr(self.args, name, [value] if is_list else value)

    def _contradiction(self, name: str, given: Any, value: Any) -> SettingsError:
        flag = _FLAGS.get(name) or "--" + name.replace("_", "-")
        says = "has none" if value is None or value == {} else f"says {_words(value)}"
        return SettingsError(
            f"{flag} {_words(given)}: {self.product.title} ({self.product.path}) {says}; leave {flag} out, or change "
            "the product and record it with winspect product check --update"
        )


def _is_same(name: str, given: Any, value: Any) -> bool:
    """Whether an option says what the product says."""
    if value is None:
        return False
    if name in _CLASS:
        from winspect.methods.winclip.prompts import class_key

        names = [given] if isinstance(given, str) else given
        return [class_key(each) for each in names] == [class_key(value)]
    if name == "settings":
        from winspect.cli.common import parse_settings

        return all(key in value and value[key] == setting for key, setting in parse_settings(given).items())
    if name == "reference":
        from winspect.cli.common import expand_references

        return [*map(os.path.realpath, expand_references(given))] == [*map(os.path.realpath, value)]
    if name == "drift":
        return given == value.rate
    if name in ("weights", "prompts", "calibration"):
        return given == value or os.path.realpath(given) == os.path.realpath(value)
    if name == "align":
        return given == value.kind
    if name == "roi":
        from winspect.pictures.roi import Roi

        return Roi.load(given) == value
    if name == "rules":
        from winspect.calibration.rules_file import read_rules

        return read_rules(given) == value
    if name == "deliver":
        from winspect.delivery import read_deliveries

        return read_deliveries(given) == value
    return given == value


def _words(value: Any) -> str:
    if isinstance(value, tuple):  # verdicts and rules
        return f"[verdict] {_words(value[0].document())} and {len(value[1])} of [[rules]]"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={setting}" for name, setting in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value[:3])) + (" ..." if len(value) > 3 else "")
    if isinstance(value, Sequence) and not isinstance(value, str):  # deliveries
        return ", ".join(each.name for each in value)
    return str(getattr(value, "words", getattr(value, "rate", value)))
