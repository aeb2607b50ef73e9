"""Methods by name, and by what results files, calibrations and bundles say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from winspect.errors import SettingsError
from winspect.methods.combined import PaperAndMemory
from winspect.methods.fused.method import Fused
from winspect.methods.memory import Memory
from winspect.methods.method import Method
from winspect.methods.mutual.method import Mutual
from winspect.methods.subspace import Subspace
from winspect.methods.winclip.log import Log
from winspect.methods.winclip.paper import Paper
from winspect.methods.winclip.recipes import RECIPES, Recipe, get_recipe
from winspect.methods.winclip.tiles import Tiles
from winspect.system.entries import entry
from winspect.weights import TIMM, TINY


def winclip(recipe: str | Recipe, **settings: Any) -> Paper:
    """The method of a recipe, with some settings replaced."""
    is_set = isinstance(recipe, Recipe) or "temperature" in settings
    recipe = get_recipe(recipe, settings)
    if recipe.fusion != "sum":
        return {"log": Log, "fused": Fused}[recipe.fusion](recipe, temperature_is_set=is_set)
    return Tiles(recipe) if recipe.tiling else Paper(recipe)


METHODS: dict[str, Callable[..., Method]] = {
    **{name: partial(winclip, name) for name in RECIPES},
    "memory": Memory,
    "subspace": Subspace,
    "mutual": Mutual,
    "paper+memory": PaperAndMemory,
}
"""Name to constructor, whose keywords are the settings. A program may add its own before it makes or loads a model."""


def default_recipe(model: str) -> str:
    """The recipe that a model is used with where none is named: one that it can do, and does well.

    >>> default_recipe("ViT-B-16-plus-240"), default_recipe("timm/vit_small_patch14_dinov2.lvd142m")
    ('paper', 'memory')
    """
    if model == TINY:
        return "fused"
    return "memory" if model.startswith(TIMM) else "paper"


def get_method(recipe: str | Recipe | Method, settings: Mapping[str, Any] | None = None) -> Method:
    """A method by name, of a recipe, or itself; with some settings replaced.

    Raises:
        SettingsError: an unknown name or setting, or a value out of range.
    """
    settings = dict(settings or {})
    if isinstance(recipe, Method):
        if settings:
            raise SettingsError(f"got settings {', '.join(settings)} beside a method: make the method with them")
        return recipe
    if isinstance(recipe, Recipe):
        return winclip(recipe, **settings)
    if not isinstance(recipe, str) or recipe not in METHODS:
        raise SettingsError(f"got the recipe {recipe!r}, need one of {', '.join(METHODS)}")
    return _made(recipe, settings)


def _made(name: str, settings: Mapping[str, Any]) -> Method:
    try:
        return METHODS[name](**settings)
    except TypeError as error:  # an unknown keyword
        raise SettingsError(f"recipe {name}: {error}") from error


def method_of(document: Mapping[str, Any]) -> Method:
    """The method that :meth:`Method.document` describes, also as an earlier release wrote it.

    Raises:
        SettingsError: no name, an unknown setting, or a value out of range.
    """
    settings = {key: value for key, value in document.items() if key != "name"}
    name = entry(document, "name", str)
    if _is_added(name):
        return _made(name, settings)
    unknown = settings.keys() - asdict(Recipe("")).keys()
    if unknown and name not in METHODS:
        raise SettingsError(
            f"recipe: got {name!r} with {', '.join(sorted(unknown))}, which is none of {', '.join(METHODS)}: put an "
            "added method into winspect.methods.registry.METHODS first"
        )
    return winclip(Recipe(name), **settings)


def all_settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """A method's document as JSON has it, with the settings that the release that wrote it did not know yet."""
    known = {} if _is_added(document.get("name")) else asdict(Recipe(""))
    return json.loads(json.dumps({**known, **document}))


def _is_added(name: object) -> bool:
    return isinstance(name, str) and name in METHODS and name not in RECIPES
