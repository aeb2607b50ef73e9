"""The README's examples run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from winspect.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def in_a_copy(tmp_path, monkeypatch):
    """The repository's folder as far as the examples know it, in a place of its own."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, in_a_copy, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert "defective/1.jpg" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line[2:] for block in blocks("console") for line in block.splitlines()])
def test_console_lines_run(line, in_a_copy, capsys):
    program, *arguments = shlex.split(line)
    assert program == "winspect"
    expanded = [str(path) for word in arguments for path in (sorted(Path().glob(word)) if "*" in word else [word])]
    assert main(expanded) == 0
    assert capsys.readouterr().out


def test_there_are_blocks_to_run():
    assert blocks("python")
    assert blocks("console")


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
