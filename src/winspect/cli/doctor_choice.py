"""What a run would use, for ``winspect doctor``: engine, precision, device and recipe, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.methods.winclip.recipes import RECIPES, Recipe
from winspect.system.preferences import default_precision
from winspect.weights import TINY, cache_folder
from winspect.weights.cache import hash_file, remembered_sha256

if TYPE_CHECKING:
    from winspect.engines.choice import Choice
    from winspect.weights.sources import Source


def resolve(given: Mapping[str, str | None], calibration: Path | None) -> tuple[dict[str, Any], list[str]]:
    """The options of a call with what it leaves open filled in as a run does, and a sentence for each source.

    Args:
        given: ``engine``, ``precision`` and ``device``; None where not given.

    Raises:
        SettingsError: the calibration, or the default precision, cannot be read.
    """
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    reasons = []
    if calibration is not None:
        from winspect.calibration import Calibration

        options = Calibration.load(calibration).model_options(options)
        made_with = ", ".join(f"{name} {options[name]}" for name in ("engine", "precision") if name in options)
        reasons.append(f"{calibration} was made with recipe {options['recipe'].name}, {made_with}")
    elif "precision" not in options:
        default = default_precision()
        options["precision"] = default.precision
        reasons += [] if default.precision is None else [f"precision {default.precision}: {default.source}"]
    return options, reasons


def describe(choice: Choice, reasons: list[str], recipe: Recipe, source: Source | None) -> dict[str, Any]:
    """A choice for JSON. Where ``auto`` would ask the precision gate, what it has said of these weights decides."""
    precision, reasons = choice.precision, [*reasons, *choice.reasons]
    checked = choice.faster_precision or ("int8" if precision == "int8" else None)
    if checked and source is not None:
        passed = _verdict(choice, checked, recipe, source)
        if passed is None:
            reasons.append(f"the gate has not been asked of {checked} with these weights: the first run asks it")
        elif passed:
            precision = checked
            reasons.append(f"{checked} has passed the gate with these weights")
        else:
            reasons.append(f"{checked} did not pass the gate with these weights")
    return {
        "engine": choice.engine,
        "precision": precision,
        "faster_precision": choice.faster_precision,
        "device": str(choice.device) if choice.openvino_device == "CPU" else f"openvino:{choice.openvino_device}",
        "recipe": recipe.name,
        "reasons": reasons,
    }


def recipe_of(options: Mapping[str, Any], model: str) -> Recipe:
    """The recipe among the options, else the model's default."""
    return options.get("recipe") or RECIPES["log" if model == TINY else "paper"]


def _verdict(choice: Choice, precision: str, recipe: Recipe, source: Source) -> bool | None:
    """Whether these weights passed the gate, as far as its records say; None where it has not been asked."""
    if not source.present:
        return None
    from winspect.engines.gate import GateRecords

    sha256 = remembered_sha256(source.path) or hash_file(source.path)
    device = f"{choice.device} {choice.openvino_device}"
    expected = {"engine": choice.engine, "precision": precision, "device": device}
    for key, result in GateRecords(cache_folder() / "gate").all():
        same = {name: key.get(name) for name in expected} == expected
        named = str(key.get("weights", "")).startswith(f"{sha256}/{source.model}/")
        if same and named and _is_recipe(key.get("recipe"), recipe):
            return result.passed
    return None


def _is_recipe(noted: Any, recipe: Recipe) -> bool:
    """Whether it is the recipe, but for a temperature that the model brings along."""
    ours = asdict(recipe)
    return isinstance(noted, dict) and all(
        noted.get(name) == (list(value) if isinstance(value, tuple) else value)
        for name, value in ours.items()
        if name != "temperature"
    )
