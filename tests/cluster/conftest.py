"""One Ray cluster for all tests that need one, as it takes seconds to start; and pictures, one of which kills."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import warnings
from pathlib import Path

import pytest

# Read when Ray is imported, by this process and those it starts. The token is not the home folder's.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32))
os.environ.update(RAY_ENABLE_AUTO_CONNECT="0", RAY_USAGE_STATS_ENABLED="0")

POISON_WH = (13, 13)
# Imported by each process of the cluster as it starts: a picture of this size takes down whoever resizes it.
_POISON = f"""
import os, signal, sys
if any("default_worker" in word for word in sys.orig_argv):
    from PIL import Image
    resize = Image.Image.resize
    def poisoned(self, *arguments, **options):
        if self.size == {POISON_WH}:
            os.kill(os.getpid(), signal.SIGKILL)
        return resize(self, *arguments, **options)
    Image.Image.resize = poisoned
"""


@pytest.fixture(scope="session")
def ray_cluster(own_cache, tmp_path_factory):
    """A cluster of two cores that this process is connected to: ``connect()`` uses it. For tests marked ``ray``."""
    import ray

    poison = tmp_path_factory.mktemp("poison")
    (poison / "sitecustomize.py").write_text(_POISON)
    # A socket's whole path has 107 bytes at most.
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    paths = [str(poison), str(Path(__file__).parents[2] / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    terminated = signal.getsignal(signal.SIGTERM)  # Ray takes it for itself
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=200 << 20,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=folder,
        )
    signal.signal(signal.SIGTERM, terminated)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_options() -> dict:
    """The bundled model, on the engine that needs no graph compiled in each process."""
    return {"model": "winspect-tiny", "device": "cpu", "engine": "torch"}


@pytest.fixture(scope="session")
def tiny(own_cache, tiny_options):
    """A predictor with these options."""
    from winspect import WinCLIP

    return WinCLIP(**tiny_options)
