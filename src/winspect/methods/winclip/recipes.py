"""Recipes: the named settings that turn embeddings into scores.

``paper`` follows WinCLIP (arXiv 2303.14814); ``tiles`` is the pipeline of square tiles along the longer edge.
Every choice is a field of :class:`Recipe`, and any of them can be set by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from winspect.errors import SettingsError
from winspect.methods.settings import check_setting, check_true_or_false, is_count, is_number

TEXT_AVERAGES = ("raw", "normalised")
FUSIONS = ("sum", "log", "fused")
TILE_REFERENCES = ("pooled", "same")
UNDERSCORES = ("space", "keep")

# Beyond these a picture would take hours or all memory before anything is found to be wrong.
_LOWEST_TEMPERATURE = 1e-6
_WIDEST_WINDOW, _MOST_SCALES = 1000, 16
_SHORTEST_STEP = 0.01


@dataclass(frozen=True)
class Recipe:
    """How a picture is cut, compared with text and references, and scored.

    Attributes:
        name: what it is called in results.
        tiling: cut a picture that is not square into square tiles along its longer edge; else it is resized whole.
        tile_stride: step between tiles, as a fraction of their side, above 0 to 1.
        temperature: tau of the class score, above 0 (0.07 in the paper; 0.01 is CLIP's logit scale of 100).
        text_average: ``raw`` averages prompt embeddings as they are; ``normalised`` L2-normalises before and after.
        scales: sides of the windows in patches; (2, 3) in the paper.
        stride: step between windows in patches, 1 to the smallest scale.
        fusion: how zero-shot scores and references meet: ``sum`` is the paper's equation 6; ``log`` and
            ``fused`` are the bundled model's (see :mod:`winspect.methods.winclip.fusion` and
            :mod:`winspect.methods.fused.method`), which need a model with stem features.
        repeat_last: count a last tile that the base program cuts several times as often in the mean of the tiles'
            scores (see :func:`winspect.pictures.tiles.last_tile_count`); false counts every tile once.
        tile_references: ``pooled`` compares every tile with all tiles of the references, and the largest distance of
            a picture counts; ``same`` compares tile i with tile i of the references, which must have as many, and
            averages the tiles' largest distances, as the base program of ``tiles`` does.
        patch_norm: patch tokens go through the tower's last layer norm before they are compared; anomalib does so.
        underscores: of class names in prompts: ``space`` reads ``pipe_fryum`` as "pipe fryum"; ``keep`` leaves it, as
            some published figures were made. The service and batch name classes with blanks in either case.

    The defaults of the last four are what releases that did not have them do.
    """

    name: str
    tiling: bool = False
    tile_stride: float = 0.8
    temperature: float = 0.07
    text_average: str = "raw"
    scales: tuple[int, ...] = (2, 3)
    stride: int = 1
    fusion: str = "sum"
    repeat_last: bool = False
    tile_references: str = "pooled"
    patch_norm: bool = False
    underscores: str = "space"

    @property
    def score_range(self) -> tuple[float, float]:
        """The lowest and the highest score: every recipe ends in a probability, or in means of distances 0 to 1."""
        return 0.0, 1.0

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, need: str) -> None:
            check_setting(ok, self, name, need)

        warm = is_number(self.temperature, _LOWEST_TEMPERATURE)
        check(warm, "temperature", f"a number above 0 (from {_LOWEST_TEMPERATURE:g}), such as 0.07")
        overlaps = is_number(self.tile_stride, _SHORTEST_STEP, 1)
        check(overlaps, "tile_stride", f"a number from {_SHORTEST_STEP:g} to 1, in sides of a tile")
        check(self.text_average in TEXT_AVERAGES, "text_average", f"one of {', '.join(TEXT_AVERAGES)}")
        check(self.fusion in FUSIONS, "fusion", f"one of {', '.join(FUSIONS)}")
        check_true_or_false(self, "tiling", "repeat_last", "patch_norm")
        check(self.tile_references in TILE_REFERENCES, "tile_references", f"one of {', '.join(TILE_REFERENCES)}")
        check(self.underscores in UNDERSCORES, "underscores", f"one of {', '.join(UNDERSCORES)}")
        if self.fusion != "sum":  # their weights were fitted on pooled references and tokens as they are
            check(self.tile_references == "pooled", "tile_references", f"pooled with fusion {self.fusion}")
            check(not self.patch_norm, "patch_norm", f"false with fusion {self.fusion}")
        is_list = isinstance(self.scales, list | tuple) and all(is_count(s, 1, _WIDEST_WINDOW) for s in self.scales)
        few = is_list and len(set(self.scales)) == len(self.scales) <= _MOST_SCALES
        check(few, "scales", f"a list of up to {_MOST_SCALES} different whole numbers, 1 to {_WIDEST_WINDOW}")
        object.__setattr__(self, "scales", tuple(self.scales))
        narrowest = min(self.scales, default=1)
        check(is_count(self.stride, 1, narrowest), "stride", f"a whole number from 1 to {narrowest}")


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "paper": Recipe("paper"),
        "tiles": Recipe("tiles", tiling=True, temperature=0.01, text_average="normalised", repeat_last=True),
        "log": Recipe("log", fusion="log"),
        "fused": Recipe("fused", fusion="fused"),
    }
)


def get_recipe(recipe: str | Recipe, settings: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name, with some settings replaced.

    >>> get_recipe("paper", {"temperature": 0.05}).temperature
    0.05

    Raises:
        SettingsError: an unknown name or setting, or a value out of range.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise SettingsError(f"got the recipe {recipe!r}, need one of {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    changes = dict(settings or {})
    known = [field.name for field in fields(Recipe) if field.name != "name"]
    unknown = [str(name) for name in changes if name not in known]
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {', '.join(known)}")
    return replace(recipe, **changes)
