"""timm's models by name: ``timm/NAME``, or a folder with timm's ``config.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm

from winspect.errors import ArchitectureError, SettingsError, WeightsCorruptError, WeightsMissingError
from winspect.pictures.tiles import Preprocess
from winspect.system.files import expanded
from winspect.system.opening import read_text
from winspect.weights import LOCAL, TIMM
from winspect.weights.configs import CONFIG_FILE, source_of_file, weights_in
from winspect.weights.fetching import Repository, Url
from winspect.weights.tags import Source, chosen_preprocess

TIMM_CONFIG_FILE = "config.json"
"""What timm writes beside the weights of a model that it saves for the hub."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a repository, the preferred one first."""
_FAMILIES = ("timm.models.vision_transformer", "timm.models.eva")
_EXAMPLE = "timm/vit_small_patch14_dinov2.lvd142m"


def is_timm(model: str) -> bool:
    """Whether a model's name is one of timm's, or a folder with timm's configuration and none of open_clip's."""
    if not model.startswith(LOCAL):
        return model.startswith(TIMM)
    folder = expanded(model.removeprefix(LOCAL))
    return (folder / TIMM_CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file()


def timm_source(model: str, weights: str | os.PathLike[str] | None, folder: Path) -> Source:
    """The source of a timm model. Its ``config`` is timm's: ``architecture``, ``model_args``, ``pretrained_cfg``.

    Args:
        model: ``timm/NAME``, with or without a pretrained tag behind a dot, or ``local-dir:FOLDER``.
        weights: a tag, or a file; None for the tag in the name, without one for timm's default.
        folder: where downloaded weights are kept.

    Raises:
        ArchitectureError: timm does not know the name, or it is none of a plain ViT.
        WeightsMissingError: no such tag or file, or timm has no weights for the name.
        WeightsCorruptError: the folder's configuration cannot be read.
        SettingsError: a folder, and weights beside it.
    """
    if model.startswith(LOCAL):
        if weights is not None:
            raise SettingsError(f"{model} brings its own weights, got {os.fspath(weights)!r}; leave the weights out")
        return _in_folder(model)
    name, _, tag = model.removeprefix(TIMM).partition(".")
    check_timm(name)
    if isinstance(weights, str) and weights in timm_tags(name):
        tag, weights = weights, None
    if tag and tag not in timm_tags(name):
        raise WeightsMissingError(f"timm has no weights {tag!r} of {name}; {_describe(name)}")
    settings = pretrained_settings(f"{name}.{tag}" if tag else name)
    config = {"architecture": name, "pretrained_cfg": settings}
    if weights is None:
        return _of_tag(name, config, folder)
    path = expanded(weights)
    if not os.path.isfile(path):
        typed = os.fspath(weights)
        raise WeightsMissingError(f"{typed!r} is neither weights of {model} nor a file here; {_describe(name)}")
    return replace(source_of_file(model, path.absolute(), _preprocess(model, settings)), config=config)


def timm_tags(name: str) -> list[str]:
    """timm's pretrained tags of an architecture; [] where there are none."""
    return [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]


def licence_of(source: Source) -> str | None:
    """What timm says of the licence of a source's weights, such as ``apache-2.0``; None where it is not known."""
    licence = (source.config or {}).get("pretrained_cfg", {}).get("license")
    return str(licence) if licence and source.kind == "tag" else None


def pretrained_settings(name: str) -> dict[str, Any]:
    """timm's settings of pretrained weights: mean, deviation, size and so on."""
    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return {} if found is None else found.to_dict()


def check_timm(name: str) -> None:
    """Refuse an architecture without the patch tokens of a plain ViT.

    Raises:
        ArchitectureError: timm does not know it, or it is another kind of network.
    """
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=4)
        hint = f"did you mean {' or '.join(TIMM + match for match in close)}?" if close else f"such as {_EXAMPLE}"
        raise ArchitectureError(f"unknown model {TIMM + name!r}: timm {timm.__version__} does not have it; {hint}")
    family = timm.models.model_entrypoint(name).__module__
    if family not in _FAMILIES:
        raise ArchitectureError(
            f"model {TIMM + name!r} cannot be used: timm's {family.rpartition('.')[2]} is no plain ViT, whose blocks "
            f"give a vector for each patch; choose one of its vit_ or eva models, such as {_EXAMPLE!r}"
        )


def _of_tag(name: str, config: Mapping[str, Any], folder: Path) -> Source:
    settings = config["pretrained_cfg"]
    if settings.get("hf_hub_id"):
        file = settings.get("hf_hub_filename")
        origin: Repository | Url = Repository(settings["hf_hub_id"], (file,) if file else HUB_FILES)
    elif settings.get("url"):
        origin = Url(settings["url"])
    else:
        raise WeightsMissingError(f"timm has no pretrained weights of {name}: give a file with --weights FILE")
    preprocess, tag = _preprocess(TIMM + name, settings), str(settings.get("tag") or "default")
    path = origin.find(folder)
    return Source(f"{TIMM}{name}", "tag", tag, path, preprocess, origin=origin, config=config)


def _in_folder(model: str) -> Source:
    folder = expanded(model.removeprefix(LOCAL)).absolute()
    path = folder / TIMM_CONFIG_FILE
    try:
        config = json.loads(read_text(path))
        name = str(config["architecture"])
        # In files of earlier releases the settings of the weights stand beside the architecture.
        own = config.get("pretrained_cfg", config)
        arguments = dict(config.get("model_args") or {})
        settings = {**pretrained_settings(name), **own}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsCorruptError(f"{path}: cannot be read as timm's configuration ({error!r})") from error
    check_timm(name)
    whole = {"architecture": name, "model_args": arguments, "pretrained_cfg": settings}
    source = source_of_file(f"{LOCAL}{folder.name}", weights_in(folder), _preprocess(model, settings))
    return replace(source, config=whole)


def _preprocess(model: str, settings: Mapping[str, Any]) -> Preprocess:
    try:
        _, height, width = settings["input_size"]
        preprocess = chosen_preprocess(Preprocess(int(height)), settings)
    except (LookupError, TypeError, ValueError, SettingsError) as error:
        raise ArchitectureError(f"{model}: timm's settings of its pictures cannot be used ({error})") from error
    if height != width:
        raise ArchitectureError(f"{model}: its input is {height} x {width}; need a square one")
    return preprocess


def _describe(name: str) -> str:
    tags = timm_tags(name)
    return f"timm has {', '.join(tags) or 'none'}; or give a file with --weights FILE"
