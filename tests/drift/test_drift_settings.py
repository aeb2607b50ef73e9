"""Settings of the drift alarm: read, written, refused."""

from __future__ import annotations

import pytest

from winspect.drift import DriftSettings
from winspect.errors import SettingsError


def test_what_is_written_reads_back():
    settings = DriftSettings(0.05, ("score", "blue"), 7)
    assert settings.document() == {"rate": 0.05, "statistics": ["score", "blue"], "seed": 7}
    assert DriftSettings.read(settings.document()) == settings
    assert DriftSettings.read({}) == DriftSettings()


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"rate": 0}, "rate: got 0"),
        ({"rate": 1}, "rate: got 1"),
        ({"rate": float("nan")}, "rate: got nan"),
        ({"rate": "1%"}, "rate: got '1%'"),
        ({"rate": True}, "rate: got True"),
        ({"statistics": []}, "statistics: got"),
        ({"statistics": "score"}, "statistics: got"),
        ({"statistics": ["score", "score"]}, "statistics: got"),
        ({"statistics": ["gamma"]}, "statistics: got"),
        ({"statistics": [["score"]]}, "statistics: got"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 1.5}, "seed: got 1.5"),
        ({"rates": 0.1}, "the key 'rates'"),
        ([], "need a table"),
    ],
)
def test_mistakes_are_named(document, named):
    with pytest.raises(SettingsError, match="drift: ") as refusal:
        DriftSettings.read(document)
    assert named in str(refusal.value)
