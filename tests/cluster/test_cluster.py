"""Reaching a cluster, and refusing what cannot do the job; a missing installation names its extra."""

from __future__ import annotations

import signal
import socket
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import winspect.cluster
from tests.cluster.marks import RAYS_WARNINGS
from winspect._version import __version__
from winspect.cli.main import main
from winspect.cluster import cluster, workers
from winspect.cluster.cluster import (
    Cluster,
    Node,
    connect,
)
from winspect.cluster.pool import outcome_of
from winspect.cluster.workers import check_nodes
from winspect.errors import ClusterError, SettingsError
from winspect.system.installation import install_command

pytestmark = RAYS_WARNINGS
on_a_cluster = pytest.mark.ray


@pytest.fixture
def ray_stub(monkeypatch):
    """As if Ray were not running; its ``init`` is what the test says, else nothing starts it."""
    import ray

    stub = SimpleNamespace(init=lambda **options: pytest.fail(f"Ray was started with {options}"))

    def init(**options):
        return stub.init(**options)

    for name, function in {"is_initialized": bool, "init": init, "shutdown": lambda: None, "nodes": list}.items():
        monkeypatch.setattr(ray, name, function)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return stub


@pytest.fixture
def open_port():
    """A port of this machine where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as held:  # held, so that nobody else takes it; not listening, so that it refuses
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def refusal_of(address):
    with pytest.raises(ClusterError) as caught, connect(address):
        pass
    return str(caught.value)


# Addresses


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_port_where_nobody_listens_is_known_at_once(ray_stub, closed_port, scheme):
    began = time.monotonic()
    told = refusal_of(f"{scheme}127.0.0.1:{closed_port}")
    assert time.monotonic() - began < 5
    assert told.startswith(f"{scheme}127.0.0.1:{closed_port}: cannot be reached (")
    assert "refused" in told and told.endswith("ray:// is port 10001, if it was not chosen otherwise")


def test_an_unknown_host(ray_stub, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told = refusal_of("ray://no-such-host:10001")
    assert told.startswith("ray://no-such-host:10001: cannot be reached ([Errno -2] Name or service not known)")


def test_a_host_that_does_not_answer_is_not_waited_for_long(ray_stub, monkeypatch):
    asked = {}

    def create_connection(place, timeout):
        asked.update(place=place, timeout=timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    assert refusal_of("[fd00::1]:6379").startswith("[fd00::1]:6379: cannot be reached (timed out); check that")
    assert asked == {"place": ("fd00::1", 6379), "timeout": 10.0}


@pytest.mark.parametrize(
    "address",
    ["nonsense", "host:", ":6379", "host:port", "http://host:8265", "ray://", "ray://host", "ray://http://h:1"],
)
def test_what_is_no_address(ray_stub, address):
    assert refusal_of(address) == f"{address}: got no address of a cluster, need auto, HOST:PORT or ray://HOST:PORT"


def test_a_port_that_is_none(ray_stub):
    assert refusal_of("127.0.0.1:99999").startswith("127.0.0.1:99999: cannot be reached (")


def test_auto_where_no_cluster_runs(ray_stub):
    def init(*, address, **_):
        assert address == "auto"
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to")

    ray_stub.init = init
    assert refusal_of("auto") == (
        "auto: no running Ray cluster was found from this machine: ray start --head, or name an address"
    )


def test_the_environment_names_the_cluster(ray_stub, monkeypatch, closed_port):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    assert refusal_of(None).startswith(f"127.0.0.1:{closed_port}: cannot be reached (")
    assert refusal_of("nonsense").startswith("nonsense: got no address")  # what is said outright comes first


def test_without_any_address_ray_is_started_here(ray_stub, monkeypatch):
    started = {}

    def init(**options):
        started.update(options)
        raise RuntimeError("no room")

    ray_stub.init = init
    monkeypatch.setattr(cluster, "usable_cores", lambda: 3)
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert refusal_of(None) == "Ray cannot be started on this machine: no room"
    assert (started["address"], started["num_cpus"]) == ("local", 3)
    assert started["object_store_memory"] == 1 << 30 and started["log_to_driver"] is False


# What Ray says, in words


class AuthenticationError(Exception):
    """Called as Ray's own is."""


def version_error():
    try:
        raise RuntimeError("Ray Client version mismatch: 2.51 there, 2.60 here")
    except RuntimeError as cause:
        error = ConnectionError("cannot connect")
        error.__cause__ = cause
        return error


TOKEN = "the cluster asks for its token: set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
OTHER_RELEASE = "the cluster runs another release of Ray or Python than this machine: "


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("Unauthenticated: InvalidAuthToken: it is another one"), TOKEN),
        (AuthenticationError("Token authentication is enabled but no token was found"), TOKEN),
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.51.0\n    Python: 3.10.2"),
            OTHER_RELEASE + "Version mismatch: The cluster was started with: Python: 3.10.2",
        ),
        (version_error(), OTHER_RELEASE + "cannot connect"),
        (
            ConnectionError("ray client connection timeout"),
            "cannot be reached: ray client connection timeout; check the address, and that the cluster runs",
        ),
        (OSError(), "cannot be reached: OSError; check the address, and that the cluster runs"),
    ],
)
def test_what_ray_refuses_in_words(ray_stub, open_port, error, words):
    def init(**_):
        raise error

    ray_stub.init = init
    assert refusal_of(f"127.0.0.1:{open_port}") == f"127.0.0.1:{open_port}: {words}"


