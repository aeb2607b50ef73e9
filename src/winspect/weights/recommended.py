"""Models of timm that suit the recipes ``memory`` and ``subspace``, with what was published of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recommendation:
    """Why a model is worth a download.

    Attributes:
        size_mb: of its weights file, in float32.
        licence: of the weights, as timm has it.
        published: VisA and MVTec AD image AUROC in percent, with their source; None where none was published for it.
    """

    size_mb: int
    licence: str
    published: str | None = None


RECOMMENDED = {
    "timm/vit_small_patch14_dinov2.lvd142m": Recommendation(
        88,
        "apache-2.0",
        "memory, 448 px, 1 / 2 / 4 good samples: VisA 87.4 / 89.7 / 92.6, MVTec AD 96.6 / 96.9 / 97.7 "
        "(arXiv 2405.14529)",
    ),
    "timm/vit_base_patch14_reg4_dinov2.lvd142m": Recommendation(346, "apache-2.0"),
    "timm/vit_large_patch14_reg4_dinov2.lvd142m": Recommendation(1217, "apache-2.0"),
    "timm/vit_giant_patch14_reg4_dinov2.lvd142m": Recommendation(
        4546,
        "apache-2.0",
        "subspace, 672 px, 1 / 2 / 4 good samples: VisA 93.2 / 93.8 / 94.7, MVTec AD 97.1 / 97.5 / 98.0 "
        "(arXiv 2602.23013)",
    ),
    "timm/vit_small_patch16_dinov3.lvd1689m": Recommendation(86, "dinov3-license"),
}
"""By full name, with the pretrained tag. None is chosen without being asked for."""
