"""Pauses that are short, so that the tests do not wait for them."""

from __future__ import annotations

import pytest

from winspect.delivery import deliverer, pump
from winspect.system.retrying import Retries


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(pump, "RETRIES", Retries(times=2**31, backoff_s=0.05, max_wait_s=0.2))
    monkeypatch.setattr(pump, "IDLE_S", 0.1)
    monkeypatch.setattr(deliverer, "_AGAIN_S", 0.0)
