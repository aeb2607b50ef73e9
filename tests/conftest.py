"""Fixtures of all tests: a cache folder apart from the user's, no network, one thread, a small architecture."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import signal
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

# torch and open_clip are imported by fixtures alone: with pytest-xdist, the process that hands out tests reads this
# file before it starts the others, and has no use for them.

os.environ.setdefault("OMP_NUM_THREADS", "2")
# A shell's background job ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
EXAMPLES = Path(__file__).parents[1] / "examples"


def pytest_report_header():
    """Name the releases that are tested."""
    return f"open_clip {version('open_clip_torch')}, torch {version('torch')}"


REAL_TIME = frozenset(
    {
        # Model processes that are stopped, killed and hang.
        *("service/test_backend.py", "service/test_demanding.py", "service/test_processes.py", "service/test_serve.py"),
        "service/test_guard.py",  # clients that stand still on real sockets
        *("service/test_page.py", "service/test_page_learning.py"),  # a browser
        *("delivery/test_mqtt.py", "delivery/test_opcua.py", "delivery/test_page.py"),  # brokers, servers
        "watch/test_camera.py",  # streams of 50 frames a second
    }
)
"""Files whose tests have real clocks, processes or browsers. On a machine that is too busy they are tried again, and
that is reported; all other tests have one try."""


def pytest_collection_modifyitems(items):
    """Let the tests of :data:`REAL_TIME` be tried three times."""
    here = Path(__file__).parent
    if gone := sorted(name for name in REAL_TIME if not (here / name).is_file()):
        raise pytest.UsageError(f"tests/conftest.py: REAL_TIME names files that are gone: {', '.join(gone)}")
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).as_posix() in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep every test off the user's cache and off the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINSPECT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("WINSPECT_MODEL", raising=False)
        patch.delenv("WINSPECT_PRECISION", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def vocabulary_read_once():
    """Read CLIP's vocabulary once for all tests: for each model anew it would take half of loading a small one."""
    from open_clip import SimpleTokenizer

    read = SimpleTokenizer.__init__

    @functools.cache
    def state_of(*arguments, **options) -> dict:
        made = object.__new__(SimpleTokenizer)
        read(made, *arguments, **options)
        return vars(made)

    def init(self, *arguments, **options):
        vars(self).update(state_of(*arguments, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleTokenizer, "__init__", init)
        yield


@pytest.fixture(autouse=True)
def log_level_as_usual():
    """Whatever a command line set it to in a fixture of a whole module."""
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture
def process_as_before():
    """Put logging and signals, which the command line sets up for a whole process, back after the test."""
    root = logging.getLogger()
    handlers, level, terminated = root.handlers[:], root.level, signal.getsignal(signal.SIGTERM)
    yield
    logging.captureWarnings(False)
    signal.signal(signal.SIGTERM, terminated)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def cli(capsys, process_as_before):
    """Run a ``winspect`` command line in this process; the result has ``code``, ``out`` and ``err``."""
    from winspect.cli.main import main

    def run(*arguments) -> SimpleNamespace:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def known_graphs() -> dict:
    """Hold graphs that OpenVINO has compiled, and the towers whose memory they use."""
    return {}


@pytest.fixture
def graphs_compiled_once(known_graphs, monkeypatch):
    """Compile each graph of the same weights once, for tests of what lies above the engines."""
    from winspect.engines.openvino_engine import OpenVINOEngine

    compile_graph = OpenVINOEngine._compiled

    def compiled(self, layout, **options):
        if type(self) is not OpenVINOEngine:  # int8's graph follows from its pictures, too
            return compile_graph(self, layout, **options)
        self._model(layout)  # may fail
        weights = hashlib.sha256()
        for parameter in self.tower.parameters():
            weights.update(parameter.detach().numpy())
        key = (weights.digest(), layout, self.openvino_device, repr({**self._options, **options}))
        if key not in known_graphs:
            known_graphs[key] = compile_graph(self, layout, **options), self.tower
        return known_graphs[key][0]

    monkeypatch.setattr(OpenVINOEngine, "_compiled", compiled)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """Random weights of a small plain ViT that open_clip knows as ``checkpoints.SMALL``."""
    from checkpoints import SMALL, register_small, save_checkpoint

    register_small()
    return save_checkpoint(SMALL, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def small_model(small_checkpoint):
    """A predictor on the small architecture."""
    from checkpoints import SMALL

    from winspect import WinCLIP

    return WinCLIP(SMALL, weights=small_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """The bundled model as an edge bundle of class object: as a program it starts in a fifth of the time."""
    from winspect import WinCLIP
    from winspect.inspector.export import export

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export(WinCLIP("winspect-tiny", device="cpu", engine="openvino"), ["object"], folder)
    return folder


@pytest.fixture(scope="session")
def textile() -> list[Path]:
    """Twelve real pictures of fabric, six of them good."""
    return sorted((EXAMPLES / "textile").glob("*.jpg"))


@pytest.fixture
def equal_windows(monkeypatch):
    """Every window gives the mean of all: what windows that attend to each other come to."""
    from dataclasses import replace

    from winspect.engines.base import Engine

    whole = Engine.encode

    def blurred(self, *arguments, **options):
        embeddings = whole(self, *arguments, **options)
        means = {scale: w.mean(dim=1, keepdim=True).expand_as(w) for scale, w in embeddings.windows.items()}
        return replace(embeddings, windows=means)

    monkeypatch.setattr(Engine, "encode", blurred)
