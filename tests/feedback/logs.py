"""Folders with an audit log, for the tests: pictures judged by scores that a test names."""

from __future__ import annotations

import itertools

from winspect.feedback.feedback import Feedback
from winspect.feedback.settings import FeedbackSettings

_numbers = itertools.count(1)


def new_id(*, drawn: bool = False) -> str:
    """An id that is drawn at any rate above 0, or at none below 1."""
    return f"{'0' if drawn else 'f'}{next(_numbers):031x}"


def picture(score, *, threshold=0.5, drawn=False, path=None, run=None, **more):
    """The entry of a picture."""
    id = new_id(drawn=drawn)
    verdict = None if threshold is None or score is None else "anomalous" if score > threshold else "normal"
    entry = {"event": "picture", "id": id, "path": path or f"parts/{id}.png", "class": "part", "sha256": id * 2}
    entry |= {"score": score, "verdict": verdict, "threshold": threshold, "run": run}
    return {**entry, **({"audit": True} if drawn else {}), **more}


def feedback_of(folder, *entries, **settings):
    """Feedback on a folder whose log has these entries."""
    made = Feedback(folder, FeedbackSettings(**settings))
    made.note(*entries)
    return made
