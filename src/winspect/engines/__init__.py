"""How the encoder's maths runs: on which device, in which precision, by which library."""

from winspect.engines.base import Engine
from winspect.engines.choice import ENGINES, Choice, choose, installed
from winspect.engines.devices import DEVICES, PRECISIONS, resolve_device
from winspect.engines.torch_engine import TorchEngine

__all__ = [
    "DEVICES",
    "ENGINES",
    "PRECISIONS",
    "Choice",
    "Engine",
    "TorchEngine",
    "choose",
    "installed",
    "resolve_device",
]
