"""Checks of a method's settings: a value out of range is refused by the setting's name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from winspect.backbones.embeddings import block
from winspect.errors import SettingsError
from winspect.pictures.tiles import LARGEST_SIZE

logger = logging.getLogger(__name__)

# Beyond it a picture would take hours or all memory before anything is found to be wrong.
_LARGEST = 1e9
_LARGEST_SEED, _MOST_BLOCKS = 2**32 - 1, 1000
_LONGEST_SHOWN = 100


def is_number(value: object, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    """Whether a value is a number from ``low`` to ``high``, and neither true, false nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_count(value: object, low: int, high: int) -> bool:
    """Whether a value is a whole number from ``low`` to ``high``."""
    return isinstance(value, int) and is_number(value, low, high)


def check_setting(ok: bool, settings: object, name: str, need: str) -> None:
    """Refuse the setting ``name`` of ``settings``, unless ``ok``.

    Raises:
        SettingsError: says what came and what is needed.
    """
    if not ok:
        raise SettingsError(f"{name}: got {_shown(getattr(settings, name))}, need {need}")


def check_true_or_false(settings: object, *names: str) -> None:
    """Refuse settings that are neither true nor false."""
    for name in names:
        check_setting(isinstance(getattr(settings, name), bool), settings, name, "true or false")


def check_size(settings: Any) -> None:
    """Refuse a size that no picture can be seen at, and ``strict`` that is neither true nor false."""
    check_setting(is_count(settings.size, 1, LARGEST_SIZE), settings, "size", f"pixels, 1 to {LARGEST_SIZE}")
    check_true_or_false(settings, "strict")


def check_seed(settings: Any) -> None:
    """Refuse a seed that is none."""
    check_setting(is_count(settings.seed, 0, _LARGEST_SEED), settings, "seed", f"a whole number, 0 to {_LARGEST_SEED}")


def check_blocks(settings: Any) -> None:
    """Refuse ``blocks`` that are neither None nor a list of numbers of blocks and names of layers; make it a tuple."""
    blocks = settings.blocks
    if blocks is None:
        return
    is_list = isinstance(blocks, list | tuple) and len(blocks) > 0
    known = is_list and all(is_count(entry, 1, _MOST_BLOCKS) or (isinstance(entry, str) and entry) for entry in blocks)
    known = known and len({*blocks}) == len(blocks)
    need = "a list of different whole numbers from 1 (or layers' names), or nothing for those of the tower's depth"
    check_setting(bool(known), settings, "blocks", need)
    object.__setattr__(settings, "blocks", tuple(blocks))


def layers_of(blocks: Sequence[int | str] | None) -> tuple[str, ...]:
    """The names of layers for ``blocks``.

    Raises:
        SettingsError: they depend on a model that is not known yet.
    """
    if blocks is None:
        raise SettingsError("blocks: they depend on the tower's depth: set them, or use for_model(depth=...)")
    return tuple(entry if isinstance(entry, str) else block(entry) for entry in blocks)


def whole_size(size: int, patch: int, *, strict: bool) -> int:
    """The largest multiple of the patch that is not above ``size``, all in pixels; the log says where it is below.

    Raises:
        SettingsError: it is below, and ``strict`` does not allow that; or not even one patch fits.
    """
    whole = size - size % patch
    if whole == 0 or (strict and whole != size):
        raise SettingsError(
            f"size: got {size}, need a multiple of the patch of {patch} pixels, such as {whole or patch}"
        )
    if whole != size:
        logger.warning("size: %d is no multiple of the patch of %d pixels; pictures are seen at %d", size, patch, whole)
    return whole


def _shown(value: object) -> str:
    """A setting in a message; a number of many digits, which has no text, by its kind."""
    try:
        return repr(value)[:_LONGEST_SHOWN]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to write"
