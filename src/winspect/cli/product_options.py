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

_MODEL = ("model", "weights", "recipe", "settings", "precision", "engine", "prompts", "bit_depth", "roi")
# What a product leaves open, a run may choose.
_FREE_WHERE_OPEN = ("precision", "engine", "drift", "audit_rate", "deliver")
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
    values: dict[str, Any] = {"model": model.name, **{name: getattr(model, name) for name in _MODEL[1:-1]}}
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
    deliveries = sections.get("deliveries")
    return {
        "roi": None if roi is None else roi.roi,
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
        names = [*_MODEL, *_CLASS] if model_only else list(values)
        for name in names:
            if hasattr(self.args, name):
                self._take_one(name, values[name])
        if values.get("calibration") is not None and not model_only:
            for name in _DECIDING:
                if getattr(self.args, name, None) is not None:
                    raise self._contradiction(name, getattr(self.args, name), f"[calibration] {values['calibration']}")

    def _take_one(self, name: str, value: Any) -> None:
        given = getattr(self.args, name)
        is_given = given is not None and given != []
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
    if name == "roi":
        from winspect.pictures.roi import Roi

        return Roi.load(given) == value
    if name == "deliver":
        from winspect.delivery import read_deliveries

        return read_deliveries(given) == value
    return given == value


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={setting}" for name, setting in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value[:3])) + (" ..." if len(value) > 3 else "")
    if isinstance(value, Sequence) and not isinstance(value, str):  # deliveries
        return ", ".join(each.name for each in value)
    return str(getattr(value, "words", getattr(value, "rate", value)))
