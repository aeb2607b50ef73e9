"""The bundled model's method: zero-shot as WinCLIP; with good samples the log fusion of :mod:`.fusion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from array_api_compat import array_namespace

from winspect.backbones.embeddings import LAST, STEM, Embeddings, Needs
from winspect.errors import SettingsError
from winspect.methods.method import CutPicture, PictureScores, References, split
from winspect.methods.winclip.fusion import FusionSettings, keep, log_fusion
from winspect.methods.winclip.tiles import Tiles
from winspect.system.arrays import Array, to_numpy

_FUSION, _TEMPERATURE = "log_fusion", "temperature"


@dataclass(frozen=True)
class Log(Tiles):
    """Scores each tile; the score of a picture with good samples is the largest of its tiles'.

    References are those of :class:`Paper` and what :func:`winspect.methods.winclip.fusion.keep` adds.

    Attributes:
        weights: of the fusion's parts, fitted for the model.
        temperature_is_set: the recipe's temperature stays, whatever the model's checkpoint says.
    """

    weights: FusionSettings = field(default=FusionSettings(), compare=False)
    temperature_is_set: bool = field(default=True, compare=False)

    def for_model(
        self, scoring: Mapping[str, Any], model: str, *, depth: int | None = None, patch: int | None = None
    ) -> Log:
        """Take the weights of the parts, and the temperature unless it was set."""
        if _FUSION not in scoring:
            raise SettingsError(
                f"fusion log is calibrated for winspect-tiny alone, not for {model}; use recipe paper or tiles"
            )
        temperature = self.recipe.temperature if self.temperature_is_set else scoring[_TEMPERATURE]
        recipe = replace(self.recipe, temperature=temperature)
        return replace(self, recipe=recipe, weights=FusionSettings(**scoring[_FUSION]))

    @property
    def scoring(self) -> Mapping[str, Any]:
        """See :class:`Method`."""
        return {_FUSION: asdict(self.weights)}

    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """See :class:`Method`; always with windows."""
        return Needs(self.recipe.scales, self.recipe.stride, (LAST, STEM) if few_shot else ())

    @property
    def kept(self) -> frozenset[str]:
        """See :class:`Method`."""
        return super().kept | {"stem", "crowding", "looks"}

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :class:`Method`."""
        references = super().fit(samples)
        together = Embeddings.concatenate(samples)
        added = keep(together.vectors(STEM), together.inside_of(STEM))
        return References({**references.arrays, **added}, references.tiles)

    def score(
        self,
        embeddings: Embeddings,
        pictures: Sequence[CutPicture],
        *,
        text: Array,
        references: References | None = None,
        maps: bool = True,
    ) -> list[PictureScores]:
        """See :class:`Method`; always with maps."""
        if references is None:
            return super().score(embeddings, pictures, text=text)
        scores, zero_shot = self.zero_shot_maps(embeddings, text)
        fused = log_fusion(embeddings, scores, zero_shot, references, self.weights, stride=self.recipe.stride)
        largest = array_namespace(scores).max
        return [PictureScores(float(largest(scores)), to_numpy(maps)) for _, scores, maps in split(pictures, *fused)]
