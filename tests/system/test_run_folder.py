"""A folder of results belongs to a single run: locked while it is written, and never with another run's rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from winspect.errors import OutputError
from winspect.outputs.rows import Recorder
from winspect.system.run_folder import LOCK_FILE, FolderLock, begin, locked, read_identity

HERE = Path(__file__).parent
SOURCES = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])}
HOLDS = """
import sys
from pathlib import Path
from winspect.system.run_folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_kill_at_any_step_leaves_the_rows_of_its_run_or_none(tmp_path):
    command = [sys.executable, HERE / "killed_writers.py", tmp_path]
    ran = subprocess.run(command, env=SOURCES, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert min(json.loads(ran.stdout)) >= 3  # each writer was killed at several steps


def test_a_second_run_is_refused_and_the_place_is_free_afterwards(tmp_path):
    with locked(tmp_path / "out") as folder:
        with pytest.raises(OutputError, match=r"out: another winspect run is writing there; wait .* another --out"):
            FolderLock(folder / LOCK_FILE, str(folder)).acquire()
        assert (folder / LOCK_FILE).exists()
    with locked(tmp_path / "out") as folder:
        pass
    assert list(folder.iterdir()) == []


def test_the_lock_of_another_process_ends_with_it_however_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLDS, tmp_path]
    with subprocess.Popen(command, env=SOURCES, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match="another winspect run"), locked(tmp_path):
            pass
        holder.kill()
    assert (tmp_path / LOCK_FILE).exists()  # left behind, and no lock
    with locked(tmp_path):
        pass


def test_it_needs_nothing_that_an_edge_installation_has_not():
    code = (
        "import sys; import winspect.system.run_folder; print([n for n in ('filelock', 'torch') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=SOURCES, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_file_system_without_locks_is_said_and_gone_on_with(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path):
        assert "cannot be locked ([Errno 95] Operation not supported); see that no other run writes" in caplog.text


@pytest.mark.parametrize("text", ["{", "[1]", "\x80", "[" * 100_000])
def test_an_identity_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "run.json"
    assert read_identity(path, fix="start again") is None
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OutputError, match=r"run\.json: .*; start again$"):
        read_identity(path, fix="start again")


def test_what_is_left_of_an_earlier_run_goes_before_the_identity(tmp_path, monkeypatch):
    rows, identity = tmp_path / "rows", tmp_path / "run.json"
    rows.write_text("earlier")
    begin(identity, {"run": 1}, remove=[rows, tmp_path / "none"])
    assert (rows.exists(), json.loads(identity.read_text())) == (False, {"run": 1})
    rows.mkdir()
    with pytest.raises(OutputError, match="rows: cannot write"):
        begin(identity, {"run": 2}, remove=[rows])
    assert json.loads(identity.read_text()) == {"run": 1}


def test_rows_of_no_run_are_not_gone_on_with(tmp_path):
    (tmp_path / "predictions.jsonl").write_text('{"path": "a.png", "error": null}\n')
    with pytest.raises(OutputError, match=r"holds rows, but no run\.json .*start again without --resume"):
        Recorder(tmp_path, {"model": "small"}, resume=True)
