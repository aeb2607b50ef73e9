"""Nothing phones home: every verb with an engine runs in an empty home folder, under a resolver that keeps a record.

An audit hook in each Python process (children too: Ray's, the service's) writes down every name that is resolved and
every host that is connected to. Libraries that report from native code, as ONNX Runtime does, give themselves away by
the ids that they write into the home folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTILE = ROOT / "examples" / "textile"
# Written where a user's files belong: caches and stored references.
OURS = (".cache/winspect", ".local/share/winspect")

_RECORDER = """
import ipaddress, os, socket, sys
HERE = {None, "", "localhost", socket.gethostname(), socket.getfqdn()}
def is_foreign(host):
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host not in HERE
    return address.is_global
def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[0].type == socket.SOCK_STREAM:
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in HERE and is_foreign(host):
        with open(os.environ["WINSPECT_TEST_RECORD"], "a") as record:
            record.write(f"{event} {host} by {sys.orig_argv[:4]}\\n")
sys.addaudithook(note)
"""


@pytest.fixture
def watched(tmp_path):
    """The environment of a process that is watched, a folder to work in, and what has been seen."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(_RECORDER)
    (tmp_path / "home").mkdir()
    keep = ("PATH", "LANG", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "SYSTEMROOT")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env |= {
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join((str(tmp_path / "hook"), str(ROOT / "src"))),
        "WINSPECT_TEST_RECORD": str(tmp_path / "record"),
        "WINSPECT_MODEL": "winspect-tiny",
        "RAY_AUTH_MODE": "disabled",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    yield env, tmp_path
    assert names_asked_for(tmp_path) == []
    assert strangers(tmp_path / "home") == []


def names_asked_for(folder: Path) -> list[str]:
    record = folder / "record"
    return record.read_text().splitlines() if record.exists() else []


def strangers(home: Path) -> list[str]:
    """Files below a home folder that are not ours."""
    files = (path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir())
    return [name for name in files if not name.startswith(OURS)]


def run(env: dict[str, str], *arguments: object, code: int = 0) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_predict_and_bundles(watched):
    env, folder = watched
    picture = str(next(TEXTILE.glob("*.jpg")))
    bundles = {engine: str(folder / engine) for engine in ("openvino", "onnx")}
    calls = [["predict", picture, "--engine", "openvino"]]
    calls += [["export", "--engine", engine, "--class", "textile", "--out", out] for engine, out in bundles.items()]
    run(env, "-c", f"from winspect.cli.main import main; assert [main(call) for call in {calls}] == [0, 0, 0]")
    for bundle in bundles.values():
        run(env, "-m", "winspect", "predict", picture, "--bundle", bundle)


def test_int8_quantisation(watched):
    run(watched[0], "-c", "import winspect, nncf.telemetry")


def test_serve(watched):
    env, _ = watched
    arguments = ["-m", "winspect", "serve", "--port", "0", "--engine", "openvino"]
    with subprocess.Popen([sys.executable, *arguments], env=env, stderr=subprocess.PIPE, text=True) as service:
        try:
            address = next(line for line in service.stderr if "serving on" in line).split()[3].rstrip(";")
            assert any("ready after" in line for line in service.stderr)
            with urllib.request.urlopen(f"{address}/v1/model", timeout=10) as answer:
                assert json.load(answer)["engine"] == "openvino"
        finally:
            service.terminate()
        assert service.wait(20) == 0


def test_batch(watched):
    env, folder = watched
    pytest.importorskip("ray")
    options = ("--out", folder / "out", "--device", "cpu", "--engine", "openvino")
    run(env, "-m", "winspect", "batch", TEXTILE, *options)
    time.sleep(0.5)


def test_the_recorder_sees_what_is_asked_for_by_children_too(watched):
    env, folder = watched
    ask = "import socket\ntry:\n socket.create_connection(('reports.example', 443), 1)\nexcept OSError:\n pass"
    run(env, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])")
    (folder / "home" / "id").write_text("1")
    assert [line.split()[1] for line in names_asked_for(folder)] == ["reports.example"]
    assert strangers(folder / "home") == ["id"]
    (folder / "record").unlink()
    (folder / "home" / "id").unlink()


def test_what_a_user_has_set_is_kept(watched):
    env, _ = watched
    show = "import os, winspect; print(os.environ['RAY_USAGE_STATS_ENABLED'], os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run({**env, "RAY_USAGE_STATS_ENABLED": "1"}, "-c", show).split() == ["1", "1"]
