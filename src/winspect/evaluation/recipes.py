"""Several recipes on one data set, side by side: a folder of results each, and a page and a file of all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winspect.errors import ReferencesError, SettingsError
from winspect.evaluation.results import RECIPES_FILE, SCHEMA, TITLES, percent
from winspect.methods.batch_method import BatchMethod
from winspect.methods.method import Method
from winspect.methods.registry import METHODS, get_method
from winspect.outputs.pages import write_page
from winspect.system.files import write_json

PAGE_FILE = "report.html"


def check_shots(method: Method, shots: int) -> None:
    """Refuse good samples for a method that takes none, and none for one that needs some.

    Raises:
        SettingsError, ReferencesError: says what fits.
    """
    if shots and isinstance(method, BatchMethod):
        raise SettingsError(
            f"got {shots} shots, and recipe {method.name} takes no good samples: it compares the test pictures of a "
            "category with each other; leave out --shots, or choose recipe memory or subspace"
        )
    if not shots and not method.zero_shot:
        raise ReferencesError(
            f"recipe {method.name} compares with good samples: say how many are drawn for a category, as in --shots 4"
        )


def shots_for(method: Method, shots: int) -> int:
    """How many good samples a recipe is given beside others: ``shots``, or none where it takes none.

    Raises:
        ReferencesError: it needs some, and ``shots`` is 0.
    """
    shots = 0 if isinstance(method, BatchMethod) else shots
    check_shots(method, shots)
    return shots


def methods_of(recipes: list[str], settings: Mapping[str, Any]) -> dict[str, Method]:
    """Methods by the names of recipes, each with those of the settings that it has.

    Raises:
        SettingsError: no recipes, or one of them twice; an unknown one; a setting that none of them has.
    """
    if not recipes or len({*recipes}) != len(recipes):
        raise SettingsError(f"recipes: got {', '.join(recipes) or 'none'}, need different names, as in memory,paper")
    known = {recipe: get_method(recipe).document().keys() - {"name"} for recipe in recipes}
    if lost := sorted(settings.keys() - set().union(*known.values())):
        raise SettingsError(f"got settings {', '.join(lost)}, which none of the recipes {', '.join(recipes)} has")
    return {
        recipe: get_method(recipe, {name: value for name, value in settings.items() if name in known[recipe]})
        for recipe in recipes
    }


def write_recipes(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write ``recipes.json``, what each recipe's ``results.json`` holds, and ``report.html``, the figures of all.

    Args:
        folder: each recipe's results are in a folder of its name below it.
        results: by recipe.

    Returns:
        What ``recipes.json`` holds.

    Raises:
        OutputError: a file cannot be written.
    """
    document = {"schema": SCHEMA, "recipes": dict(results)}
    write_json(folder / RECIPES_FILE, document, allow_nan=False)
    named = {recipe: (each, shots_in_words(each)) for recipe, each in results.items()}
    first = next(iter(results.values()))
    title = f"{first['dataset']}: recipes {', '.join(results)}"
    values = {"runs": named, "rows": side_by_side(results), "titles": TITLES, "percent": percent}
    write_page(folder / PAGE_FILE, "recipes.html", title=title, categories=first["categories"], **values)
    return document


def side_by_side(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Category, recipe and figures: the recipes of a category below each other, the means last if there are several."""
    first = next(iter(results.values()))
    names = [*first["categories"]]
    rows = [(name, recipe, each["categories"][name]) for name in names for recipe, each in results.items()]
    means = [("mean", recipe, {**each["mean"], "std": each.get("std", {})}) for recipe, each in results.items()]
    return [*rows, *means] if len(names) > 1 else rows


def shots_in_words(results: Mapping[str, Any]) -> str:
    """What a run's pictures were compared with: good samples, each other, or text alone.

    >>> [shots_in_words({"recipe": recipe, "shots": shots}) for recipe, shots in (("memory", 4), ("paper", 0))]
    ['4-shot', 'zero-shot']
    >>> shots_in_words({"recipe": "mutual", "shots": 0})
    'unlabelled batch'
    """
    if results["shots"]:
        return f"{results['shots']}-shot"
    maker = METHODS.get(results["recipe"])
    return "unlabelled batch" if isinstance(maker, type) and issubclass(maker, BatchMethod) else "zero-shot"
