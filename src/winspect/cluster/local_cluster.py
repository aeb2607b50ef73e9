"""How a Ray local cluster, on this machine, is started: closed to others, and without what it does not need.

Ray has options for none of this, so private names of Ray are used, all of them here; a release without them is refused.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from winspect.errors import ClusterError


@contextmanager
def private_token(*, keep: bool = False) -> Iterator[None]:
    """Have a local cluster ask for a token, whatever RAY_AUTH_MODE says: who reaches its ports can run code.

    Args:
        keep: the token that Ray keeps in the home folder, for ``ray get-auth-token``; else one that ends with the
            cluster.
    """
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
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
    """Have Ray read again what the environment says of tokens; it does so when it is imported."""
    try:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
    except (ImportError, AttributeError) as error:
        raise _unknown_release(error) from error


@contextmanager
def started_closed(*, dashboard: bool = False) -> Iterator[None]:
    """Start a cluster within this block that listens on the loopback address alone, with no process for usage reports.

    On Linux Ray takes the machine's address in its network, and then its processes listen on all addresses; on Windows
    and macOS it takes loopback. The process that Ray starts in place of a dashboard asks the metadata hosts of three
    clouds, also where reporting is off; Ray goes on without it, as where it cannot be started.

    Raises:
        ClusterError: this release of Ray cannot be started so.
    """
    from ray._private import ray_constants, services

    with ExitStack() as stack:
        try:
            stack.enter_context(mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False))
            if not dashboard:
                stack.enter_context(mock.patch.object(services, "start_api_server", lambda *_, **__: ("", None)))
        except AttributeError as error:
            raise _unknown_release(error) from error
        yield


def _unknown_release(error: Exception) -> ClusterError:
    import ray

    return ClusterError(
        f"Ray {ray.__version__} is newer than this release of winspect knows ({error}): a cluster started here would "
        "be open to others; install ray 2.60, or start one with RAY_AUTH_MODE=token and name its --address"
    )
