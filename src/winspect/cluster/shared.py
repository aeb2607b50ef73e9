"""What is made once and sent to every worker: text embeddings, good samples, how pictures are cut, what decides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from winspect.calibration.judgement import check_threshold
from winspect.errors import SettingsError
from winspect.methods.winclip.prompts import PromptEnsemble, class_key
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.pictures.tiles import Cut, Preprocess
from winspect.system.preferences import default_precision
from winspect.weights import LOCAL

if TYPE_CHECKING:
    from winspect.calibration import Calibration, RegionRule
    from winspect.inspector.base import Predictor
    from winspect.inspector.state import ClassState


@dataclass(frozen=True)
class Model:
    """How a worker loads its model.

    Attributes:
        options: of :class:`winspect.WinCLIP`; or ``bundle`` alone, the folder of an edge bundle.
        threads: of its mathematics on a CPU; None for the machine's.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None

    def load(self) -> Predictor:
        """Load it in this process."""
        bundle = self.options.get("bundle")
        if bundle is not None:
            from winspect.inspector.edge import load_bundle

            return load_bundle(bundle)
        import torch

        from winspect.inspector.winclip import WinCLIP

        if self.threads is not None:
            torch.set_num_threads(self.threads)  # the engines take their number of threads from here
        return WinCLIP(**self.options)


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
class Judging:
    """What is asked of the model.

    Attributes:
        classes: all classes of the inputs.
        references: good samples, for each class; ``shots``: the first so many of them.
        threshold: scores from here on are anomalous; ``calibration``: decides where it is None.
        regions: which defects get boxes; None for none.
        maps: whether maps are kept, for arrays or overlays.
        stretch: the colours of heat maps to each picture.
    """

    classes: Sequence[str]
    references: Sequence[str] = ()
    shots: int | None = None
    threshold: float | None = None
    calibration: Calibration | None = None
    regions: RegionRule | None = None
    maps: bool = False
    stretch: bool = False

    @property
    def needs_maps(self) -> bool:
        """Whether the model makes maps."""
        return self.maps or self.regions is not None


@dataclass(frozen=True)
class Shared:
    """What every worker needs, and what their scores are held to.

    Attributes:
        described: of the model that made this; a worker whose model differs is refused.
        preprocess, cut: pictures to tiles.
        states: of each class.
        judging: what was asked.
        ranges: the scale of each class' heat maps; None stretches them.
    """

    described: Mapping[str, Any]
    preprocess: Preprocess
    cut: Cut
    states: Mapping[str, ClassState]
    judging: Judging
    ranges: Mapping[str, ScoreRange | None] = field(default_factory=dict)

    @property
    def made_by(self) -> dict[str, Any]:
        """What every row says of the model."""
        return {name: self.described[name] for name in ("model", "weights_sha256")}


def make_shared(model: Model, judging: Judging) -> Shared:
    """Load the model here, encode every class, and show it its good samples.

    Raises:
        WinspectError: the model cannot be loaded, a class or a reference cannot be used, or the calibration is
            another model's.
    """
    predictor = model.load()
    check_threshold(judging.threshold, predictor.recipe.score_range)
    for name in judging.classes:
        if judging.references:
            predictor.reference(list(judging.references), name, shots=judging.shots)
        predictor.prepare_class(name)
    if judging.calibration is not None:
        judging.calibration.check_model(predictor, judging.classes[0])
    predictor.prepare_engine(judging.classes[0], maps=judging.needs_maps)  # from then on it says what runs
    return Shared(
        described=predictor.describe(),
        preprocess=predictor.preprocess,
        cut=predictor.cut,
        states={name: predictor.state_of(name) for name in judging.classes},
        judging=judging,
        ranges={name: _range_of(predictor, name, judging) for name in judging.classes} if judging.maps else {},
    )


def _range_of(predictor: Predictor, name: str, judging: Judging) -> ScoreRange | None:
    if judging.stretch:
        return None
    calibration, threshold = judging.calibration, None if judging.regions is None else judging.regions.pixel_threshold
    if calibration is not None and calibration.map_maxima is not None:
        return run_range(calibration.map_maxima, threshold or calibration.pixel_threshold)
    return run_range(predictor.good_levels(name), threshold)


def check_judging(judging: Judging) -> None:
    """Refuse good samples, or a calibration, of one class for inputs of several.

    Raises:
        SettingsError: names the classes.
    """
    if len(set(map(class_key, judging.classes))) > 1 and (judging.references or judging.calibration is not None):
        what = "--reference" if judging.references else "--calibration"
        shown = ", ".join(judging.classes[:5]) + (", ..." if len(judging.classes) > 5 else "")
        raise SettingsError(
            f"{what} is for one class, but the inputs have {len(judging.classes)} ({shown}); run batch once a class"
        )


def differences(expected: Mapping[str, Any], described: Mapping[str, Any]) -> str | None:
    """In what a model's description differs from the one expected, in words; None where it does not."""
    told = [
        f"{name}: {described.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if described.get(name) != value
    ]
    return "; ".join(told) or None
