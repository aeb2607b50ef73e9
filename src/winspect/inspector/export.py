"""Writes a bundle; needs torch. It is loaded again and its scores are checked against the model's before it is kept."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from winspect.backbones.embeddings import Needs
from winspect.backbones.image_tower import grid_of
from winspect.bundle.manifest import GRAPHS, MANIFEST, PREPROCESSING, BundledClass, Manifest
from winspect.calibration import Calibration
from winspect.engines.compiled import save_openvino
from winspect.engines.compiled_engine import CompiledEngine
from winspect.engines.gate.pictures import gate_pictures
from winspect.engines.traced import TracedTokens, openvino_trace, write_onnx_trace
from winspect.errors import BundleError, EngineError, OutputError
from winspect.inspector.edge import EdgePredictor, graph_needs, preprocessing_document
from winspect.inspector.saving import put_in_place
from winspect.inspector.winclip import WinCLIP
from winspect.methods.method import CutPicture
from winspect.methods.winclip.prompts import check_class_name, class_key
from winspect.system.files import output_error

LARGEST_DIFFERENCE = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.02}
"""Between scores of the bundle and of the model on the same picture, of scores above 1 as a share of them; above it no
bundle is written. In the lower precisions rounding alone, met by other rounding in front of it, moves a score in the
third digit."""

_CHECKED_PICTURES = 4


def export(
    model: WinCLIP,
    categories: Sequence[str],
    out: str | PathLike[str],
    *,
    calibrations: Mapping[str, Calibration] | None = None,
    products: Mapping[str, Mapping[str, Any]] | None = None,
    add: bool = False,
    picture_wh: tuple[int, int] | None = None,
) -> float:
    """Write an edge bundle, or add classes to one.

    Args:
        model: with engine ``openvino`` or ``onnx``, and with the references its classes are scored with.
        categories: the classes, at least one.
        out: a folder that does not exist, or is empty; with ``add`` a bundle of the same model.
        calibrations: by class; each is checked against the model.
        products: documents of the products that classes are of, by class, for the bundle to keep.
        add: add the classes to the bundle in ``out``, or replace them there.
        picture_wh: width and height in pixels of the pictures that it will inspect. It matters where the recipe keeps
            their aspect ratio: the graph is for one shape, and pictures of another are refused. None for squares.

    Returns:
        The largest difference between the bundle's scores and the model's on generated pictures; see
        :data:`LARGEST_DIFFERENCE`.

    Raises:
        EngineError: another engine.
        SettingsError: a calibration was made with something else.
        OutputError: ``out`` is not empty, or cannot be written.
        BundleError: with ``add``: another model's bundle; or the bundle's scores are not the model's.
    """
    model.method.check_alone("an edge bundle")
    engine = model.engine
    if not isinstance(engine, CompiledEngine):
        raise EngineError(
            f"cannot export engine {engine.name} on {engine.device}: a bundle runs in openvino or onnx on a CPU; "
            "choose one of them"
        )
    for category, calibration in (calibrations or {}).items():
        calibration.check_model(model, category)
    picture_wh = picture_wh if model.preprocess.aspect else None
    target = Path(out)
    _check_target(target, add)
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        classes: dict[str, BundledClass] = {}
        zero_shot = any(not model.references_of(category) for category in categories)
        needs = graph_needs(model.method, zero_shot=zero_shot)
        if add:
            earlier = Manifest.read(target)
            _check_same_model(earlier, model)
            was_zero_shot = any(bundled.references is None for bundled in earlier.classes.values())
            if not was_zero_shot and needs != graph_needs(model.method, zero_shot=False):
                raise BundleError(
                    f"{target}: exported for classes with good samples alone: give --reference, or export it anew with "
                    "all its classes"
                )
            shutil.copytree(target, staging, dirs_exist_ok=True)
            classes |= earlier.classes
            if earlier.traced_hw is not None:  # its graph has one shape
                engine.image_hw = earlier.traced_hw
                picture_wh = engine.image_hw[::-1] if model.preprocess.aspect else None
        else:
            if picture_wh is not None:
                engine.image_hw = _tile_hw(model, picture_wh)
            _write_model(model, engine, needs, staging)
        _write_classes(model, categories, calibrations or {}, staging, classes)
        for category, document in (products or {}).items():
            _give_product(classes, category, document)
        traced_hw = engine.image_hw if engine.is_traced(needs) else None
        grid_hw = model.grid_hw if traced_hw is None else grid_of(needs.seen_hw(traced_hw), engine.tower.patch)
        manifest = Manifest(model.identity(), model.method.scoring, grid_hw, classes, sha256={}, traced_hw=traced_hw)
        manifest.write(staging)
        bundle = EdgePredictor(staging, Manifest.read(staging))
        largest = _largest_difference(model, bundle, categories, picture_wh)
        if largest > LARGEST_DIFFERENCE[model.precision]:
            raise BundleError(
                f"the bundle's scores differ from the model's by up to {largest:.2g}, more than "
                f"{LARGEST_DIFFERENCE[model.precision]:g} in {model.precision}; it was not written. Try another engine"
            )
        put_in_place(staging, target)
    except OSError as error:
        raise error if isinstance(error, OutputError) else output_error(target, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return largest


def _check_target(target: Path, add: bool) -> None:
    if add and not (target / MANIFEST).is_file():
        raise BundleError(f"{target}: no bundle that classes could be added to; export without --add first")
    if not add and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target}: not an empty folder; choose another --out, or --add to add classes to a bundle")


def _check_same_model(earlier: Manifest, model: WinCLIP) -> None:
    if different := earlier.identity.differences(model.identity(), ignore=["winspect"]):
        words = "; ".join(difference.in_words("{name}: {first} there, {second} here") for difference in different)
        raise BundleError(f"the bundle was exported from something else ({words}); export it anew with all its classes")


def _write_model(model: WinCLIP, engine: CompiledEngine, needs: Needs, folder: Path) -> None:
    (folder / "graphs").mkdir()
    engine.save_tower(folder / "graphs", needs)
    if not engine.is_traced(needs):
        tower: Any = engine.tower
        tokens, place = TracedTokens(tower).eval(), folder / GRAPHS[engine.name][0]
        pixels = torch.zeros(1, 3, *tower.image_hw)
        if engine.name == "openvino":
            save_openvino(openvino_trace(tokens, pixels, tokens.outputs), place)
        else:
            write_onnx_trace(tokens, pixels, tokens.outputs, place)
    document = preprocessing_document(model.preprocess, replace(model.cut, alignment=model.alignment))
    (folder / PREPROCESSING).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _write_classes(
    model: WinCLIP,
    categories: Sequence[str],
    calibrations: Mapping[str, Calibration],
    folder: Path,
    classes: dict[str, BundledClass],
) -> None:
    """Write classes, in place of those that are there under the same words; ``classes`` is completed."""
    for category in categories:
        same = (known for known in classes if class_key(known) == class_key(category))
        name = next(same, check_class_name(category))
        if name in classes:
            shutil.rmtree((folder / classes[name].text).parent)
        classes[name] = _write_class(model, name, folder, calibrations.get(category))


def _write_class(model: WinCLIP, key: str, folder: Path, calibration: Calibration | None) -> BundledClass:
    slug = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:40] or "class"
    taken = [int(found.name.split("-")[0]) for found in (folder / "classes").glob("*-*")]
    place = f"classes/{max(taken, default=-1) + 1:02d}-{slug}"
    (folder / place).mkdir(parents=True)
    state = model.state_of(key)
    files = state.save(folder / place, "")
    bundled = BundledClass(text=f"{place}/{files['text']}")
    if state.references is not None:
        bundled = replace(bundled, references=f"{place}/{files['references']}", samples=state.samples)
        bundled = replace(bundled, alignment=files.get("alignment"))
    if calibration is not None:
        calibration.save(folder / place / "calibration.json")
        bundled = replace(bundled, calibration=f"{place}/calibration.json")
    return bundled


def _give_product(classes: dict[str, BundledClass], category: str, document: Mapping[str, Any]) -> None:
    """Keep the product of a class in the bundle.

    Raises:
        BundleError: another of its classes is a product of this name: rows would not say which.
    """
    for name, bundled in classes.items():
        if class_key(name) == class_key(category):
            classes[name] = replace(bundled, product=document)
        elif bundled.product is not None and bundled.product["name"].casefold() == document["name"].casefold():
            raise BundleError(
                f"the bundle holds a product {document['name']!r} already, of class {name!r}; give this another name"
            )


def _tile_hw(model: WinCLIP, picture_wh: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a whole picture becomes in front of the model."""
    height, width, _ = model.preprocess.resize(Image.new("RGB", picture_wh)).shape
    return height, width


