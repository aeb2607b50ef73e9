"""The pages of the site: their commands and code, their links, and the messages that they explain."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
from site_pages import PAGES, ROOT, blocks, calls, commands, link_targets, places, text_of, write_pictures

from winspect.cli.main import build_parser, main

MADE = {"docs/api.md"}
"""Pages that are made when the site is."""
RUN_WHOLE = {"docs/start.md": 104, "docs/tasks.md": 24, "docs/thresholds.md": 104, "docs/edge.md": 104}
"""Pages whose commands and code run in their order, in a folder of pictures: how many of these are good."""
READY = {"watch": "watching incoming", "serve": "ready after"}
"""Verbs that end on a signal, and what they say when they have begun."""
PORT = re.compile(r"serving on http://127\.0\.0\.1:(\d+)")


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page):
    for arguments in commands(page):
        build_parser().parse_args(arguments)


@pytest.mark.parametrize("page", PAGES)
def test_python_is_python(page):
    for code in blocks(page, "python"):
        ast.parse(code, page)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, place in link_targets(page):
        path = (PAGES[page].parent / target).resolve() if target else PAGES[page]
        if path.relative_to(ROOT).as_posix() in MADE or target.startswith("reference/"):
            continue
        assert path.exists(), target
        assert not place or place in places(path), f"{target}#{place}"


def test_something_is_looked_at():
    assert len(PAGES) > 15
    assert sum(len(list(commands(page))) for page in PAGES) > 80


@pytest.mark.parametrize(("page", "good"), RUN_WHOLE.items())
def test_a_page_runs_from_top_to_bottom(page, good, tmp_path, monkeypatch, capsys):
    write_pictures(tmp_path, good=good)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINSPECT_MODEL", "winspect-tiny")  # in place of 833 MB
    with ExitStack() as running:
        _run(page, {}, running)
    assert capsys.readouterr().out


def _run(page, names, running):
    """Run commands and code in the order in which they stand; the code of a page shares its names."""
    port = None
    for language, block in re.findall(r"^```(sh|console|python)\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
        if language == "python":
            model = names.get("model")
            exec(compile(block.replace("WinCLIP()", 'WinCLIP("winspect-tiny")'), page, "exec"), names)
            assert names.get("model") is not model
            continue
        for arguments in calls(block):
            if arguments[0] in READY:
                port = PORT.search(running.enter_context(_begun(arguments)))
            else:
                assert main(arguments) == 0, arguments
        if block.startswith("curl ") and shutil.which("curl"):
            asked = block.replace("localhost:8080", f"127.0.0.1:{port[1]}")
            answer = subprocess.run(shlex.split(asked), check=True, capture_output=True, timeout=60).stdout
            assert 0 < json.loads(answer)["results"][0]["anomaly_score"] < 1


@contextmanager
def _begun(arguments):
    """Run a command that ends on a signal, from when it has begun; gives what it said until then."""
    more = ["--port", "0", "--data", "data"] if arguments[0] == "serve" else []
    command = [sys.executable, "-m", "winspect", *arguments, *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if READY[arguments[0]] in line:
                break
        try:
            yield "".join(lines)
        finally:
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=60)
        assert process.returncode == 0, [*lines, rest]


def test_messages_of_the_page_on_troubles_are_in_the_code():
    """Each message between backticks at the start of an entry, piece by piece between its gaps."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    messages = re.findall(r"^- \*\*`(.*?)`\*\*", text_of("docs/troubleshooting.md"), flags=re.MULTILINE)
    assert len(messages) > 25
    pieces = [piece.strip() for message in messages for piece in message.split("...") if piece.strip()]
    assert [piece for piece in pieces if piece not in code] == []
