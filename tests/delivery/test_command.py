"""Commands: rows on stdin, exit codes, time, a bounded number at once."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.delivery.counterparts import until
from tests.delivery.rows import row_of
from winspect.delivery import CommandSettings
from winspect.delivery.command import CommandChannel
from winspect.delivery.message import AwayError, Message

STOP = threading.Event()


def send(command, *numbers, **options):
    channel = CommandChannel(CommandSettings(command=command, **options))
    return list(channel.send([Message(number, row_of(number)) for number in numbers], STOP))


def test_the_row_is_on_stdin(tmp_path):
    assert send(["sh", "-c", f"cat >> {tmp_path}/rows"], 1, 2, at_once=1) == [None, None]
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert rows == [{**row_of(1), "repeat": False}, {**row_of(2), "repeat": False}]


def test_no_shell_unless_asked_for(tmp_path):
    send("echo x > made; echo $HOME", 1)
    assert not (tmp_path / "made").exists()
    send(f"echo x > '{tmp_path}/made'", 1, shell=True)
    assert (tmp_path / "made").exists()


def test_a_program_that_does_not_read():
    long = Message(1, row_of(1, warning="x" * 1_000_000))
    channel = CommandChannel(CommandSettings(command="true"))
    assert list(channel.send([long], STOP)) == [None]


def test_exit_codes(tmp_path):
    assert send(["sh", "-c", "exit 3"], 1) == ["sh: exit code 3"]
    with pytest.raises(AwayError, match="sh: exit code 75") as caught:
        send(["sh", "-c", "exit 75"], 1)
    assert caught.value.was_sent
    with pytest.raises(AwayError, match=r"no-such-program: cannot be started \(.*No such file") as caught:
        send("no-such-program", 1)
    assert not caught.value.was_sent


def test_when_the_time_is_up_it_and_what_it_started_are_killed(tmp_path):
    began = time.monotonic()
    with pytest.raises(AwayError, match=r"still running after 0.3 s, and killed"):
        send(f"(sleep 3; echo x > '{tmp_path}/made') & sleep 60", 1, shell=True, timeout_s=0.3)
    assert time.monotonic() - began < 30
    time.sleep(3.5)
    assert not (tmp_path / "made").exists()


def test_as_many_at_once_as_are_handed_over_and_all_end_with_the_process(tmp_path):
    channel = CommandChannel(CommandSettings(command="sleep 60", at_once=2))
    assert channel.at_once == 2
    stop = threading.Event()
    outcomes = []

    def run():
        try:
            list(channel.send([Message(n, row_of(n)) for n in (1, 2)], stop))
        except AwayError as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    stop.set()
    until(lambda: outcomes == ["stopped"])
    thread.join(10)
