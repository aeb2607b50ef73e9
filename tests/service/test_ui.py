"""``winspect ui``: where it listens, what it opens, what it passes on."""

from __future__ import annotations

import json
import socket
import webbrowser

import pytest

from winspect.cli import ui
from winspect.cli.main import main
from winspect.errors import SettingsError
from winspect.system.installation import install_command

pytest.importorskip("uvicorn", reason='the service needs: pip install "winspect[serve]"')


@pytest.fixture
def started(monkeypatch, process_as_before):
    """What would have been served, and the pages that were opened; nothing is."""
    from winspect.service import serving

    calls, pages = [], []

    def serve(backend, settings, *, say, access_log):
        calls.append((backend, settings))
        say("serving")
        say("ready")

    monkeypatch.setattr(serving, "serve", serve)
    monkeypatch.setattr(ui, "open_in_browser", pages.append)
    return calls, pages


def test_serves_on_this_machine_alone_and_opens_the_page_once(started, tmp_path, capsys):
    calls, pages = started
    assert main(["ui", "--model", "winspect-tiny", "--data", str(tmp_path), "--port", "7999"]) == 0
    ((backend, settings),) = calls
    assert (settings.host, settings.port, settings.data, settings.page) == ("127.0.0.1", 7999, tmp_path, True)
    assert settings.api_key_file is None and settings.classes is None
    assert backend.spec.options == {"model": "winspect-tiny"}
    assert pages == ["http://127.0.0.1:7999/"]
    assert capsys.readouterr().err == "winspect: serving\nwinspect: ready\n"


@pytest.fixture
def foreign_calibration(tmp_path, monkeypatch):
    """Of a model called "fake"; what is served is "another"."""
    from tests.service.fake_models import LOADER, spec
    from tests.service.running import Running, grey
    from tests.service.test_backend import calibrated
    from winspect.service.settings import ModelSpec

    with Running(tmp_path / "stored", spec()) as own:
        own.ask(own.backend.add_good("part", [(f"{n}.png", grey(n)) for n in range(20)]))
        document = calibrated(own, "part", 0.1).document
    file = tmp_path / "part.json"
    file.write_text(json.dumps(document))
    defaults = ModelSpec.__init__.__defaults__
    monkeypatch.setattr(ModelSpec.__init__, "__defaults__", (*defaults[:-1], LOADER))
    return file


@pytest.mark.parametrize("verb", [["serve"], ["ui", "--no-browser"]])
@pytest.mark.parametrize("given", [True, False], ids=["given", "stored"])
def test_a_calibration_that_cannot_be_used_is_exit_code_2(
    verb, given, foreign_calibration, tmp_path, capsys, process_as_before
):
    where = ["--data", str(tmp_path / "new"), "--calibration", str(foreign_calibration)]
    options = where if given else ["--data", str(tmp_path / "stored")]
    assert main([*verb, "--port", "0", "--model", "another", *options]) == 2
    said = capsys.readouterr().err
    assert "model: calibrated with 'fake', now 'another'" in said
    assert "ready after" not in said


def test_no_browser(started, tmp_path):
    assert main(["ui", "--no-browser", "--data", str(tmp_path), "--port", "0"]) == 0
    ((_, settings),), pages = started
    assert pages == [] and settings.port != 0


def test_the_next_port_that_is_free():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert ui.free_port(port) > port
        with pytest.raises(SettingsError, match=rf"ports {port} to {port} are all taken"):
            ui.free_port(port, ports=1)


class Windowed(webbrowser.BaseBrowser):
    opened = None

    def open(self, url, new=0, autoraise=True):
        self.opened.append(url)
        return True


def missing():
    raise webbrowser.Error("no browser")


@pytest.mark.parametrize(
    ("get", "is_opened"),
    [(Windowed, True), (lambda: webbrowser.GenericBrowser("lynx"), False), (missing, False)],
    ids=["windows", "terminal", "none"],
)
def test_only_a_browser_with_windows_is_opened(monkeypatch, get, is_opened):
    monkeypatch.setattr(webbrowser, "get", get)
    monkeypatch.setattr(Windowed, "opened", [])
    monkeypatch.setattr(ui.threading, "Thread", lambda target, args, daemon: Now(target, args))
    ui.open_in_browser("http://x/")
    assert Windowed.opened == ["http://x/"] * is_opened


class Now:
    """A thread that runs at once."""

    def __init__(self, target, args):
        self.start = lambda: target(*args)


def test_without_the_extra_it_says_which(monkeypatch, capsys, process_as_before):
    import sys

    monkeypatch.setitem(sys.modules, "winspect.service.serving", None)
    error = ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
    monkeypatch.setattr("builtins.__import__", importing(error))
    assert main(["ui"]) == 2
    assert f"the page needs uvicorn: {install_command('serve')}" in capsys.readouterr().err


def importing(error):
    real = __import__

    def fake(name, *args, **options):
        if name == "winspect.service.serving":
            raise error
        return real(name, *args, **options)

    return fake
