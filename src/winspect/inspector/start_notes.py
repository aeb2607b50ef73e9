"""What a model's options meant when they were last used, on the disk: all that a start without torch must know.

A note is found by the options and by everything beside them that the same options depend on: releases, processor,
accelerators, defaults of the user. It counts as long as the files that it lists are as they were. No torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from glob import glob
from pathlib import Path
from typing import Any

from winspect.engines.options import EngineOptions
from winspect.inspector.kept_engine import KeptGraph
from winspect.methods.registry import default_recipe, get_method
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.system.files import expanded
from winspect.system.machine import cpu_features, release_of, usable_cores, versions
from winspect.system.opening import read_text
from winspect.system.preferences import default_precision
from winspect.weights import DEFAULT_MODEL, LOCAL, cache_folder
from winspect.weights.cache import name_of, write_json

logger = logging.getLogger(__name__)

_VERSION = 1
_CODE = ("backbones", "engines")  # what graphs are made by
_DEVICE_FILES = ("/dev/nvidia*", "/dev/davinci*", "/dev/kfd", "/dev/dxg")
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

FileState = tuple[str, int, int] | tuple[str, None, None]
"""A file's path, size and time of modification; None where it is not there."""


@dataclass(frozen=True)
class StartNote:
    """What options meant.

    Attributes:
        identity: the document of the model's :class:`~winspect.methods.identity.Identity`.
        scoring: what the checkpoint says of its scoring, for :meth:`Method.for_model`.
        preprocess: fields of :class:`~winspect.pictures.tiles.Preprocess`.
        grid_hw: rows and columns of the patch grid.
        weights_key: identity of the weights in the keys of caches.
        graphs: one for each kind of use that was met.
        threads: that the engine was given.
        remarks: warnings that come with the weights.
        reasons: decisions that were not the user's, a sentence each.
        files: weights and configurations that the options led to.
    """

    identity: Mapping[str, Any]
    scoring: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    grid_hw: tuple[int, int]
    weights_key: str
    graphs: tuple[KeptGraph, ...]
    threads: int
    remarks: tuple[str, ...]
    reasons: tuple[str, ...]
    files: tuple[FileState, ...]


def key_of(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Key of a note: the options of :class:`winspect.WinCLIP` and what else decides what they mean.

    Returns:
        None for options that only torch serves: another engine or device than OpenVINO's on the CPU, another precision
        than fp32, captured graphs, weights that are prefetched. In lower precisions, rounding met by other rounding in
        front of it would move the third digit of a score.

    Raises:
        SettingsError: as of :class:`winspect.WinCLIP`.
    """
    names = ("engine", "precision", "device", "plan", "graphs", "gate", "batch_size", "int8_pictures")
    asked = EngineOptions(**{name: options[name] for name in names if options.get(name) is not None})
    device, engine = asked.device, asked.engine
    # Windows does not say which accelerators there are: there the device must be clear without them.
    is_clear = device == "cpu" or (device == "auto" and (engine == "openvino" or sys.platform != "win32"))
    precision = asked.precision or default_precision().precision
    is_served = engine in ("auto", "openvino") and is_clear and asked.plan != "prefetch" and not asked.graphs
    if not is_served or precision not in (None, "fp32") or asked.int8_pictures is not None:
        return None
    model = options.get("model") or DEFAULT_MODEL
    prompts = options.get("prompts")
    prompts = prompts if isinstance(prompts, PromptEnsemble) else PromptEnsemble.read(prompts)
    place = str(expanded(model.removeprefix(LOCAL)).absolute()) if model.startswith(LOCAL) else None
    return {
        "version": _VERSION,
        "model": [model, place],
        "weights": _weights_entry(options.get("weights")),
        "recipe": get_method(options.get("recipe") or default_recipe(model), options.get("settings")).document(),
        "prompts": asdict(prompts),
        "engine": engine,
        "device": device,
        "bit_depth": options.get("bit_depth"),
        "machine": _machine(),
    }


def _weights_entry(weights: str | os.PathLike[str] | None) -> list[Any] | None:
    """A name may be a tag and a file: the kind decides which, and the place where it is a file."""
    if weights is None:
        return None
    path = expanded(weights)
    return [type(weights).__name__ == "str", os.fspath(weights), str(path.absolute()) if path.is_file() else None]


def _machine() -> dict[str, Any]:
    """What the same options depend on beside the weights."""
    if sys.platform.startswith("linux"):
        cpu = cpu_features()
        processor: list[Any] = [cpu.name, {**cpu.flags}]
    else:  # cpu_features() would import torch
        processor = [platform.machine(), platform.processor()]
    return {
        "system": [sys.platform, platform.machine()],
        "processor": processor,
        "cores": usable_cores(),
        "accelerators": sorted(path for pattern in _DEVICE_FILES for path in glob(pattern)),
        "variables": {name: os.environ.get(name) for name in _VARIABLES},
        "releases": {**versions(), "timm": release_of("timm")},
        "code": _code(),
    }


def _code() -> str:
    """A checkout changes without a new release."""
    package = Path(__file__).parents[1]
    states = [file_state(path) for room in _CODE for path in sorted((package / room).rglob("*.py"))]
    return name_of([[str(Path(path).relative_to(package)), *rest] for path, *rest in states])


def file_state(path: Path) -> FileState:
    """See :data:`FileState`."""
    try:
        status = path.stat()
    except OSError:
        return str(path), None, None
    return str(path), status.st_size, status.st_mtime_ns


def read_note(
    key: Mapping[str, Any], cache_dir: str | os.PathLike[str] | None, *, level: int = logging.WARNING
) -> StartNote | None:
    """The note of a key; None where there is none, where files are no longer as it lists them, or it is damaged.

    Args:
        level: of the line that says that it is damaged.
    """
    path = _place(key, cache_dir)
    try:
        document = json.loads(read_text(path))
        text, sha256 = document["note"], document["sha256"]
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise ValueError("its checksum is wrong")
        note = _read(json.loads(text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.log(level, "%s: unreadable note of an earlier start (%s); loading the model with torch", path, error)
        return None
    return note if all(file_state(Path(state[0])) == state for state in note.files) else None


def write_note(key: Mapping[str, Any], note: StartNote, cache_dir: str | os.PathLike[str] | None) -> None:
    """Keep a note, atomically.

    Raises:
        OSError: it cannot be written.
    """
    path = _place(key, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(note))
    write_json(path, {"note": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def _place(key: Mapping[str, Any], cache_dir: str | os.PathLike[str] | None) -> Path:
    return cache_folder(cache_dir) / "starts" / f"{name_of(key)}.json"


def _read(document: Mapping[str, Any]) -> StartNote:
    rows, columns = document["grid_hw"]
    read = {
        "grid_hw": (int(rows), int(columns)),
        "graphs": tuple(map(KeptGraph.read, document["graphs"])),
        "files": tuple(map(tuple, document["files"])),
        "remarks": tuple(document["remarks"]),
        "reasons": tuple(document["reasons"]),
    }
    return StartNote(**{**document, **read})
