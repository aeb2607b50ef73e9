"""A local cluster lets nobody in: it listens on loopback alone and asks for a token that nobody knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray")

from winspect.cluster.cluster import private_token, started_closed, without_notice
from winspect.errors import ClusterError

SOURCES = str(Path(__file__).parents[2] / "src")

# Everything the process and its children listen on; a task; and visitors with the token, with a wrong one, with none.
OPENED = """
import json, os, subprocess, sys
from pathlib import Path
import ray  # before anybody has said anything of tokens
from winspect.cluster.cluster import connect

def family():
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found

def listening():
    sockets = set()
    for process in family():
        try:
            sockets |= {os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()}
        except OSError:
            pass
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()[1:]]
    opened = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    return sorted({place.rpartition(":")[0] for place in opened})

STRANGER = (
    "import sys; from ray._raylet import GcsClient; client = GcsClient(address=sys.argv[1]); "
    "print('let in' if client.get_all_node_info(timeout=20) else 'no nodes')"
)
with connect() as cluster:
    task = ray.get(ray.remote(lambda: "done").remote())
    address, mode, places = ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_MODE"], listening()
    token = os.environ["RAY_AUTH_TOKEN"]
    asked = [("token", token), ("token", "0" * 64), ("disabled", "")]
    visitors = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", STRANGER, address],
            env={**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": value},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for mode, value in asked
    ]
    told = [visitors[0].communicate(timeout=60)[0].strip()]  # the others have had as much time
    for visitor in visitors[1:]:
        visitor.kill()
        told.append(visitor.communicate()[0].strip())
print(json.dumps([task, mode, places, told, os.environ.get("RAY_AUTH_MODE"), "RAY_AUTH_TOKEN" in os.environ]))
"""


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_it_lets_nobody_in_and_leaves_the_environment_as_it_was(tmp_path):
    """Before: all its processes listened on all addresses, and whoever reached them could run code."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:
        env = {**os.environ, "PYTHONPATH": SOURCES, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": short}
        env |= {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
            env.pop(name, None)
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", OPENED], env=env, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert "RAY_BACKEND_LOG_LEVEL" not in ran.stderr
    task, mode, places, told, mode_afterwards, token_is_left = json.loads(ran.stdout.splitlines()[-1])
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert (task, mode) == ("done", "token")
    assert {*places} <= loopback and places
    assert told == ["let in", "", ""]
    assert (mode_afterwards, token_is_left) == ("disabled", False)
    assert not (tmp_path / ".ray").exists()  # no token is left in the home folder


@pytest.mark.parametrize("name", ["ENABLE_RAY_CLUSTER", "start_api_server"])
def test_a_release_without_rays_private_names_is_not_started_open(monkeypatch, name):
    from ray._private import ray_constants, services

    monkeypatch.delattr(ray_constants if name.isupper() else services, name)
    words = rf"^Ray .* is newer than this release of winspect knows \(.*{name}.*\): a cluster .* would be open"
    with pytest.raises(ClusterError, match=words), started_closed():
        pytest.fail("started")


def test_a_release_that_reads_tokens_otherwise_is_not_started_open(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray._raylet", None)
    with pytest.raises(ClusterError, match="would be open to others"), private_token():
        pytest.fail("started")


def test_the_notice_of_rays_core_stays_off_stderr_and_nothing_else(capfd):
    """Its core writes to the file descriptor, beside Python's stderr."""
    with pytest.raises(ZeroDivisionError), without_notice():
        os.write(
            2, b"[2026-11-28 04:49:00,128 I 1 1] logging.cc:303: Set ray log level from RAY_BACKEND_LOG_LEVEL to 3\n"
        )
        os.write(2, b"another\n")
        raise ZeroDivisionError
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "another\nafterwards\n"
