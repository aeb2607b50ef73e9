"""The drift alarm as metrics for Prometheus, without a library: few labels, never a class name or a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

HELP = {
    "winspect_drift_alarm": "1 when a line has drifted, else 0.",
    "winspect_drift_since_seconds": "Unix time since when, estimated, of the line that has drifted longest; else 0.",
    "winspect_drift_log10_martingale": "Evidence against exchangeability: the largest of all lines.",
    "winspect_drift_log10_bound": "Evidence at which the alarm is given.",
    "winspect_drift_left_out": "Pictures that could not be kept for the drift alarm.",
}
"""Names of the metrics, and what they are."""


def figures(documents: Sequence[Mapping[str, Any]], left_out: int) -> dict[str, float | dict[str, float]]:
    """The metrics by name; by statistic where there are several of one name.

    Args:
        documents: of :meth:`winspect.drift.alarm.DriftAlarm.documents`.
        left_out: pictures that could not be kept.
    """
    alarms = [document["alarm"] for document in documents if document["alarm"] is not None]
    since = [datetime.fromisoformat(alarm["since"]["time"]).timestamp() for alarm in alarms if alarm["since"]]
    evidence: dict[str, float] = {}
    for document in documents:
        for name, statistic in document["statistics"].items():
            evidence[name] = max(evidence.get(name, statistic["log10_martingale"]), statistic["log10_martingale"])
    return {
        "winspect_drift_alarm": float(bool(alarms)),
        "winspect_drift_since_seconds": min(since, default=0.0),
        "winspect_drift_log10_martingale": evidence,
        "winspect_drift_log10_bound": max((document["log10_bound"] for document in documents), default=0.0),
        "winspect_drift_left_out": float(left_out),
    }


def exposition(documents: Sequence[Mapping[str, Any]], left_out: int) -> str:
    """The metrics as text, for the node exporter's textfile collector."""
    lines = []
    for name, value in figures(documents, left_out).items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        if isinstance(value, dict):
            lines += [f'{name}{{statistic="{label}"}} {number!r}' for label, number in value.items()]
        else:
            lines.append(f"{name} {value!r}")
    return "\n".join(lines) + "\n"
