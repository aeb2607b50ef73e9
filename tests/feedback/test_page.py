"""The page's section on feedback: its commands are read, its table and its figures are the benchmark's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from site_pages import blocks, commands, text_of

from benchmarks import feedback as benchmark
from winspect.cli.main import build_parser
from winspect.feedback import FeedbackSettings
from winspect.system.toml_texts import tomllib

PAGE = "docs/line.md"
SECTION = text_of(PAGE).split("\n## Feedback\n")[1].split("\n## ")[0]
CASES = json.loads((Path(benchmark.__file__).parent / "results" / "feedback.json").read_text())["cases"]


def test_its_commands_are_read():
    found = [command for command in commands(PAGE, "sh") if "feedback" in command]
    assert len(found) >= 7
    for command in found:
        build_parser().parse_args(command[1:] if command[0] == "winspect" else command)


def test_its_product_table_has_the_defaults():
    (block,) = [block for block in blocks(PAGE, "toml") if block.startswith("[feedback]")]
    assert FeedbackSettings.read(tomllib.loads(block)["feedback"]) == FeedbackSettings()


@pytest.mark.parametrize(
    ("row", "way"),
    [
        ("the audit sample |", "audit"),
        ("all wrong answers on good parts", "audit_errors_at_high_scores"),
        ("and `--raise`", "audit_and_raise"),
        ("all that was called good", "judged"),
        ("all that the model called normal", "unflagged"),
    ],
)
def test_its_figures_are_the_benchmark_s(row, way):
    (line,) = [line for line in SECTION.splitlines() if line.startswith("| ") and row in line]
    figures = [float(cell) for cell in line.split("|")[2:-1]]
    for case, shown in zip(CASES, (figures[:2], figures[2:]), strict=True):
        after = case[way]["false_alarms_after_each_round"][-1]
        assert shown == pytest.approx([after, case[way]["found_after"]], abs=6e-4)
    for case in CASES:
        references = case["references"]
        for value, digits in (
            (references["found_before"], 3),
            (references["found_after"], 3),
            (references["false_alarms_after_each_round"][-1], 4),
        ):
            assert f"{value:.{digits}f}" in SECTION
