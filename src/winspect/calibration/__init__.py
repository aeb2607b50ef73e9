"""From scores to decisions: thresholds that keep a promise about false alarms, p-values, masks and boxes.

Decisions are made from results, outside the model: see :class:`Calibration`.
"""

from winspect.calibration.calibration import Calibration
from winspect.calibration.conformal import needed_pictures
from winspect.calibration.defects import Defects
from winspect.calibration.findings import Defective, HeldOut, LeftOut
from winspect.calibration.judgement import DecisionRule, Judgement
from winspect.calibration.regions import RegionRule
from winspect.calibration.rules import Rules
from winspect.calibration.verdicts import Verdicts

__all__ = [
    "Calibration",
    "DecisionRule",
    "Defective",
    "Defects",
    "HeldOut",
    "Judgement",
    "LeftOut",
    "RegionRule",
    "Rules",
    "Verdicts",
    "needed_pictures",
]
