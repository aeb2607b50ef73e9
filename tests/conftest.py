"""What every test starts from: an own cache folder, no network, one thread, a small architecture."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import signal
from importlib.metadata import version
from pathlib import Path

import pytest

# torch and open_clip are imported by fixtures alone: with pytest-xdist, the process that hands out tests reads this
# file before it starts the others, and has no use for them.

os.environ.setdefault("OMP_NUM_THREADS", "2")
# A shell's background job ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
EXAMPLES = Path(__file__).parents[1] / "examples"


def pytest_report_header():
    """Which releases are held to the tests."""
    return f"open_clip {version('open_clip_torch')}, torch {version('torch')}"


REAL_TIME = tuple(Path(__file__).parent / folder for folder in ("service", "watch"))


def pytest_collection_modifyitems(items):
    """Tests with real processes, browsers and clocks are tried again on a machine that is too busy; it is reported."""
    for item in items:
        if any(folder in item.path.parents for folder in REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """No test reads or writes the user's cache, and none reaches a hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINSPECT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("WINSPECT_MODEL", raising=False)
        patch.delenv("WINSPECT_PRECISION", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def vocabulary_read_once():
    """CLIP's vocabulary is read once for all tests: for each model anew it would take half of loading a small one."""
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


@pytest.fixture
def process_as_before():
    """The command line sets up logging and signals for a whole process; after the test they are as they were."""
    root = logging.getLogger()
    handlers, level, terminated = root.handlers[:], root.level, signal.getsignal(signal.SIGTERM)
    yield
    logging.captureWarnings(False)
    signal.signal(signal.SIGTERM, terminated)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def known_graphs() -> dict:
    """Graphs that OpenVINO has compiled, and the towers whose memory they use."""
    return {}


@pytest.fixture
def graphs_compiled_once(known_graphs, monkeypatch):
    """Tests of what lies above the engines need not compile the same graph of the same weights each."""
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
def textile() -> list[Path]:
    """Twelve real pictures of fabric, six of them good."""
    return sorted((EXAMPLES / "textile").glob("*.jpg"))
