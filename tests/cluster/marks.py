"""Marks of tests that run Ray."""

from __future__ import annotations

import pytest

RAYS_WARNINGS = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
"""Ray's own warnings, in the process that starts it and drives its workers, fail no test."""
