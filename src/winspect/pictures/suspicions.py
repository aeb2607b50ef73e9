"""Texts of ``warning``: what is suspicious about a picture that can be scored all the same."""

from __future__ import annotations

import numpy as np

BLACK, WHITE = 10, 250
"""A picture is black, or white, when no 8-bit value the model sees is above, or below, this. A covered lens gives
noise of a few levels; the means over what becomes one of the model's pixels stay below this."""
CONSTANT = 2
"""A picture has a constant colour when none of its channels spans more levels than this in what the model sees. JPEG
gives a constant frame back within one level; photographs of blank surfaces span 10 and more, by their lighting."""
_SAMPLED = 12


def joined(*warnings: str | None) -> str | None:
    """Join several warnings to one text.

    >>> joined("black", None, "damaged"), joined(None)
    ('black; damaged', None)
    """
    return "; ".join(filter(None, warnings)) or None


def blank_frame(pixels: np.ndarray) -> str | None:
    """Warn of a picture that is black, white or of a constant colour.

    Args:
        pixels: uint8 (..., 3), RGB: what the model sees, where the noise of single pixels is averaged out.
    """
    if _blank(pixels[..., ::_SAMPLED, ::_SAMPLED, :]) is None:  # a sample rules it out, at a hundredth of the work
        return None
    return _blank(pixels)


def _blank(pixels: np.ndarray) -> str | None:
    flat = pixels.reshape(-1, pixels.shape[-1])
    low, high = flat.min(axis=0), flat.max(axis=0)
    if high.max() <= BLACK:
        return "a black picture: is the lens covered, the light off, or the exposure too short?"
    if low.min() >= WHITE:
        return "a white picture: is the exposure too long, or the light too bright?"
    if (high - low).max() <= CONSTANT:
        colour = ", ".join(str(level) for level in np.rint(flat.mean(axis=0)).astype(int))
        return f"a constant colour (RGB {colour}): does the camera deliver a picture?"
    return None
