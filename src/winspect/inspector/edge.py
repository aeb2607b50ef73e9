"""A bundle as a predictor."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.bundle.engine import EdgeEngine
from winspect.bundle.manifest import PREPROCESSING, BundledClass, Manifest, read_json, refusing_damage
from winspect.calibration import Calibration
from winspect.errors import BundleError, PictureError
from winspect.inspector.base import Predictor
from winspect.inspector.class_state import ClassState
from winspect.methods.identity import Identity
from winspect.methods.method import Method, PictureScores, References
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.alignment import Alignment
from winspect.pictures.roi import Roi
from winspect.pictures.tiles import Cut, Prepared, Preprocess
from winspect.system.arrays import Array


def load_bundle(folder: str | PathLike[str]) -> EdgePredictor:
    """Load an edge bundle; its files are checked against their hashes.

    Raises:
        BundleError: no bundle, a damaged one, or one of a newer release.
        MissingExtraError: its engine is not installed.
    """
    place = Path(folder)
    return EdgePredictor(place, Manifest.read(place))


def graph_needs(method: Method, *, zero_shot: bool) -> Needs:
    """What a bundle's graph gives: for classes with good samples, and with ``zero_shot`` for those without beside."""
    needs = method.needs(few_shot=True, maps=True)
    if not zero_shot:
        return needs
    more = [layer for layer in method.needs(few_shot=False, maps=True).layers if layer not in needs.layers]
    return replace(needs, layers=(*needs.layers, *more))


class EdgePredictor(Predictor):
    """Scores the classes of a bundle as the exported model does, within 1e-4 in fp32.

    It predicts, takes good samples and calibrates as :class:`winspect.WinCLIP` does; it cannot encode the prompts of a
    class that the bundle does not hold.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._bundled, self._folder = manifest.identity, folder
        super().__init__(bit_depth=manifest.identity.bit_depth)
        self.model, self.weights_sha256 = manifest.identity.model, manifest.identity.weights_sha256
        self.grid_hw = manifest.grid_hw
        with refusing_damage(folder):
            self.method = manifest.identity.recipe.for_model(manifest.scoring, self.model)
            settings = read_json(folder / PREPROCESSING)
            self.preprocess = Preprocess(**settings["tiles"])
            if (roi := settings["cut"].get("roi")) is not None:
                self.roi = Roi.read(roi)
            if (alignment := settings["cut"].get("alignment")) is not None:
                self.alignment = Alignment.read(alignment)
            self._calibrations: dict[str, Calibration] = {}
            self._names: dict[str, str] = {}
            for name, bundled in manifest.classes.items():
                self._load_class(folder, name, bundled)
            zero_shot = any(bundled.references is None for bundled in manifest.classes.values())
            self._needs = graph_needs(self.method, zero_shot=zero_shot)
            self.engine = EdgeEngine(folder, manifest, self._needs)

    def _load_class(self, folder: Path, name: str, bundled: BundledClass) -> None:
        references = None if bundled.references is None else folder / bundled.references
        self._names[class_key(name)] = name
        self.take(name, ClassState.read(folder / bundled.text, references, bundled.samples, bundled.alignment))
        if bundled.calibration is not None:
            self._calibrations[class_key(name)] = Calibration.load(folder / bundled.calibration)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes it can score: the bundle's, and those taken."""
        return tuple(self._names.get(key, key) for key in self._texts)

    def calibration(self, category_name: str) -> Calibration | None:
        """The class's calibration in the bundle, if there is one. It holds as long as the references are the bundle's.

        Raises:
            BundleError: the bundle does not hold the class.
        """
        self._class_text(category_name)  # refuses a class it cannot score
        return self._calibrations.get(class_key(category_name))

    def _identity(self) -> Identity:
        return self._bundled

    def _encode_text(self, category_name: str) -> Array:
        raise BundleError(
            f"the class {category_name!r} is not in this bundle, which holds {', '.join(map(repr, self.classes))}; "
            "name one of them, or add it with winspect export --add"
        )

    def _comparable(self, item: Prepared | PictureError, references: References | None) -> Prepared | PictureError:
        if isinstance(item, Prepared) and (reason := self.engine.refusal(item.tiles.shape[2:])) is not None:
            return PictureError(item.name, reason)
        return super()._comparable(item, references)

    def _encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        if not {*needs.layers} <= {*self._needs.layers}:
            raise BundleError(
                f"{self._folder}: exported for classes with good samples alone: show this one some, or export it anew"
            )
        with refusing_damage(self._folder):
            return self.engine.encode(tiles, needs)

    def _score(self, *items: Any) -> list[PictureScores]:
        with refusing_damage(self._folder):  # where embeddings, text and references do not fit each other
            return super()._score(*items)


def preprocessing_document(preprocess: Preprocess, cut: Cut) -> dict[str, Any]:
    """``preprocessing.json``: 8-bit RGB, resized, / 255, minus mean, over deviation; and how tiles are cut."""
    tiles = {name: getattr(preprocess, name) for name in ("size", "mean", "std", "interpolation")}
    if preprocess.aspect:
        tiles |= {"aspect": True, "patch": preprocess.patch}
    return {"tiles": tiles, "cut": cut.document()}
