"""What every test starts from: an own cache folder, no network, one thread, a small architecture."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
from checkpoints import SMALL, register_small, save_checkpoint

os.environ.setdefault("OMP_NUM_THREADS", "2")
EXAMPLES = Path(__file__).parents[1] / "examples"


def pytest_report_header():
    """Which releases are held to the tests."""
    import torch
    from open_clip.version import __version__

    return f"open_clip {__version__}, torch {torch.__version__}"


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
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("WINSPECT_MODEL", raising=False)
        patch.delenv("WINSPECT_PRECISION", raising=False)
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
def small_checkpoint(tmp_path_factory) -> Path:
    """Random weights of a small plain ViT that open_clip knows as ``checkpoints.SMALL``."""
    register_small()
    return save_checkpoint(SMALL, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def small_model(small_checkpoint):
    """A predictor on the small architecture."""
    from winspect import WinCLIP

    return WinCLIP(SMALL, weights=small_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def textile() -> list[Path]:
    """Twelve real pictures of fabric, six of them good."""
    return sorted((EXAMPLES / "textile").glob("*.jpg"))
