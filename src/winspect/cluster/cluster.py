"""A Ray cluster: one that is there, or a local one on this machine, which is closed to others."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import ray

from winspect.errors import ClusterError
from winspect.system.machine import usable_cores

_REACHABLE_S = 10.0
# What passes through the object store is finished shards; the default is a third of the machine's memory.
_OBJECT_STORE_BYTES = 1 << 30


@dataclass(frozen=True)
class Node:
    """One machine of a cluster: its name, and what Ray may give away of it."""

    id: str
    host: str
    cpus: float
    gpus: float
    npus: float


@dataclass(frozen=True)
class Cluster:
    """A cluster this process is connected to.

    Attributes:
        is_local: started by this process, on this machine, and gone with it.
        dashboard_url: None where there is none.
    """

    is_local: bool
    dashboard_url: str | None
    nodes: tuple[Node, ...]


@contextmanager
def connect(address: str | None = None, *, dashboard: bool = False, verbose: bool = False) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine; leave it, or stop it, at the end of the block.

    Where this process is connected already, that connection is used, and stays; another address is refused then.

    Args:
        address, dashboard, verbose: see :func:`winspect.cluster.run.batch`.

    Raises:
        ClusterError: the cluster cannot be reached, or is of another release of Ray or Python.
    """
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if ray.is_initialized():
        _check_connected(address)
        yield _describe(is_local=False)
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        _check_reachable(address)
    with nullcontext() if address else private_token(keep=dashboard):
        context = _init(address, dashboard, verbose)
        try:
            yield _describe(is_local=address is None, url=getattr(context, "dashboard_url", None))
        finally:
            ray.shutdown()


def _check_connected(address: str | None) -> None:
    """Refuse an address other than that of the cluster this process is connected to."""
    if address is None or address == "auto" or ray.util.client.ray.is_connected():
        return
    here = ray.get_runtime_context().gcs_address
    if address != here:
        _check_reachable(address)
        raise ClusterError(
            f"{address}: this process is connected to the cluster at {here}; name no other, or ray.shutdown() first"
        )


def _init(address: str | None, dashboard: bool, verbose: bool) -> Any:
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": "info" if verbose else "error"}
    if address is None:
        options |= {"num_cpus": usable_cores(), "object_store_memory": _OBJECT_STORE_BYTES}
        options["include_dashboard"] = dashboard
    before = signal.getsignal(signal.SIGTERM)
    try:
        closed = nullcontext() if address else started_closed(dashboard=dashboard)
        with closed, nullcontext() if verbose else without_notice():
            return ray.init(address=address or "local", **options)
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(_refusal(address, error)) from error
    finally:
        # Ray takes this signal for itself, and ends the process; a polite kill is the caller's, as Ctrl-C is.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def without_notice() -> Iterator[None]:
    """Keep off stderr what Ray's core prints whatever its level: that it has read the level from the environment.

    All else that comes meanwhile is printed at the end of the block.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            for line in kept:
                if b"RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(2, line)


def _refusal(address: str | None, error: Exception) -> str:
    text = f"{error} {error.__cause__ or ''}"
    if address is None:
        return f"Ray cannot be started on this machine: {first_line(error)}"
    if "InvalidAuthToken" in text or type(error).__name__ == "AuthenticationError":
        return (
            f"{address}: the cluster asks for its token: set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or "
            "~/.ray/auth_token"
        )
    if "ersion" in text and ("mismatch" in text or "different" in text):
        return f"{address}: the cluster runs another release of Ray or Python than this machine: {first_line(error)}"
    if address == "auto":
        return "auto: no running Ray cluster was found from this machine: ray start --head, or name an address"
    return f"{address}: cannot be reached: {first_line(error)}; check the address, and that the cluster runs"


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[0] if len(lines) == 1 or not lines[0].endswith(":") else f"{lines[0]} {lines[-1]}")[:300]


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes; a port where nobody listens is known at once."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit() or not host or "://" in host:
        raise ClusterError(f"{address}: got no address of a cluster, need auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHABLE_S).close()
    except (OSError, OverflowError) as error:
        hint = "ray start prints the address; ray:// is port 10001, if it was not chosen otherwise"
        raise ClusterError(f"{address}: cannot be reached ({error}); check that the cluster runs: {hint}") from error


def _describe(*, is_local: bool, url: str | None = None) -> Cluster:
    nodes = tuple(
        Node(
            id=node["NodeID"],
            host=node.get("NodeManagerHostname") or node["NodeManagerAddress"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            npus=node["Resources"].get("NPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    )
    return Cluster(is_local, f"http://{url}" if url else None, nodes)


# A cluster on this machine: closed to others, and without what it does not need. Ray has options for none of this, so
# private names of Ray are used, all of them here; a release without them is refused.


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
    with ExitStack() as stack:
        try:
            from ray._private import ray_constants, services

            stack.enter_context(mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False))
            if not dashboard:
                stack.enter_context(mock.patch.object(services, "start_api_server", lambda *_, **__: ("", None)))
        except (ImportError, AttributeError) as error:
            raise _unknown_release(error) from error
        yield


def _unknown_release(error: Exception) -> ClusterError:
    return ClusterError(
        f"Ray {ray.__version__} is newer than this release of winspect knows ({error}): a cluster started here would "
        "be open to others; install ray 2.60, or start one with RAY_AUTH_MODE=token and name its --address"
    )
