"""What methods that keep patches of good samples ask of them."""

from __future__ import annotations

from array_api_compat import array_namespace

from winspect.errors import ReferencesError
from winspect.methods.method import References
from winspect.system.arrays import Array


def given(references: References | None, recipe: str) -> References:
    """The references that a recipe compares with.

    Raises:
        ReferencesError: there are none.
    """
    if references is None:
        raise ReferencesError(f"recipe {recipe} compares with good samples: give at least one")
    return references


def checked_vectors(vectors: Array, sample: int) -> Array:
    """The vectors of a good sample, counted from 0, as float32.

    Raises:
        ReferencesError: some are not numbers.
    """
    xp = array_namespace(vectors)
    if not bool(xp.all(xp.isfinite(vectors))):
        raise ReferencesError(
            f"good sample {sample + 1} has vectors that are not numbers: use precision fp32 or bf16, or check the "
            "weights"
        )
    return xp.astype(vectors, xp.float32)
