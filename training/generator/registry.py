"""The list of product families and which defects each can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .canvas import Canvas, View
from .noise import Rng

Draw = Callable[[View], Canvas]
Build = Callable[[Rng], Draw]

SOIL = tuple(["stain", "liquid", "particles", "fibre", "foreign_object", "glue", "discolouration", "ink"])
_POOLS = {
    # Defects that only rearrange the texture are for regular ones: in a random texture nobody could see them.
    "fabric": (
        "hole cut cut loose_thread loose_thread missing_line missing_line band pulled_thread pulled_thread "
        "fold density_change turned_texture swapped_patch worn deform burn recolour uneven scuff dead_region "
        "smear"
    ),
    "pile": "hole cut cut loose_thread loose_thread band fold worn worn burn recolour uneven scuff dead_region",
    "leather": "scratch cut fold hole dent recolour scuff burn worn pitting coarse",
    "grain": "scratch crack hole dent recolour burn scuff chip pitting worn cut turned_texture",
    "metal": "scratch scratch dent pitting pitting scuff crack band hole flake worn coarse bubble",
    "mineral": "crack crack chip hole scratch pitting scuff recolour flake coarse",
    "print": "ink ink ghost_print smear scratch fold cut density_change worn swapped_patch recolour flake",
    "gloss": "scratch bubble bubble crack scuff dent flake coarse chip recolour",
    "soft": "cut hole dent fold worn coarse burn chip uneven recolour",
    "sheet": "ink ink scratch fold fold cut hole burn recolour flake band uneven",
    "cell": (
        "crack crack crack dead_region dead_region broken_fingers broken_fingers scratch discolouration band "
        "particles pitting stain missing_line chip broken uneven"
    ),
    "part": "scratch scratch dent chip chip crack broken pitting hole deform bend recolour scuff flake",
    "food": "crack crack chip chip broken hole burn cut recolour pitting deform scratch",
    "plastic": "scratch scratch dent chip crack bubble burn deform recolour scuff broken ink flake",
    "board": "scratch burn glue glue bend chip hole liquid crack scuff deform broken",
    "parts": (
        "missing_part missing_part missing_part displaced_part displaced_part turned_part wrong_size_part "
        "wrong_colour_part extra_part"
    ),
}
POOLS: dict[str, tuple[str, ...]] = {name: tuple(defects.split()) for name, defects in _POOLS.items()}
"""Defects by kind of surface or object; one named twice is twice as likely."""


@dataclass(frozen=True)
class Family:
    name: str
    noun: str
    build: Build
    defects: tuple[str, ...]
    is_object: bool
    emission: bool
    grey_share: float
    aligned: bool  # always along the picture and filling it
    free: float  # share of product lines whose items lie at any angle


REGISTRY: dict[str, Family] = {}


def family(
    noun: str,
    *pools: str,
    is_object: bool = False,
    emission: bool = False,
    grey_share: float = 0.35,
    free: float = 0.25,
    aligned: bool = False,
) -> Callable[[Build], Build]:
    """Register the builder below under its own name; ``pools`` name its defects, besides dirt, which any can have."""

    def add(build: Build) -> Build:
        soil = () if emission else SOIL
        defects = tuple(d for pool in pools for d in POOLS[pool]) + soil
        name = build.__name__
        REGISTRY[name] = Family(name, noun, build, defects, is_object, emission, grey_share, aligned, free)
        return build

    return add
