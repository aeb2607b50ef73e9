"""The README's examples run as they stand, its figures are those of its commands, and it stays short."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from site_pages import ROOT, blocks, commands, text_of, write_pictures

from winspect.cli.main import main

README = "README.md"
MOST_WORDS = 600


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the user's pictures, where the README's commands have run one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    write_pictures(folder, good=24)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        codes = [main(arguments) for arguments in commands(README, "console")]
    return folder, codes, printed.getvalue()


def test_it_is_short():
    assert len(text_of(README).split()) < MOST_WORDS


def test_commands_run(place):
    _, codes, printed = place
    assert codes == [0] * 5
    assert printed.count("new/0.jpg") == 3


def test_the_threshold_gives_verdicts(place):
    rows = [json.loads(line) for line in (place[0] / "results/verdicts/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {row["verdict"] for row in rows} == {"normal", "anomalous"}


def test_figures_of_the_example_part(place, monkeypatch):
    folder, _, _ = place
    few_shot = json.loads((folder / "runs/hex_nut/results.json").read_text())["mean"]
    (evaluate,) = (arguments for arguments in commands(README, "console") if arguments[0] == "evaluate")
    monkeypatch.chdir(folder)
    shots = evaluate.index("--shots")
    assert main([*evaluate[:shots], "--shots", "0", "--out", "runs/zero"]) == 0
    by_name = json.loads((folder / "runs/zero/results.json").read_text())["mean"]
    caption = (
        f"**{few_shot['pixel_auroc']:.3f}** on its\ntwelve test images, {by_name['pixel_auroc']:.3f} by the name alone"
    )
    assert caption in text_of(README)
    row = f"| the hex nut above, 12 images | {by_name['image_auroc']:.3f} | {few_shot['image_auroc']:.3f} |"
    assert row in text_of(README)


@pytest.mark.parametrize(
    ("row", "card"),
    [
        ("| generated products of ten kinds not trained on | {} | {} |", "| {name} | {shots} | {figure} |"),
        ("| textile, simulated, 2,000 images | {} | {} |", "**textile**"),
        ("| solar cells, photographs, 2,624 images | {} | {} |", "**solar cells**"),
    ],
)
def test_other_figures_are_the_model_cards(row, card):
    model_card = (ROOT / "src/winspect/weights/winspect-tiny/MODEL_CARD.md").read_text(encoding="utf-8")
    section = model_card.split(card)[1] if card.startswith("**") else model_card.split("Held-out generated products")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    zero_shot = next(cells[2] for cells in rows if cells[0].strip("*").startswith("zero-shot") and cells[1] == "0")
    few_shot = next(cells[2] for cells in rows if "`fused`" in cells[0] and cells[1] == "4")
    assert row.format(zero_shot, few_shot) in text_of(README)


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_blocks_run(code, place, monkeypatch, capsys):
    monkeypatch.chdir(place[0])
    exec(compile(code, README, "exec"), {})
    assert "defective/1.jpg" in capsys.readouterr().out


def test_there_are_blocks_to_run():
    assert blocks(README, "python")
    assert len(blocks(README, "console")) == 2
