"""Find defects in pictures of parts with no training: WinCLIP, zero-shot and few-shot.

>>> import winspect
>>> winspect.__version__ != ""
True

``winspect.WinCLIP`` is what most programs need. Importing the package imports neither torch nor open_clip; they come
with the first use of a name that needs them. It turns off usage reporting of the libraries below, in every process that
imports it (:mod:`winspect.system.reporting`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from winspect import errors
from winspect._version import __version__
from winspect.errors import PictureError, WinspectError
from winspect.system.reporting import turn_off_reporting

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.inspector.prediction import Prediction
    from winspect.inspector.results import Results
    from winspect.inspector.winclip import WinCLIP
    from winspect.methods.result import ConstantMapWarning, Result
    from winspect.methods.winclip.prompts import PromptEnsemble
    from winspect.methods.winclip.recipes import RECIPES, Recipe

__all__ = [
    "RECIPES",
    "Calibration",
    "ConstantMapWarning",
    "PictureError",
    "Prediction",
    "PromptEnsemble",
    "Recipe",
    "Result",
    "Results",
    "WinCLIP",
    "WinspectError",
    "__version__",
    "errors",
]

turn_off_reporting()

_LAZY = {
    "Calibration": "calibration",
    "ConstantMapWarning": "methods.result",
    "Prediction": "inspector.prediction",
    "PromptEnsemble": "methods.winclip.prompts",
    "RECIPES": "methods.winclip.recipes",
    "Recipe": "methods.winclip.recipes",
    "Result": "methods.result",
    "Results": "inspector.results",
    "WinCLIP": "inspector.winclip",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'winspect' has no attribute {name!r}")
    return getattr(importlib.import_module(f"winspect.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
