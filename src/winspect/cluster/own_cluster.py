"""How a Ray cluster of our own, on this machine, is started: closed to others, and without what it does not need.

Ray has options for none of this, so that some of its private names are used; ``pyproject.toml`` bounds its release.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_token(*, keep: bool = False) -> Iterator[None]:
    """Have a cluster of our own ask for a token, whatever RAY_AUTH_MODE says: who reaches its ports can run code.

    Args:
        keep: a token that Ray keeps in the home folder, where ``ray get-auth-token`` finds it; else one that ends
            with the cluster.
    """
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    before = {name: os.environ.get(name) for name in names}
    os.environ["RAY_AUTH_MODE"] = "token"
    if not keep:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        _read_authentication()
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _read_authentication()


def _read_authentication() -> None:
    """Ray reads the environment when it is imported; this has it read again what concerns tokens."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def on_loopback() -> Iterator[None]:
    """Start a cluster that listens on this machine's loopback address alone, as Ray does on Windows and macOS.

    On Linux Ray takes the machine's address in its network, and then its processes listen on all addresses.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def no_reporting_process() -> Iterator[None]:
    """Start a cluster without the process that Ray starts, in place of a dashboard, for usage reports alone.

    It asks for the metadata hosts of three clouds, also where reporting is off. Ray goes on without it, as where it
    cannot be started.
    """
    from ray._private import services

    start, services.start_api_server = services.start_api_server, lambda *_, **__: ("", None)
    try:
        yield
    finally:
        services.start_api_server = start
