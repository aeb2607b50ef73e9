"""Watches that tick faster, so that the tests do not wait for them."""

from __future__ import annotations

import pytest

from winspect.watch import events, folder


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch):
    for module in (events, folder):
        monkeypatch.setattr(module, "TICK_S", 0.02)
