"""``--drift`` and the section ``[drift]`` of a product."""

from __future__ import annotations

from argparse import Namespace

import pytest

from winspect.cli.decisions import drift_settings
from winspect.cli.main import build_parser
from winspect.cli.product_options import use_product
from winspect.drift import DriftSettings
from winspect.errors import SettingsError


@pytest.fixture
def product(cli, tmp_path, monkeypatch):
    """A product that is watched for drift."""
    monkeypatch.chdir(tmp_path)
    made = cli("product", "new", "nut.toml", "--class", "nut", "--model", "winspect-tiny")
    assert made.code == 0, made.err
    with (tmp_path / "nut.toml").open("a") as file:
        file.write('\n[drift]\nrate = 0.05\nstatistics = ["score", "brightness"]\n')
    updated = cli("product", "check", "nut.toml", "--update")
    assert updated.code == 0, updated.err


def used(*words: str) -> Namespace:
    args = build_parser().parse_args(words)
    use_product(args)
    return args


def test_a_product_brings_its_drift_alarm(product):
    args = used("watch", "in", "--out", "out", "--product", "nut.toml")
    assert drift_settings(args) == DriftSettings(0.05, ("score", "brightness"))
    same = used("watch", "in", "--out", "out", "--product", "nut.toml", "--drift", "5%")
    assert drift_settings(same) == DriftSettings(0.05, ("score", "brightness"))
    with pytest.raises(SettingsError, match=r"--drift 0\.01: .* says .*0\.05"):
        used("watch", "in", "--out", "out", "--product", "nut.toml", "--drift", "1%")


def test_without_it_nothing_is_watched():
    assert drift_settings(used("watch", "in", "--out", "out")) is None
    assert drift_settings(build_parser().parse_args(["serve", "--drift", "1%"])) == DriftSettings(0.01)
    with pytest.raises(SettingsError, match=r"--drift: rate: got 0\.0"):
        drift_settings(build_parser().parse_args(["serve", "--drift", "0"]))
