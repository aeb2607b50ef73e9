"""The page's commands, run as they are written: a broker, a listener, the watch, an OPC UA client."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from site_pages import blocks, text_of, write_pictures

from tests.delivery.counterparts import listens, until
from winspect.delivery import Deliveries
from winspect.system.toml_texts import tomllib

PAGE = "docs/line.md"
pytest.importorskip("amqtt", reason="the broker of the page")
pytest.importorskip("asyncua", reason="the OPC UA client of the page")
pytest.importorskip("paho.mqtt.client", reason="MQTT needs the extra mqtt")


def test_the_tables_of_the_page_are_deliveries():
    found = [table for block in blocks(PAGE, "toml") if "[[deliveries]]" in block for table in read(block)]
    kinds = {item.kind for item in found}
    assert kinds == {"mqtt", "webhook", "opcua"}
    assert len(found) == 5


def read(block):
    return Deliveries.read({"deliveries": tomllib.loads(block)["deliveries"]})


def test_the_message_of_the_page_has_the_keys_of_a_row():
    from tests.delivery.rows import row_of

    (block,) = [block for block in blocks(PAGE, "json") if '"repeat"' in block]
    assert set(json.loads(block)) <= {*row_of(1), "repeat"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="the page's commands are bash's")
@pytest.mark.skipif(listens(1883) or listens(4840), reason="a port of the page is in use on this machine")
def test_the_commands_run_as_written(tmp_path):
    write_pictures(tmp_path, good=1)
    (named,) = re.findall(r'```toml title="line.toml"\n(.*?)```', text_of(PAGE), flags=re.DOTALL)
    (tmp_path / "line.toml").write_text(named)
    broker, listener, watch, reading = blocks(PAGE, "bash")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "winspect").write_text(f'#!/bin/sh\nexec {sys.executable} -m winspect "$@"\n')
    (tmp_path / "bin" / "winspect").chmod(0o755)
    places = [tmp_path / "bin", Path(sys.executable).parent, *os.get_exec_path()]
    env = {**os.environ, "PATH": os.pathsep.join(map(str, places))}
    shell = subprocess.Popen(
        ["bash", "-e"], cwd=tmp_path, env=env, start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for step in (broker, listener, watch):
            print(step, file=shell.stdin, flush=True)
            if step is broker:
                until(lambda: listens(1883), 60)
            if step is listener:
                until(lambda: "client_connected" in (tmp_path / "broker.log").read_text(), 60)
                time.sleep(3)  # it subscribes
        pictures = len(list((tmp_path / "incoming").iterdir())) or len(list((tmp_path / "new").iterdir()))
        arrived = until(lambda: lines(tmp_path / "arrived.jsonl", pictures), 120)
        print(reading, "echo the end", file=shell.stdin, flush=True)
        said = []
        for line in shell.stdout:
            said.append(line.rstrip("\n"))
            if line == "the end\n":
                break
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()
    rows = [json.loads(line) for line in arrived]
    newest = rows[-1]
    assert said[-3:] == [newest["verdict"], str(pictures), "the end"]
    assert {row["class"] for row in rows} == {"nut"}
    days = sorted((tmp_path / "results").glob("predictions-*.jsonl"))
    written = [json.loads(line) for path in days for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in written]


def lines(path, most):
    found = [line for line in path.read_text().splitlines() if line.startswith("{")] if path.exists() else []
    return found if len(found) >= most else []
