"""From scores to decisions: thresholds that keep a promise about false alarms, p-values, masks and boxes.

Decisions are made from results, outside the model: see :class:`Calibration`.
"""

from winspect.thresholds.calibration import Calibration, Decision, Defective, HeldOut, LeftOut
from winspect.thresholds.conformal import needed_pictures
from winspect.thresholds.defects import Defects
from winspect.thresholds.making import SUSPICIOUS, calibrate
from winspect.thresholds.regions import RegionRule

__all__ = [
    "SUSPICIOUS",
    "Calibration",
    "Decision",
    "Defective",
    "Defects",
    "HeldOut",
    "LeftOut",
    "RegionRule",
    "calibrate",
    "needed_pictures",
]
