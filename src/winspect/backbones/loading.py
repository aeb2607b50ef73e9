"""Loading what embeds pictures, by a model's name: a CLIP of open_clip, the bundled model, a ViT of timm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from winspect.backbones import open_clip_models
from winspect.backbones.image_tower import ImageTower
from winspect.pictures.tiles import Preprocess
from winspect.weights.cache import sha256_of
from winspect.weights.sources import resolve
from winspect.weights.timm_names import is_timm

if TYPE_CHECKING:
    from winspect.backbones.timm_tower import TimmTower

Tower: TypeAlias = "ImageTower | TimmTower"
"""What an engine runs: called with pixels and needs it gives embeddings."""


@dataclass(frozen=True)
class LoadedTower:
    """An image tower in float32, on the CPU, in eval mode, with what must travel with it.

    Attributes: those of :class:`~winspect.backbones.open_clip_models.LoadedCLIP`.
    """

    tower: Tower
    name: str
    tag: str
    sha256: str
    preprocess: Preprocess
    activation: str
    remarks: tuple[str, ...] = ()
    scoring: Mapping[str, Any] = field(default_factory=dict)


def load_tower(
    model: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> LoadedTower:
    """Load the image tower of a model.

    Args:
        model: as for :func:`winspect.backbones.open_clip_models.load`, or ``timm/NAME``, or ``local-dir:FOLDER`` with
            timm's ``config.json``.
        weights, cache_dir, offline: as there.

    Raises:
        What :func:`winspect.backbones.open_clip_models.load` raises.
    """
    if not is_timm(model):
        clip = open_clip_models.load(model, weights, cache_dir=cache_dir, offline=offline)
        return LoadedTower(
            ImageTower(clip.model.visual).eval(),
            *(clip.name, clip.tag, clip.sha256, clip.preprocess, clip.activation, clip.remarks, clip.scoring),
        )
    from winspect.backbones.timm_models import load_timm

    source = resolve(model, weights, cache_dir=cache_dir, offline=offline)
    tower, activation, remarks = load_timm(source)
    sha256 = sha256_of(source.path, cache_dir)
    return LoadedTower(tower, source.model, source.tag, sha256, source.preprocess, activation, remarks)
