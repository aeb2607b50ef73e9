"""The short version of ``python -m benchmarks.fuzz``: some damaged inputs of every kind; it finds what is wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import fuzz as module
from benchmarks.fuzz import Outcome, read_one
from benchmarks.fuzz_families import FAMILIES, Family, WrongError
from winspect.errors import SettingsError

INPUTS = {"bundles": 12, "calibrations": 40}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_damage_ends_in_a_result_or_a_message(tmp_path, family):
    counts: Counter[str] = Counter()
    for number in range(INPUTS.get(family, 60)):
        (folder := tmp_path / str(number)).mkdir()
        outcome = read_one(family, number, 7, folder)
        assert outcome.kind != "wrong", f"{family} {number}: {outcome.text}"
        counts[outcome.kind] += 1
    assert counts["refused"] > 5


@pytest.mark.parametrize(
    ("error", "kind"),
    [(None, "result"), (SettingsError("x"), "refused"), (ValueError("x"), "wrong"), (WrongError("x"), "wrong")],
)
def test_what_becomes_of_an_input(tmp_path, monkeypatch, error, kind):
    def read(_):
        if error:
            raise error

    monkeypatch.setitem(FAMILIES, "made up", Family(lambda random, folder: None, read))
    assert read_one("made up", 0, 0, tmp_path).kind == kind


def test_counts(monkeypatch):
    monkeypatch.setattr(module.Worker, "read", lambda *input: Outcome("wrong" if input[2] == 1 else "refused", "why"))
    found = module.fuzz(["masks", "tars"], 5, 0)
    assert (found["tried"], found["refused"], found["wrong"]) == (5, 3, 2)
    assert found["families"]["masks"]["wrongs"] == [{"number": 1, "what": "why"}]
