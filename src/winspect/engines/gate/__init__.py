"""The precision gate: a faster precision is used only where it judges as fp32 does."""

from winspect.engines.gate.pictures import GATE_PICTURES_VERSION, calibration_pictures, gate_pictures
from winspect.engines.gate.records import GateRecords
from winspect.engines.gate.verdict import BARS, Bar, GateResult, Judgements, compare

__all__ = [
    "BARS",
    "GATE_PICTURES_VERSION",
    "Bar",
    "GateRecords",
    "GateResult",
    "Judgements",
    "calibration_pictures",
    "compare",
    "gate_pictures",
]
