"""What is kept of good samples, in memory and as a file. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winspect.backbones.embeddings import Embeddings
from winspect.methods.winclip.fusion import GoodSamples
from winspect.methods.winclip.judge import References
from winspect.system.opening import open_file


@dataclass(frozen=True)
class Learned:
    """Good samples, encoded.

    Attributes:
        references: what is kept of them.
        warnings: a line for each sample that decoding warned of.
        samples: the first of them one by one; none where the set was read from the disk.
    """

    references: References
    warnings: tuple[str, ...] = ()
    samples: tuple[Embeddings, ...] = ()


_WINDOWS = "windows_"
_FUSION_ONLY = ("stem", "crowding", "looks")


def save_references(references: References, path: Path) -> None:
    """Write them as .npz: ``patches``, ``windows_S`` of every scale, and what the log fusion keeps beside them.

    Args:
        references: in NumPy arrays.
    """
    arrays: dict[str, Any] = {"patches": references.patches}
    arrays |= {f"{_WINDOWS}{scale}": windows for scale, windows in references.windows.items()}
    if references.log_fusion is not None:
        arrays |= {name: getattr(references.log_fusion, name) for name in _FUSION_ONLY}
    if references.tiles is not None:
        arrays["tiles"] = np.array(references.tiles)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load_references(path: Path) -> References:
    """Read what :func:`save_references` wrote; no pickled code is run."""
    with open_file(path) as opened, np.load(opened, allow_pickle=False) as file:
        if any(entry.compress_type for entry in file.zip.infolist()):  # asks for more memory than the file has bytes
            raise ValueError(f"{path}: compressed, which references never are")
        arrays = {name: file[name] for name in file.files}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{path}: holds numbers that are not finite")
    windows = {int(name.removeprefix(_WINDOWS)): own for name, own in arrays.items() if name.startswith(_WINDOWS)}
    patches = arrays["patches"]
    fusion = None
    if "stem" in arrays:
        fusion = GoodSamples(patches=patches, windows=windows, **{name: arrays[name] for name in _FUSION_ONLY})
    return References(patches, windows, fusion, int(arrays["tiles"]) if "tiles" in arrays else None)
