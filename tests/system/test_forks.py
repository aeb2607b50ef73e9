"""A forked child is refused at once: what an engine waits for is not there."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from winspect import WinCLIP
from winspect.errors import ForkError
from winspect.system.forks import ForkGuard

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def outcomes_of_a_child(attempts):
    """What becomes of each call in a forked child: "done", or the error's class and message; "hangs" without an end."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work():
        for attempt in attempts:
            try:
                attempt()
            except Exception as error:
                sender.send((type(error), str(error)))
            else:
                sender.send(("done", ""))

    child = context.Process(target=work, daemon=True)
    child.start()
    try:
        return [receiver.recv() if receiver.poll(20) else ("hangs", "") for _ in attempts]
    finally:
        child.kill()
        child.join()


def test_every_way_of_predicting_is_refused_at_once(small_model, small_checkpoint, textile):
    begun = small_model.predict_many(textile[:4], "textile")
    next(begun)
    asked = [
        lambda: small_model.predict(textile[0], "textile"),
        lambda: small_model.predict(textile[0], "a class not met yet"),
        lambda: list(small_model.predict_many(textile[:2])),
        lambda: list(begun),
        lambda: small_model.reference(textile[:1], "textile"),
        lambda: small_model.prepare_engine("textile"),
        lambda: WinCLIP(small_model.model, weights=small_checkpoint, device="cpu"),
    ]
    for kind, message in outcomes_of_a_child(asked):
        assert kind is ForkError
        assert 'multiprocessing.get_context("spawn")' in message
    assert len(list(begun)) == 3, "the parent goes on"


def test_what_was_loaded_in_the_child_is_used_there(monkeypatch):
    monkeypatch.setattr(ForkGuard, "first_process", None)
    guard = ForkGuard()
    guard.check()
    monkeypatch.setattr(ForkGuard, "first_process", None)
    (loaded, older) = outcomes_of_a_child([lambda: ForkGuard().check(), guard.check])
    assert loaded == ("done", "")
    assert older[0] is ForkError
