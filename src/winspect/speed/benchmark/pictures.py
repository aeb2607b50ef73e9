"""Which pictures are judged, and how many tiles they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from winspect.errors import MissingExtraError, PictureError

if TYPE_CHECKING:
    from winspect.pictures.tiles import Preprocess


def packaged_pictures() -> list[Path]:
    """Real pictures of fabric that install as a package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    from winspect.datasets.packaged import open_textile

    try:
        return [item.path for item in open_textile().items]
    except MissingExtraError as error:
        raise MissingExtraError(
            f"got no pictures: name files or folders of your own, or use those of a package; {error}"
        ) from error


def at_even_steps(pictures: Sequence[Path], count: int) -> list[Path]:
    """``count`` of the pictures from the first to the last, in order; all where there are no more.

    >>> at_even_steps("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if count >= len(pictures):
        return list(pictures)
    steps = max(count - 1, 1)
    return [pictures[round(number * (len(pictures) - 1) / steps)] for number in range(count)]


def count_tiles(
    pictures: Sequence[str], preprocess: Preprocess, tile_stride: float
) -> tuple[dict[str, int], dict[str, str]]:
    """Tiles of recipe ``tiles`` of each picture that can be used, and why the others cannot."""
    from winspect.pictures.tiles import Cut, prepare

    tiles, failed = {}, {}
    for picture in pictures:
        try:
            tiles[picture] = len(prepare(picture, preprocess, Cut(tiling=True, stride_fraction=tile_stride)).tiles)
        except PictureError as error:
            failed[picture] = error.reason
    return tiles, failed