def _largest_difference(
    model: WinCLIP, bundle: EdgePredictor, categories: Sequence[str], picture_wh: tuple[int, int] | None
) -> float:
    differences = []
    for category in categories:
        pictures = _pictures_to_check(model, category)
        picture_wh = model.cut_of(category).picture_wh or picture_wh
        if picture_wh is not None:
            pictures = [np.asarray(Image.fromarray(picture).resize(picture_wh)) for picture in pictures]
        pairs = zip(bundle.predict_many(pictures, category), model.predict_many(pictures, category), strict=True)
        differences += [
            abs(ours.anomaly_score - theirs.anomaly_score) / max(1.0, abs(theirs.anomaly_score))
            for ours, theirs in pairs
            if ours.anomaly_score is not None and theirs.anomaly_score is not None
        ]
    return max(differences)


def _pictures_to_check(model: WinCLIP, category: str) -> list[np.ndarray]:
    """Generated pictures, continued to as many tiles as the references have where they could not be compared else."""
    pictures = gate_pictures()[0][:_CHECKED_PICTURES]
    references = model.state_of(category).references
    if references is None or references.tiles is None or not model.method.refusal(CutPicture(1), references):
        return pictures
    side = pictures[0].shape[0]
    more = (references.tiles - 1) * int(model.cut.stride_fraction * side)
    return [np.pad(picture, ((0, 0), (0, more), (0, 0)), mode="wrap") for picture in pictures]
