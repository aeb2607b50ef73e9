"""The verb ``prepare``: exit codes, and what goes where."""

from __future__ import annotations

import json

import pytest

from winspect.cli.main import build_parser, main
from winspect.datasets.official import OFFICIAL, Counts
from winspect.errors import SettingsError


def run(*arguments) -> int:
    args = build_parser().parse_args(["prepare", *map(str, arguments)])
    return args.run(args)


def test_done_as_json(visa_source, tmp_path, few_official, capsys):
    assert run("visa", "--source", visa_source, "--out", tmp_path / "out", "--link", "hard", "--json") == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert (summary["schema"], summary["dataset"], summary["complete"]) == (1, "visa", True)
    assert summary["out"] == str(tmp_path / "out")
    assert list(summary["categories"]) == sorted(OFFICIAL["visa"])
    assert "prepare visa: 100%" in printed.err
    assert "96 files written, 0 were there, 0 missing, 0 failed; visa is in" in printed.err


def test_done_as_a_table(visa_source, tmp_path, few_official, capsys):
    assert run("visa", "--source", visa_source, "--verify", "--class", "pcb1", "candle") == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert rows == [
        ["category", "train", "test", "good", "defective", "masks", "official"],
        ["pcb1", "2", "2", "2", "2", "yes"],
        ["candle", "2", "2", "2", "2", "yes"],
    ]
    assert "nothing written, 12 pictures decoded, 0 missing, 0 failed" in printed.err


def test_pictures_that_are_missing(mvtec_source, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(OFFICIAL, "mvtec", {"bottle": Counts(3, 2, 5)})
    (mvtec_source / "grid" / "test" / "dirt" / "000.png").write_bytes(b"none")
    assert run("mvtec", "--source", mvtec_source, "--out", tmp_path / "out", "--verify") == 3
    printed = capsys.readouterr()
    assert [line.split()[-1] for line in printed.out.splitlines()] == ["official", "no", "-"]
    assert "winspect: missing: bottle: 4 test anomalous pictures, officially 5" in printed.err
    assert "failed: " in printed.err
    assert "000.png: not a picture" in printed.err
    assert "1 missing, 1 failed" in printed.err


def test_long_lists_are_cut(visa_source, capsys):
    assert run("visa", "--source", visa_source, "--verify") == 3
    assert "and 16 more; --json lists them all" in capsys.readouterr().err  # three counts differ in twelve categories


def test_an_interruption_says_how_to_go_on(visa_source, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("winspect.datasets.prepare.make_file", interrupt)
    assert main(["prepare", "visa", "--source", str(visa_source), "--out", str(tmp_path / "out")]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err


def test_wrong_use_is_an_error_of_ours(tmp_path):
    with pytest.raises(SettingsError, match="got --link soft"):
        run("visa", "--source", tmp_path, "--out", tmp_path / "out", "--link", "soft")
