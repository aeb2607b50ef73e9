"""Mutual scoring: patches of an unlabelled batch beside those of all its other pictures.

Source: MuSc (arXiv 2401.16753).
"""

from __future__ import annotations

from dataclasses import dataclass

from winspect.methods.batch_method import BatchMethod
from winspect.methods.mutual.batch import MutualBatch
from winspect.methods.settings import (
    check_blocks,
    check_seed,
    check_setting,
    check_size,
    is_count,
    is_number,
)
from winspect.methods.square import SquareOfBlocks

_KEPT = ("auto", "fp16", "fp32")
_WIDEST_NEIGHBOURHOOD, _MOST_GROUPS, _MOST_NEIGHBOURS = 99, 100_000, 100_000


def quarter_blocks(depth: int) -> tuple[int, ...]:
    """The blocks at the quarters of a tower of so many, counted from 1.

    >>> quarter_blocks(12), quarter_blocks(24)
    ((3, 6, 9, 12), (6, 12, 18, 24))
    """
    return tuple(sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)}))


@dataclass(frozen=True)
class Mutual(SquareOfBlocks, BatchMethod):
    """A patch's score is its mean distance to the nearest patches of the pictures that have the nearest ones.

    A change that more than ``share`` of the batch has in common is normal. Scores of two batches do not compare: with
    ``neighbours`` the lowest of a batch counts as 0, the highest as 1.

    Attributes:
        size: side of the square that pictures are resized to, in pixels; 240 and 512 (518 for patches of 14) are
            published. Work grows with its fourth power.
        blocks: whose patch vectors are compared, counted from 1, or names of layers, on one grid; None for those of
            :func:`quarter_blocks`.
        neighbourhoods: sides of the neighbourhoods that patches are compared with, in patches; odd.
        share: of the other pictures, those with the nearest patches, that a patch is compared with, above 0 to 1.
        neighbours: how many pictures, itself among them, a picture's score is averaged over, by image embeddings; the
            mean over several numbers. () leaves scores as they are, as where a backbone has no image embedding.
        groups: a large batch is cut into so many, drawn by ``seed``, and compared within them; pictures' neighbours
            are sought in the whole batch.
        seed: of the groups.
        keep: what features are kept in: ``fp16`` or ``fp32``; ``auto`` is fp32 where that fits into memory, else fp16,
            which moves maps by some 1e-5.
        limit_gb: memory in 10^9 bytes; what exceeds its share of it goes to a temporary file.
        strict: refuse a size that is no multiple of the patch, instead of rounding it down.
    """

    size: int = 240
    blocks: tuple[int | str, ...] | None = None
    neighbourhoods: tuple[int, ...] = (1, 3, 5)
    share: float = 0.3
    neighbours: tuple[int, ...] = (1, 2, 3)
    groups: int = 1
    seed: int = 0
    keep: str = "auto"
    limit_gb: float = 2.0
    strict: bool = False

    name = "mutual"
    blocks_of = staticmethod(quarter_blocks)
    score_range = (0.0, 2.0)

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, need: str) -> None:
            check_setting(ok, self, name, need)

        def are_counts(name: str, most: int) -> bool:
            values = getattr(self, name)
            is_list = isinstance(values, list | tuple) and all(is_count(value, 1, most) for value in values)
            return is_list and len({*values}) == len(values)

        check_size(self)
        check_seed(self)
        check_blocks(self)
        odd = are_counts("neighbourhoods", _WIDEST_NEIGHBOURHOOD) and all(side % 2 for side in self.neighbourhoods)
        check(odd and len(self.neighbourhoods) > 0, "neighbourhoods", "a list of different odd numbers, such as [1, 3]")
        check(is_number(self.share, 0, 1) and self.share > 0, "share", "a number above 0, at most 1")
        check(are_counts("neighbours", _MOST_NEIGHBOURS), "neighbours", "a list of different whole numbers from 1")
        check(is_count(self.groups, 1, _MOST_GROUPS), "groups", f"a whole number, 1 to {_MOST_GROUPS}")
        check(self.keep in _KEPT, "keep", f"one of {', '.join(_KEPT)}")
        check(is_number(self.limit_gb, 0), "limit_gb", "a number of gigabytes, 0 or more")
        for name in ("neighbourhoods", "neighbours"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def batch(self, count: int) -> MutualBatch:
        """See :class:`BatchMethod`."""
        return MutualBatch(self, count)
