"""How the encoder's maths runs: on which device, in which precision, by which library."""

from winspect.engines.devices import DEVICES, PRECISIONS, resolve_device, resolve_precision
from winspect.engines.torch_engine import TorchEngine

__all__ = ["DEVICES", "ENGINES", "PRECISIONS", "TorchEngine", "check_engine", "resolve_device", "resolve_precision"]

ENGINES = ("auto", "torch")


def check_engine(name: str) -> str:
    """The engine a name stands for; ``auto`` is torch, the only one so far.

    Raises:
        EngineError: an unknown engine.
    """
    from winspect.errors import EngineError

    if name not in ENGINES:
        raise EngineError(f"got the engine {name!r}, need one of {', '.join(ENGINES)}")
    return "torch"
