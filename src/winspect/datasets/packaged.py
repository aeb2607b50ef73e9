"""Two sets of real pictures that install as packages (extra ``demo``).

``elpv``: 2,624 solar cells in electroluminescence, 300x300 grey, package ``elpv-dataset`` (Deitsch et al., Solar Energy
2019; CC BY-NC-SA 4.0). Experts gave each cell a probability of being defective: 0, 1/3, 2/3 or 1. Here a cell is
anomalous from 0.5 on, of the type ``defective`` (1) or ``likely_defective`` (2/3). Mono- and polycrystalline cells are
one category, ``solar_cell``; the manifest that ``prepare`` writes holds each one's kind and probability.

``textile``: 2,000 pictures of simulated fabric, package ``conformal-clip-data`` (Megahed et al., arXiv 2501.12596;
MIT), of the types ``good`` (there: nominal), ``local`` and ``global``.

Neither has a train split or masks. Nothing of theirs is part of winspect.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from winspect.datasets.folders import check_root, pictures_in
from winspect.datasets.items import GOOD, Dataset, Item, choose_categories
from winspect.datasets.tables import read_text
from winspect.errors import MissingExtraError, SourceError
from winspect.system.installation import install_command

SOLAR_CELL, TEXTILE = "solar_cell", "textile"
DEFECTIVE_FROM = 0.5
"""Cells with at least this probability of being defective are anomalous."""
PACKAGES = {"elpv": ("elpv_dataset", "elpv-dataset"), "textile": ("conformal_clip_data", "conformal-clip-data")}
_LABELS_FILE = "labels.csv"
_TEXTILE_FOLDERS = (("nominal", "normal", GOOD), ("local", "anomalous", "local"), ("global", "anomalous", "global"))


def package_folder(kind: str) -> Path:
    """The folder of pictures in the installed package.

    Raises:
        MissingExtraError: the package is not installed; names the extra.
    """
    module, package = PACKAGES[kind]
    try:
        spec = find_spec(module)
    except ValueError:  # the module is blocked or has no spec
        spec = None
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"the data set {kind} needs the package {package}: {install_command('demo')}")
    data = Path(spec.origin).parent / "data"
    return data if kind == "elpv" else data / "textile_images" / "simulated"


def open_elpv(root: Path | None = None, categories: Sequence[str] | None = None) -> Dataset:
    """Open the solar cells: a folder with ``labels.csv`` and ``images/``, by default that of the package."""
    root = package_folder("elpv") if root is None else check_root(root)
    chosen = choose_categories([SOLAR_CELL], categories, root)
    items = tuple(
        Item(root / name, SOLAR_CELL, "test", *_verdict(probability)) for name, probability, _ in read_cells(root)
    )
    return Dataset("elpv", root, chosen, items)


def read_cells(root: Path) -> list[tuple[str, float, str]]:
    """Each cell's file below ``root``, probability of being defective (0..1) and kind (``mono`` or ``poly``)."""
    path = root / _LABELS_FILE
    cells = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            name, probability, kind = fields[0], float(fields[1]), fields[2]
        except (IndexError, ValueError) as error:
            raise SourceError(f"{path}, line {number}: got {line!r}, need a file, a probability and a kind") from error
        if not 0 <= probability <= 1:
            raise SourceError(f"{path}, line {number}: got the probability {probability}, need 0 to 1")
        cells.append((name, probability, kind))
    if not cells:
        raise SourceError(f"{path}: no rows: install the package again")
    return cells


def _verdict(probability: float) -> tuple[str, str]:
    if probability < DEFECTIVE_FROM:
        return "normal", GOOD
    return "anomalous", "defective" if probability == 1 else "likely_defective"


def open_textile(root: Path | None = None, categories: Sequence[str] | None = None) -> Dataset:
    """Open the simulated fabric: a folder with ``nominal``, ``local`` and ``global``, by default the package's."""
    root = package_folder("textile") if root is None else check_root(root)
    chosen = choose_categories([TEXTILE], categories, root)
    items = tuple(
        Item(path, TEXTILE, "test", label, defect_type)
        for folder, label, defect_type in _TEXTILE_FOLDERS
        for path in pictures_in(root / folder)
    )
    if not items:
        raise SourceError(f"{root}: no pictures in nominal, local or global: install the package again")
    return Dataset("textile", root, chosen, items)
