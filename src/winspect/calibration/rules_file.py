"""A file of rules: TOML with ``[[rules]]``, ``[verdict]``, or both, as products have them; and options beside it."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from winspect.calibration.rules import Rules
from winspect.calibration.verdicts import Verdicts, check_review, table
from winspect.errors import SettingsError
from winspect.system.toml_texts import read_toml


def read_rules(path: str | PathLike[str]) -> tuple[Verdicts, Rules]:
    """The sections of a file.

    Raises:
        SettingsError: it cannot be read, or what is wrong with it; names the file.
    """
    document = read_toml(path)
    try:
        table("the file", document, ["verdict", "rules"])
        if not document:
            raise SettingsError("got no rules; need tables [[rules]], or [verdict]")
        return Verdicts.read(document.get("verdict", {})), Rules.read(document.get("rules", []))
    except SettingsError as error:
        raise SettingsError(f"{fspath(path)}: {error}") from error


def chosen_verdicts(
    rules: str | PathLike[str] | tuple[Verdicts, Rules] | None,
    *,
    review: float | None = None,
    threshold: float | None = None,
    review_threshold: float | None = None,
    names: tuple[str, str, str] = ("review", "threshold", "review_threshold"),
) -> tuple[Verdicts, Rules]:
    """What decides beside a calibration: a file of rules, or a product's sections, completed by single values.

    Args:
        rules: the file, or its sections.
        review, threshold, review_threshold: as of :class:`Verdicts`; ``names``: what the caller calls them.

    Raises:
        SettingsError: a value is not what the file says, or values that exclude each other.
    """
    values: dict[str, Any] = {"review": review, "threshold": threshold, "review_threshold": review_threshold}
    if rules is None:
        check_review(review, threshold, review_threshold, names)
        return Verdicts(**values), Rules()
    verdicts, listed = rules if isinstance(rules, tuple) else read_rules(rules)
    for (entry, value), name in zip(values.items(), names, strict=True):
        here = getattr(verdicts, entry)
        if None not in (value, here) and value != here:
            raise SettingsError(
                f"{name}: got {value:g}, but [verdict] of the rules says {here:g}; leave one of them out"
            )
    given = {entry: value for entry, value in values.items() if value is not None}
    return replace(verdicts, **given), listed
