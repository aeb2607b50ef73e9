"""The drift alarm: has the line changed since it began, and since when; with a bounded probability of a false alarm.

* ``ranks``: online conformal p-values of a statistic.
* ``martingale``: bets against their uniformity; its crossing is the alarm (Ville's inequality).
* ``line``: the statistics of a line together. ``state``: kept across restarts. ``alarm``: the object that takes rows.
"""

from winspect.drift.settings import DriftSettings

__all__ = ["DriftSettings"]
