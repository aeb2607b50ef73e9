"""From scores to decisions: thresholds that keep a promise about false alarms, p-values, masks and boxes.

Decisions are made from results, outside the model: see :class:`Calibration`.
"""

from winspect.calibration.calibration import Calibration, Decision, Defective, HeldOut, LeftOut
from winspect.calibration.conformal import needed_pictures
from winspect.calibration.defects import Defects
from winspect.calibration.regions import RegionRule

__all__ = [
    "Calibration",
    "Decision",
    "Defective",
    "Defects",
    "HeldOut",
    "LeftOut",
    "RegionRule",
    "needed_pictures",
]
