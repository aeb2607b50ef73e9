"""Files of the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from winspect.errors import WeightsCorruptError, WeightsMissingError
from winspect.system.opening import read_text
from winspect.weights import TINY

BUNDLED_FOLDER = Path(__file__).parent / TINY
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def read_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a tiny model's folder.

    Raises:
        WeightsMissingError: the file is not there.
        WeightsCorruptError: it is not JSON, or lacks ``model_cfg``.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(read_text(path))
    except FileNotFoundError:
        raise WeightsMissingError(
            f"{path}: not found; a tiny model is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except ValueError as error:
        raise WeightsCorruptError(f"{path}: not a JSON file ({error}); install the package again") from None
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise WeightsCorruptError(f'{path}: no "model_cfg" in it; install the package again')
    return config
