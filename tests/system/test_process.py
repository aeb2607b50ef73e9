"""What a process may lack: a home folder, stdin, stdout, stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EXAMPLES

from winspect.cli.main import main
from winspect.errors import SettingsError
from winspect.system.files import expanded
from winspect.weights.cache import cache_folder

PICTURE = EXAMPLES / "textile" / "local_0001.jpg"
PREDICT = ["predict", str(PICTURE), "--class", "textile", "--model", "winspect-tiny", "--device", "cpu"]


@pytest.fixture
def no_home(monkeypatch):
    import pwd

    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "WINSPECT_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [(PREDICT, "WINSPECT_CACHE"), (["serve", "--model", "winspect-tiny", "--port", "0"], "XDG_DATA_HOME")],
)
def test_without_a_home_folder(no_home, capsys, arguments, variable):
    assert main(arguments) == 2
    assert f"error: this user has no home folder to keep files in: set {variable}, or HOME" in capsys.readouterr().err


def test_folders_that_are_named_need_no_home(no_home, monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match="no home folder"):
        cache_folder()
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert expanded("~nobody-of-this-name/w.pt") == Path("~nobody-of-this-name/w.pt")


@pytest.mark.parametrize(
    ("closed", "is_edge"), [((0,), True), ((1,), True), ((2,), True), ((0, 1, 2), True), ((0, 1, 2), False)]
)
def test_closed_streams(tmp_path, tiny_bundle, closed, is_edge):
    """The rows are whole, and nothing that is printed goes into a file that took a closed stream's place."""
    out = tmp_path / "out"
    arguments = ["predict", str(PICTURE), "--bundle", str(tiny_bundle)] if is_edge else PREDICT
    command = [sys.executable, "-m", "winspect", *arguments, "--json", "--out", str(out)]

    def close() -> None:
        for number in closed:
            os.close(number)

    done = subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, preexec_fn=close
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (row,) = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert row["path"].endswith(PICTURE.name) and row["error"] is None
