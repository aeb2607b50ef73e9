"""All product families, and which of them training never sees."""

from __future__ import annotations

import importlib

from .registry import REGISTRY

MODULES = (
    "surfaces_woven",
    "surfaces_metal",
    "surfaces_mineral",
    "surfaces_soft",
    "surfaces_printed",
    "surfaces_more",
    "surfaces_cloth",
    "objects_metal",
    "objects_machined",
    "objects_electronic",
    "objects_power",
    "objects_goods",
    "objects_food",
    "objects_household",
)
for _module in MODULES:
    importlib.import_module(f"{__package__}.{_module}")

FAMILIES: tuple[str, ...] = tuple(REGISTRY)
HELDOUT: tuple[str, ...] = (
    "checked_cloth",
    "coarse_grid",
    "leather",
    "ceramic_tile",
    "magnetic_tile",
    "hex_nut",
    "cable_section",
    "capsule",
    "candle_layout",
    "zipper",
)
TRAIN: tuple[str, ...] = tuple(name for name in FAMILIES if name not in HELDOUT)
