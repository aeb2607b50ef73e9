"""docs/methods.md and docs/weights.md: commands run, settings are those of the recipes, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from winspect.cli.main import build_parser, main
from winspect.methods.registry import METHODS, get_method
from winspect.weights.recommended import RECOMMENDED

ROOT = Path(__file__).parents[1]
PAGE, WEIGHTS = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("methods.md", "weights.md"))
NEW = [name for name in METHODS if not hasattr(get_method(name), "recipe")]
BY_DEPTH = "by depth"


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its title."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def value(cell: str):
    """A default as `--set` would read it."""
    return None if cell == BY_DEPTH else yaml.safe_load(cell.strip("`"))


def plain(default):
    return list(default) if isinstance(default, tuple) else default


@pytest.mark.parametrize("name", NEW)
def test_settings_of_a_method_are_its_fields(name):
    method = get_method(name)
    expected = {field.name: plain(getattr(method, field.name)) for field in fields(method)}
    assert {row[0].strip("`"): value(row[1]) for row in rows(f"`{name}`")} == expected


@pytest.mark.parametrize(("column", "name"), [(1, "paper"), (2, "tiles"), (3, "log")])
def test_settings_of_winclips_recipes(column, name):
    recipe = get_method(name).recipe
    expected = {field.name: plain(getattr(recipe, field.name)) for field in fields(recipe) if field.name != "name"}
    assert {row[0].strip("`"): value(row[column]) for row in rows("`paper`, `tiles`, `log`")} == expected


def test_every_recipe_has_a_row():
    table = PAGE.split("## What each needs and gives")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([\w+]+)`", table, flags=re.MULTILINE)) == METHODS.keys()


@pytest.mark.parametrize("line", re.findall(r"^\$ (.*)$", PAGE + WEIGHTS, flags=re.MULTILINE))
def test_commands_run(line, tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(line)
    assert program == "winspect"
    assert main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", re.findall(r"^(winspect .*)$", WEIGHTS, flags=re.MULTILINE))
def test_commands_that_fetch_weights_are_understood(line):
    build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("text", [PAGE, WEIGHTS], ids=["methods", "weights"])
def test_links_lead_somewhere(text):
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)


def test_recommended_weights_are_in_the_table():
    table = dict(re.findall(r"^\| `(timm/[^`]+)` \| (\d+) MB", WEIGHTS, flags=re.MULTILINE))
    assert table == {name: str(known.size_mb) for name, known in RECOMMENDED.items()}
