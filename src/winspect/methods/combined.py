"""Zero-shot WinCLIP and a patch memory on one pass of a CLIP: picture, windows and patches are encoded once.

Equation 6 of WinCLIP (arXiv 2303.14814) averages what the prompts say of a picture with how far it is from good
samples. Here the distance is that of :mod:`winspect.methods.memory` (arXiv 2405.14529), halved as there to 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from winspect.backbones.embeddings import LAST_NORM, Embeddings, Needs
from winspect.methods.memory import Memory
from winspect.methods.method import CutPicture, Method, PictureScores, References, split
from winspect.methods.samples import given
from winspect.methods.settings import check_setting, is_number
from winspect.methods.upsampling import Upsampling
from winspect.methods.winclip.paper import Paper
from winspect.methods.winclip.recipes import get_recipe
from winspect.system.arrays import Array, to_numpy

_OF_MEMORY = ("layer", "rotations", "top_share", "sigma", "coreset", "seed", "limit_gb")


@dataclass(frozen=True)
class PaperAndMemory(Method):
    """(1 - weight) times WinCLIP's zero-shot score, and weight times half of the memory's; maps alike.

    Pictures are squares of the model's own size, as WinCLIP's windows need them, and not the memory's 448 pixels.
    References are those of :class:`~winspect.methods.memory.Memory`.

    Attributes:
        weight: share of the memory, 0 to 1; 0 is the zero-shot score alone, 1 half of the memory's.
        temperature: tau of the class score.
        layer, rotations, top_share, sigma, coreset, seed, limit_gb: of the memory. Views of good samples cost a pass
            with windows each, so that they are not turned unless ``rotations`` asks for it. ``sigma`` smooths the
            whole map.
    """

    weight: float = 0.5
    temperature: float = 0.07
    layer: str = LAST_NORM
    rotations: int = 0
    top_share: float = 0.01
    sigma: float = 4.0
    coreset: float = 1.0
    seed: int = 0
    limit_gb: float = 4.0

    name = "paper+memory"
    zero_shot = False
    joins = True
    kept = Memory.kept

    def __post_init__(self) -> None:
        check_setting(is_number(self.weight, 0, 1), self, "weight", "a number from 0 to 1")
        _ = self.paper, self.memory  # they check their settings

    @property
    def paper(self) -> Paper:
        """The zero-shot half."""
        return Paper(get_recipe("paper", {"temperature": self.temperature}))

    @property
    def memory(self) -> Memory:
        """The half of the good samples."""
        return Memory(**{name: getattr(self, name) for name in _OF_MEMORY})

    def angles(self, sample: int) -> Sequence[float]:
        """See :class:`Method`."""
        return self.memory.angles(sample)

    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """See :class:`Method`; scores alone need no windows."""
        layers = self.memory.needs(few_shot=few_shot, maps=maps).layers
        return replace(self.paper.needs(few_shot=False, maps=maps), layers=layers)

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :meth:`Memory.fit`."""
        return self.memory.fit(samples)

    def join(self, parts: Sequence[References]) -> References:
        """See :meth:`Memory.join`."""
        return self.memory.join(parts)

    def samples_refusal(self, count: int, sample: Embeddings) -> str | None:
        """See :class:`Method`."""
        return self.memory.samples_refusal(count, sample)

    def score(
        self,
        embeddings: Embeddings,
        pictures: Sequence[CutPicture],
        *,
        text: Array,
        references: References | None = None,
        maps: bool = True,
    ) -> list[PictureScores]:
        """See :class:`Method`.

        Raises:
            ReferencesError: without good samples.
        """
        references = given(references, self.name)
        distances = self.memory.score(embeddings, pictures, text=text, references=references)
        zero_shot = split(pictures, *self.paper.zero_shot_maps(embeddings, text))
        return [
            self._combined(float(score[0]), to_numpy(its_maps), far, maps=maps)
            for (_, score, its_maps), far in zip(zero_shot, distances, strict=True)
        ]

    def _combined(self, score: float, zero_shot: Array, far: PictureScores, *, maps: bool) -> PictureScores:
        ours, theirs = 1 - self.weight, self.weight / 2
        combined = ours * zero_shot + theirs * far.tile_maps if maps and far.tile_maps is not None else None
        return PictureScores(
            ours * score + theirs * far.score,
            combined,
            Upsampling(sigma=self.sigma),
            {"paper": score, "memory": far.score},
        )
