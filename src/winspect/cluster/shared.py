"""What is made once and sent to every worker: text embeddings, good samples, the rule."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from winspect.calibration import DecisionRule
from winspect.calibration.judgement import check_threshold
from winspect.errors import ClusterError, SettingsError
from winspect.methods.identity import Identity
from winspect.methods.winclip.prompts import PromptEnsemble, class_key
from winspect.pictures.heatmaps import ScoreRange
from winspect.system.preferences import default_precision
from winspect.weights import LOCAL

if TYPE_CHECKING:
    from winspect.inspector.base import Predictor
    from winspect.inspector.class_state import ClassState


def portable(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options as they hold in any folder and environment; a file of prompts is read here, once."""
    options = {name: value for name, value in model.items() if value is not None}
    for name in ("weights", "bundle"):
        if os.path.exists(options.get(name, "")):
            options[name] = os.path.abspath(options[name])
    if str(options.get("model", "")).startswith(LOCAL):
        options["model"] = f"{LOCAL}{os.path.abspath(os.path.expanduser(options['model'].removeprefix(LOCAL)))}"
    if pictures := options.get("int8_pictures"):
        options["int8_pictures"] = [os.path.abspath(picture) for picture in pictures]
    if isinstance(prompts := options.get("prompts"), str | PathLike):
        options["prompts"] = PromptEnsemble.read(prompts)
    if "bundle" not in options:
        options.setdefault("precision", default_precision().precision or "fp32")
    return options


@dataclass(frozen=True)
class Inspection:
    """What the model is asked for.

    Attributes:
        classes: all classes of the inputs.
        references: good samples, for each class; ``shots``: the first so many of them.
        rule: what decides on results, and which defects get boxes.
        arrays: keep each picture's map on the patch grid.
        overlays: the folder or URI for heat maps over the pictures; None for none.
        stretch: the colours of heat maps to each picture.
    """

    classes: Sequence[str]
    references: Sequence[str] = ()
    shots: int | None = None
    rule: DecisionRule = field(default_factory=DecisionRule)
    arrays: bool = False
    overlays: str | None = None
    stretch: bool = False

    @property
    def needs_maps(self) -> bool:
        """Whether the model makes maps."""
        return self.arrays or self.overlays is not None or self.rule.regions is not None


@dataclass(frozen=True)
class Shared:
    """What every worker needs, and what their models are checked against.

    Attributes:
        identity: of the model that made this; a worker whose model differs refuses to work.
        states: of each class.
        inspection: what the model is asked for.
        ranges: the scale of each class' heat maps; none where they are stretched.
    """

    identity: Identity
    states: Mapping[str, ClassState]
    inspection: Inspection
    ranges: Mapping[str, ScoreRange | None] = field(default_factory=dict)

    @property
    def made_by(self) -> dict[str, Any]:
        """The columns of every row that name the model, and the product, if there is one."""
        product = self.inspection.rule.product
        named = {} if product is None else {"product": asdict(product)}
        return {"model": self.identity.model, "weights_sha256": self.identity.weights_sha256, **named}


def make_shared(predictor: Predictor, inspection: Inspection) -> Shared:
    """Encode every class, and its good samples.

    Raises:
        WinspectError: a class or a reference cannot be used, or the calibration is another model's.
    """
    check_threshold(inspection.rule.threshold, predictor.method.score_range)
    for name in inspection.classes:
        if inspection.references:
            predictor.reference(list(inspection.references), name, shots=inspection.shots)
        predictor.prepare_class(name)
    if inspection.rule.calibration is not None:
        inspection.rule.calibration.check_model(predictor, inspection.classes[0])
    # From then on it says what runs.
    predictor.prepare_engine(inspection.classes[0], maps=inspection.needs_maps)
    has_ranges = inspection.overlays is not None and not inspection.stretch
    good_levels, limits = predictor.good_levels, predictor.method.score_range
    return Shared(
        identity=predictor.identity(),
        states={name: predictor.state_of(name) for name in inspection.classes},
        inspection=inspection,
        ranges={
            name: inspection.rule.heat_range(partial(good_levels, name), limits)
            for name in inspection.classes
            if has_ranges
        },
    )


def check_inspection(inspection: Inspection) -> None:
    """Refuse good samples, or a calibration, of one class for inputs of several. Raises SettingsError."""
    if len(set(map(class_key, inspection.classes))) > 1 and (inspection.references or inspection.rule.calibration):
        what = "--reference" if inspection.references else "--calibration"
        shown = ", ".join(inspection.classes[:5]) + (", ..." if len(inspection.classes) > 5 else "")
        raise SettingsError(
            f"{what} is for one class, but the inputs have {len(inspection.classes)} ({shown}); run batch once a class"
        )


def check_same(predictor: Predictor, identity: Identity) -> None:
    """Refuse a model of another identity. Raises ClusterError, which says in what it differs."""
    if different := identity.differences(predictor.identity()):
        words = "; ".join(each.in_words("{name}: {second}, not {first}") for each in different)
        raise ClusterError(f"the model there is another one ({words})")
