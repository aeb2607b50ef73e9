"""Pictures of products that never were, good and with defects: the training data of ``winspect-tiny``.

Everything is drawn from a family name and a seed; no picture of a real defect is read.
"""

from __future__ import annotations

from .families import FAMILIES, HELDOUT, TRAIN
from .pair import Pair, Product, make_pair, make_product

__all__ = ["FAMILIES", "HELDOUT", "TRAIN", "Pair", "Product", "make_pair", "make_product"]
