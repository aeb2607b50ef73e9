"""Entries of documents that somebody may have edited."""

from __future__ import annotations

import math

import pytest

from winspect.errors import SettingsError
from winspect.system.entries import entry


@pytest.mark.parametrize(
    ("value", "kind"), [(3, int), (3, float), (0.5, float), (True, bool), ("", str), ([], list), ({}, dict)]
)
def test_a_value_of_its_type_is_given_back(value, kind):
    assert entry({"name": value}, "name", kind) is value


@pytest.mark.parametrize(
    ("value", "kind"),
    [(True, int), (False, float), (1, bool), (0.5, int), (None, str), ({}, list)]
    + [(number, float) for number in (math.nan, math.inf, -math.inf, 10**400)],
)
def test_any_other_is_refused_by_name(value, kind):
    with pytest.raises(SettingsError, match=rf"name: got .*, need a {kind.__name__}"):
        entry({"name": value}, "name", kind)


def test_a_missing_entry_is_named():
    with pytest.raises(SettingsError, match="no entry 'name'"):
        entry({}, "name", str)
