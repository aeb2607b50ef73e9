"""Names are hostile: none forges a line on a terminal, none becomes a formula in a spreadsheet."""

from __future__ import annotations

import csv
import logging
import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

import winspect
from winspect.cli.main import main
from winspect.errors import PictureError
from winspect.methods.result import Result
from winspect.outputs.rows import Recorder
from winspect.system.terminal import cell, log_to_stderr, printable, text_of_cell

FORGED = "a\nwinspect: 9 of 9 pictures, 0 failed\x1b[2K\x9b31m\u202egnp.jpg"
SHOWN = "a\\nwinspect: 9 of 9 pictures, 0 failed\\x1b[2K\\x9b31m\\u202egnp.jpg"
FORMULAS = ["=1+1", "+1", "-1+cmd", "@sum", "\t=1", "\r=1", "'quoted", " =1", "\uff1d1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (FORGED, SHOWN),
        ("Prüfling 1 · 部品 😀.png", "Prüfling 1 · 部品 😀.png"),
        ("a\u2028b\u2066c\u0085d\udcffe\x7f", "a\\u2028b\\u2066c\\x85d\\udcffe\\x7f"),
        (Path("a\rb"), "a\\rb"),
    ],
)
def test_text_for_a_terminal_is_one_harmless_line(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("value", FORMULAS)
def test_no_cell_is_a_formula_and_its_text_comes_back(value):
    assert cell(value).startswith("'")
    assert text_of_cell(cell(value)) == printable(value)


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_a_formula_where_semicolons_separate(formula):
    text = f"a;{formula};b"
    pieces = cell(text).split(";")
    assert pieces[0] == "a" and pieces[1].startswith("'") and pieces[2] == "b"
    assert text_of_cell(cell(text)) == printable(text)


@pytest.mark.parametrize("value", ["a;b;c", ";", "a; b.png", -0.5, 0, None, True, "a=b", "C:/parts/1.png", "1-2.png"])
def test_other_cells_stay_as_they_are(value):
    assert cell(value) is value or cell(value) == value


@pytest.fixture
def small_model(monkeypatch):
    """The bundled model, so that nothing is downloaded."""
    monkeypatch.setenv("WINSPECT_MODEL", "winspect-tiny")


def test_predict_prints_no_line_that_a_name_made(tmp_path, small_model, capsys, process_as_before):
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "x.png")
    good, bad = tmp_path / FORGED, tmp_path / FORGED.replace("jpg", "png")
    (tmp_path / "x.png").rename(good)
    bad.write_bytes(b"none\n")
    code = main(["predict", str(tmp_path), "--out", str(tmp_path / "out"), "--engine", "torch", "--no-overlays"])
    out, err = capsys.readouterr()
    assert code == 3
    assert len(out.splitlines()) == 1 and SHOWN in out
    assert "\x1b" not in out + err and "\x9b" not in out + err and "\u202e" not in out + err
    assert not [line for line in err.splitlines() if line.startswith("winspect: 9 of 9")]
    assert f"winspect: failed: {printable(bad)}: not a picture" in err
    assert main(["predict", str(tmp_path / "gone\x1b[31m\nwinspect: 1 of 1 pictures")]) == 2
    with pytest.raises(SystemExit):
        main(["predict", str(good), "--x\x1b[2K\nwinspect:1"])
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert not [line for line in err.splitlines() if line.startswith(("winspect: 1 of", "winspect: 9 of"))]


def test_the_log_is_a_line_per_record(capsys, process_as_before):
    log_to_stderr(logging.WARNING)
    logging.getLogger("winspect.pictures.find").warning("%s cannot be searched", FORGED)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # which pytest's own capture has replaced
        warnings.warn(f"{FORGED} is blank", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"winspect: {SHOWN} cannot be searched"
    assert f"UserWarning: {SHOWN} is blank" in second and "warnings.warn" not in second


def test_every_line_for_people_passes_the_one_function():
    """A print of a name that goes past it would let the name forge lines again."""
    package = Path(winspect.__file__).parent
    past = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"(?<!\w)print\(.*(winspect: |file=sys\.stderr|path|name|error|message)", line)
        if path.name != "terminal.py"
        and "json.dumps" not in line
        and "printable(" not in line
        and path.parts[-2:] != ("cli", "weights.py")  # paths for scripts
    ]
    assert not past


def test_a_byte_order_mark_is_there_only_when_asked_for(tmp_path):
    results = winspect.Results([Result("Prüfling.png", "nut", anomaly_score=0.25)])
    plain = results.to_csv(tmp_path / "plain.csv").read_bytes()
    assert plain.startswith(b"path,")
    assert results.to_csv(tmp_path / "bom.csv", with_bom=True).read_bytes() == b"\xef\xbb\xbf" + plain


def test_tables_hold_no_formula(tmp_path):
    failed = PictureError("=cmd.png", "=1+1")
    with Recorder(tmp_path, {}, overlays=False) as recorder:
        for name in FORMULAS:
            recorder.add(Result(name, "@nut", anomaly_score=0.25))
        recorder.add(Result("=cmd.png", "@nut", error=failed))
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [text_of_cell(row["path"]) for row in rows] == [*map(printable, FORMULAS), "=cmd.png"]
    for row in rows:
        assert not [value for value in row.values() if value.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {row["anomaly_score"] for row in rows} == {"0.25", ""}
