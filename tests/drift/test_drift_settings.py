"""Settings of the drift alarm: read, written, refused."""

from __future__ import annotations

import pytest
from site_pages import blocks, text_of

from winspect.drift import DriftSettings
from winspect.drift.report import HELP
from winspect.errors import SettingsError
from winspect.pictures.statistics import STATISTICS
from winspect.system.toml_texts import tomllib


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


def test_the_page_s_table_is_read():
    (block,) = [block for block in blocks("docs/line.md", "toml") if "[drift]" in block]
    assert DriftSettings.read(tomllib.loads(block)["drift"]) == DriftSettings()
    every = DriftSettings.read(tomllib.loads(block.replace("# ", ""))["drift"])
    assert every == DriftSettings()


def test_the_page_names_every_statistic_and_metric():
    section = text_of("docs/line.md").split("\n## Drift\n")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for name in STATISTICS)
    assert all(f"`{name}`" in section or f"`...{name.removeprefix('winspect_drift')}`" in section for name in HELP)
