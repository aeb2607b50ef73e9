"""The precision gate: a faster precision is used only where it scores as fp32 does."""

from winspect.engines.gate.comparison import BARS, Bar, GateResult, GateScores, compare
from winspect.engines.gate.pictures import GATE_PICTURES_VERSION, calibration_pictures, gate_pictures, good_pictures
from winspect.engines.gate.records import GateRecords

__all__ = [
    "BARS",
    "GATE_PICTURES_VERSION",
    "Bar",
    "GateRecords",
    "GateResult",
    "GateScores",
    "calibration_pictures",
    "compare",
    "gate_pictures",
    "good_pictures",
]