def test_a_long_error_is_cut(ray_stub, open_port):
    def init(**_):
        raise RuntimeError("x" * 5000)

    ray_stub.init = init
    assert len(refusal_of(f"127.0.0.1:{open_port}")) < 420


# Installations


@pytest.mark.parametrize("name", ["ray", "pyarrow"])
def test_the_command_line_names_the_extra(monkeypatch, process_as_before, capsys, tmp_path, name):
    """From the start: nothing of the package has been imported yet."""
    monkeypatch.setattr(winspect, "cluster", winspect.cluster)  # what is imported below is not kept
    for module in [module for module in sys.modules if module.startswith("winspect.cluster")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # what `import` finds there is as good as not installed
    assert main(["batch", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert f"{name} is not installed: {install_command('ray')} (on every machine of a cluster)" in told.err
    assert not (tmp_path / "out").exists()


WHOLE = {"version": __version__, "missing": [], "unseen": []}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, []),
        (
            {"version": None, "missing": ["torch"]},
            [f"h: winspect is not installed there, {__version__} here: here it is {install_command('full', 'ray')}"],
        ),
        ({"version": "0.0.9"}, [f"h: winspect 0.0.9 there, {__version__} here: install the same release"]),
        (
            {"missing": ["torch", "pyarrow"]},
            [f"h: torch, pyarrow not installed there: here it is {install_command('full', 'ray')}"],
        ),
        ({"unseen": ["/data/parts"]}, ["h: /data/parts not there: use shared storage, or a URI such as s3://"]),
        (
            {"version": "0.0.9", "unseen": ["/a", "/b"]},
            [
                f"h: winspect 0.0.9 there, {__version__} here: install the same release and "
                "/a, /b not there: use shared storage, or a URI such as s3://"
            ],
        ),
    ],
)
def test_what_a_machine_lacks(found, words):
    assert workers.lacks("h", {**WHOLE, **found}) == words


def test_a_cluster_of_our_own_has_nothing_to_check(monkeypatch):
    monkeypatch.setattr(sys.modules["ray"], "remote", lambda **_: pytest.fail("a machine was asked"))
    check_nodes(Cluster(True, None, (Node("1", "h", 1.0, 0.0, 0.0),)), ["/nowhere"])


# A real cluster


@on_a_cluster
def test_a_connection_that_is_there_is_used_and_stays(ray_cluster, monkeypatch):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with connect() as found:
        (node,) = found.nodes
        assert (found.is_local, node.cpus, node.gpus, node.npus) == (False, 2.0, 0.0, 0.0)
    assert ray.is_initialized()


@on_a_cluster
def test_the_machines_of_a_good_cluster_pass(ray_cluster, tmp_path):
    with connect() as found:
        check_nodes(found, [str(tmp_path)])


@on_a_cluster
def test_a_machine_with_another_release_or_without_a_place_is_refused(ray_cluster, monkeypatch, tmp_path):
    unseen = str(tmp_path / "nowhere")
    monkeypatch.setattr(workers, "__version__", "77.0")
    with connect() as found, pytest.raises(ClusterError) as caught:
        check_nodes(found, [str(tmp_path), unseen])
    assert str(caught.value) == (
        f"1 of 1 machines of the cluster cannot do this job: {found.nodes[0].host}: winspect {__version__} there, 77.0 "
        f"here: install the same release and {unseen} not there: use shared storage, or a URI such as s3://"
    )


@on_a_cluster
def test_a_machine_that_has_died_is_passed_over_while_others_live(ray_cluster, tmp_path, caplog):
    """A cluster names a machine for seconds after its death; a run that goes on then must not be refused."""
    dead = Node("ab" * 28, "dead", 1.0, 0.0, 0.0)
    with connect() as found:
        check_nodes(replace(found, nodes=(*found.nodes, dead)), [str(tmp_path)])
        assert caplog.messages == ["machines of the cluster that have died are passed over: dead"]
        with pytest.raises(
            ClusterError, match=r"^1 of 1 machines of the cluster cannot do this job: dead: it has died$"
        ):
            check_nodes(replace(found, nodes=(dead,)))


@on_a_cluster
def test_errors_of_a_worker_come_home_as_they_were(ray_cluster):
    import ray

    def fail(kind, words):
        raise kind(words)

    task = ray.remote(num_cpus=0)(fail)
    with pytest.raises(SettingsError, match=r"^stride: got 0$"):
        outcome_of(task.remote(SettingsError, "stride: got 0"))
    with pytest.raises(ClusterError, match=r"^a worker failed: no such thing$"):
        outcome_of(task.remote(RuntimeError, "no such thing"))


def test_a_polite_kill_stays_the_callers(ray_stub, process_as_before):
    """Ray takes SIGTERM for itself when it starts, as this one does; Ctrl-C's way out is the command line's."""

    def init(**_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return object()

    ray_stub.init = init
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with connect() as found:
        assert found.is_local
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
