"""How many pictures each category has, officially, and how many are there.

VisA: counted in the data set's own split file, ``split_csv/1cls.csv`` (10,821 rows). MVTec AD: Bergmann et al.,
CVPR 2019, table of the data set's statistics. ``elpv`` and ``textile``: counted in the packages, see ``packaged``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from winspect.datasets.items import Item


@dataclass(frozen=True)
class Counts:
    """Pictures of one category, by split and label."""

    train_normal: int = 0
    test_normal: int = 0
    test_anomalous: int = 0


OFFICIAL: dict[str, dict[str, Counts]] = {
    "visa": {
        "candle": Counts(900, 100, 100),
        "capsules": Counts(542, 60, 100),
        "cashew": Counts(450, 50, 100),
        "chewinggum": Counts(453, 50, 100),
        "fryum": Counts(450, 50, 100),
        "macaroni1": Counts(900, 100, 100),
        "macaroni2": Counts(900, 100, 100),
        "pcb1": Counts(904, 100, 100),
        "pcb2": Counts(901, 100, 100),
        "pcb3": Counts(905, 101, 100),
        "pcb4": Counts(904, 101, 100),
        "pipe_fryum": Counts(450, 50, 100),
    },
    "mvtec": {
        "bottle": Counts(209, 20, 63),
        "cable": Counts(224, 58, 92),
        "capsule": Counts(219, 23, 109),
        "carpet": Counts(280, 28, 89),
        "grid": Counts(264, 21, 57),
        "hazelnut": Counts(391, 40, 70),
        "leather": Counts(245, 32, 92),
        "metal_nut": Counts(220, 22, 93),
        "pill": Counts(267, 26, 141),
        "screw": Counts(320, 41, 119),
        "tile": Counts(230, 33, 84),
        "toothbrush": Counts(60, 12, 30),
        "transistor": Counts(213, 60, 40),
        "wood": Counts(247, 19, 60),
        "zipper": Counts(240, 32, 119),
    },
    "elpv": {"solar_cell": Counts(0, 1803, 821)},
    "textile": {"textile": Counts(0, 1000, 1000)},
}


def count_items(items: Iterable[Item]) -> Counts:
    """How many pictures there are, by split and label; anomalous training pictures are left out."""
    counted = Counter(f"{item.split}_{item.label}" for item in items)
    return Counts(counted["train_normal"], counted["test_normal"], counted["test_anomalous"])
