"""A toy method, as a user would add one: how far each patch is from the mean patch of the good samples."""

from __future__ import annotations

from dataclasses import dataclass

from array_api_compat import array_namespace

from winspect.backbones.embeddings import LAST
from winspect.methods.method import Embeddings, Method, Needs, PictureScores, References, split
from winspect.system.arrays import merge, normalize, to_numpy


@dataclass(frozen=True)
class Centre(Method):
    power: float = 1.0
    name = "centre"
    kept = frozenset({"centre"})

    def needs(self, *, few_shot, maps):
        return Needs(layers=(LAST,))

    def fit(self, samples):
        patches = normalize(merge(Embeddings.concatenate(samples).vectors(LAST)))
        return References({"centre": array_namespace(patches).mean(patches, axis=0)})

    def score(self, embeddings, pictures, *, text, references=None, maps=True):
        patches = normalize(embeddings.vectors(LAST))
        xp = array_namespace(patches)
        centre = xp.mean(patches, axis=1, keepdims=True) if references is None else references["centre"]
        apart = (xp.linalg.vector_norm(patches - centre, axis=2) / 2) ** self.power
        tile_maps = xp.reshape(apart, embeddings.patches[LAST].shape[:3])
        return [PictureScores(float(xp.max(own)), to_numpy(own)) for _, own in split(pictures, tile_maps)]
