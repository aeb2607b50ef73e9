"""Models that bring their configuration: the bundled one, a folder, a repository of the hub, a file with one beside it.

The configuration is ``open_clip_config.json``, for the bundled model ``config.json``.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from winspect.errors import SettingsError, WeightsCorruptError, WeightsMissingError
from winspect.pictures.tiles import Preprocess
from winspect.system.files import expanded
from winspect.system.opening import read_text
from winspect.weights import HUB, LOCAL, TINY
from winspect.weights.architectures import check_usable, image_size
from winspect.weights.fetching import Repository
from winspect.weights.tags import HUB_FILES, Source, chosen_preprocess, hash_in_name

logger = logging.getLogger(__name__)

CONFIG_FILE = "open_clip_config.json"
BUNDLED_FOLDER = Path(__file__).parent / TINY
BUNDLED_CONFIG, BUNDLED_WEIGHTS = "config.json", "model.safetensors"
# open_clip's order of preference in a folder.
_LOCAL_FILES = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
_LOCAL_SUFFIXES = (".safetensors", ".bin", ".pth")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def bundled_source() -> Source:
    """The bundled model's source."""
    path, config = BUNDLED_FOLDER / BUNDLED_CONFIG, read_bundled(BUNDLED_FOLDER)
    try:
        settings = config["preprocess"]
        preprocess = chosen_preprocess(Preprocess(settings["size"]), settings)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsCorruptError(f'{path}: has no "preprocess"; install the package again') from error
    return Source(TINY, "bundled", "bundled", path.with_name(BUNDLED_WEIGHTS), preprocess, config=config)


def source_in_folder(model: str) -> Source:
    """The source of a ``local-dir:`` name.

    Raises:
        WeightsMissingError: no such folder, or one without a configuration or weights.
    """
    folder = expanded(model.removeprefix(LOCAL)).absolute()
    if not folder.is_dir():
        raise WeightsMissingError(f"{model}: no such folder; need one with {CONFIG_FILE} and weights")
    if not (folder / CONFIG_FILE).is_file():
        raise WeightsMissingError(
            f"{model}: no {CONFIG_FILE} in it, which says how the model is built; name the architecture and the file "
            "instead: --model ARCHITECTURE --weights FILE"
        )
    source = source_of_file(f"{LOCAL}{folder.name}", weights_in(folder), Preprocess())
    return with_config(source, folder / CONFIG_FILE, whole=True)


def source_in_repository(model: str, folder: Path) -> Source:
    """The source of an ``hf-hub:`` name, whose configuration was fetched before.

    Raises:
        WeightsMissingError: it was not.
    """
    config_file = config_in_repository(model).find(folder)
    if not config_file.is_file():
        raise WeightsMissingError(
            f"{model}: its {CONFIG_FILE} is not on this machine; fetch it and the weights with "
            f"`winspect weights pull {model}`"
        )
    origin = Repository(model.removeprefix(HUB), HUB_FILES)
    source = Source(model, "tag", origin.repo, origin.find(folder), Preprocess(), origin=origin)
    return with_config(source, config_file, whole=True)


def config_in_repository(model: str) -> Repository:
    """Where the configuration of an ``hf-hub:`` name is fetched from.

    Raises:
        SettingsError: not of the form OWNER/NAME.
    """
    repo = model.removeprefix(HUB)
    if not _REPO.fullmatch(repo):
        raise SettingsError(f"got the model {model!r}, need {HUB}OWNER/NAME")
    return Repository(repo, (CONFIG_FILE,))


def weights_in(folder: Path) -> Path:
    """The weights file of a folder, chosen as open_clip does; a choice among several unusual names is logged.

    Raises:
        WeightsMissingError: there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _LOCAL_SUFFIXES and path.is_file())
    usual = [path for path in files if path.name in _LOCAL_FILES]
    if usual:
        return min(usual, key=lambda path: _LOCAL_FILES.index(path.name))
    if not files:
        raise WeightsMissingError(f"{folder}: no weights in it, a file ending in {', '.join(_LOCAL_SUFFIXES)}")
    chosen = min(files, key=lambda path: (path.suffix.lower() != ".safetensors", path.name))
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        logger.warning("%s: several weights files (%s); using %s, as open_clip does", folder, names, chosen.name)
    return chosen


def source_of_file(model: str, path: Path, preprocess: Preprocess) -> Source:
    """The source of a file that belongs to no tag."""
    return Source(model, "file", path.name, path, preprocess, sha256_prefix=hash_in_name(path.name))


def with_config(source: Source, path: Path, *, whole: bool) -> Source:
    """The source with the settings of an ``open_clip_config.json`` that winspect has.

    Args:
        source: its input size counts, unless ``whole``.
        path: of the configuration: ``model_cfg`` and ``preprocess_cfg``, each an object, perhaps empty.
        whole: ``model_cfg`` must describe the model; else only its activation is read.

    Raises:
        WeightsCorruptError: it cannot be read as one, or lacks what every model has.
        ArchitectureError: WinCLIP cannot use the model.
    """
    try:
        document = json.loads(read_text(path))
        config, settings = (document.get(name) or {} for name in ("model_cfg", "preprocess_cfg"))
        if not (isinstance(config, dict) and isinstance(settings, dict)):
            raise TypeError("model_cfg and preprocess_cfg are objects")
        preprocess = chosen_preprocess(source.preprocess, settings)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsCorruptError(f"{path}: cannot be read as open_clip's configuration ({error})") from error
    if whole:
        preprocess = replace(preprocess, size=_size_of(source.model, path, config))
    quick_gelu = None if config.get("quick_gelu") is None else bool(config["quick_gelu"])
    return replace(source, preprocess=preprocess, quick_gelu=quick_gelu, config=config if whole else None)


def _size_of(model: str, path: Path, config: dict[str, Any]) -> int:
    """Input size of a whole ``model_cfg``, checked."""
    needed = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    wrong = [key for key, kind in needed.items() if not isinstance(config.get(key), kind)]
    if wrong:
        raise WeightsCorruptError(f"{path}: its model_cfg has no {', '.join(wrong)}; need open_clip's configuration")
    check_usable(model, config)
    try:
        return Preprocess(image_size(config)).size
    except (TypeError, ValueError) as error:
        raise WeightsCorruptError(f"{path}: image_size: {error}") from error


def read_bundled(folder: str | Path) -> dict[str, Any]:
    """``config.json`` in the folder of a model such as the bundled one.

    Raises:
        WeightsMissingError: the file is not there.
        WeightsCorruptError: it is not JSON, or lacks ``model_cfg``.
    """
    path = Path(folder) / BUNDLED_CONFIG
    try:
        config = json.loads(read_text(path))
    except FileNotFoundError:
        raise WeightsMissingError(
            f"{path}: not found; a tiny model is a folder with {BUNDLED_CONFIG} and {BUNDLED_WEIGHTS}"
        ) from None
    except ValueError as error:
        raise WeightsCorruptError(f"{path}: not a JSON file ({error}); install the package again") from None
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise WeightsCorruptError(f'{path}: no "model_cfg" in it; install the package again')
    return config
