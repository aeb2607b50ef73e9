"""Usage reporting of libraries is turned off: no host is contacted, and no id is written."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType

VARIABLES = MappingProxyType(
    {
        "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, hf_xet
        "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, which keeps a device id and a database in ~/.cache/Microsoft
        "RAY_USAGE_STATS_ENABLED": "0",  # ray, asked when a cluster is started
    }
)
"""Environment variables and values that turn a library's reporting off; child processes inherit them."""

MODULES = ("openvino_telemetry",)
"""Packages whose only purpose is to report: openvino and nncf do without them when they cannot be imported."""


def turn_off_reporting() -> None:
    """Turn reporting off, before a library that would report is imported. A variable that the user has set is kept."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # documented: importing it raises ModuleNotFoundError
