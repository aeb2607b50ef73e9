"""How a cluster is shared out among workers."""

from __future__ import annotations

import re

import pytest

from winspect.cluster.cluster import Cluster, Node
from winspect.cluster.workers import Workers, plan_workers
from winspect.errors import DeviceError, SettingsError


def cluster(*nodes, is_local=False):
    """Machines of (cores, GPUs, NPUs)."""
    made = (Node(str(at), f"host{at}", *map(float, (*node, 0, 0)[:3])) for at, node in enumerate(nodes))
    return Cluster(is_local, None, tuple(made))


@pytest.fixture(autouse=True)
def no_threads_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


GPUS = cluster(*[(64, 8)] * 4)
NPUS = cluster((192, 0, 8), (192, 0, 8))


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_one_machine_computes_on_all_cores(cores):
    expected = Workers("cpu", 1, 1, cpus=cores, threads=cores, decode_threads=min(cores, 8))
    assert plan_workers(cluster((cores,))) == expected


def test_several_workers_share_a_machine():
    # by hand: half of 8 cores, threads and decoding threads for each
    assert plan_workers(cluster((8,)), number="2") == Workers("cpu", 2, 2, cpus=4, threads=4, decode_threads=4)


def test_workers_that_do_not_divide_evenly():
    # 3 workers on 2 machines: one machine has two, so each may take half of one
    expected = Workers("cpu", 3, 3, cpus=4.5, threads=4, decode_threads=4)
    assert plan_workers(cluster((9,), (9,)), number="3") == expected


def test_a_head_without_cores_has_no_worker_and_the_smallest_machine_decides():
    expected = Workers("cpu", 1, 2, cpus=4, threads=4, decode_threads=4)
    assert plan_workers(cluster((0,), (16,), (4,))) == expected


def test_every_gpu_has_a_worker_with_its_share_of_the_cores():
    planned = plan_workers(GPUS)
    assert planned == Workers("cuda", 1, 32, cpus=8, gpus=1, decode_threads=8)
    assert planned.options() == {"num_cpus": 8, "num_gpus": 1}


def test_every_npu_has_a_worker():
    planned = plan_workers(NPUS)
    assert planned == Workers("npu:0", 1, 16, cpus=24, npus=1, decode_threads=8)
    assert planned.options() == {"num_cpus": 24, "resources": {"NPU": 1}}


def test_machines_with_few_cores_have_workers_too():
    # by hand: half a core for each of 8 GPUs
    assert plan_workers(cluster((4, 8), (64, 8))) == Workers("cuda", 1, 16, cpus=0.5, gpus=1, decode_threads=1)


@pytest.mark.parametrize("there", [GPUS, cluster((4,))])
def test_the_number_of_decoding_threads_is_the_callers_to_say(there):
    assert plan_workers(there, decode_threads=12).decode_threads == 12
    with pytest.raises(SettingsError, match=r"^decode threads: got 0, need 1 or more$"):
        plan_workers(there, decode_threads=0)


def test_cpu_is_taken_where_it_is_asked_for_though_there_are_gpus():
    planned = plan_workers(GPUS, "cpu")
    assert planned == Workers("cpu", 1, 4, cpus=64, threads=64, decode_threads=8)
    assert planned.options() == {"num_cpus": 64}


@pytest.mark.parametrize(
    ("device", "there", "chosen"),
    [
        ("auto", GPUS, "cuda"),
        ("auto", NPUS, "npu:0"),
        ("auto", cluster((4,)), "cpu"),
        ("cuda", GPUS, "cuda"),
        ("npu", NPUS, "npu:0"),
        ("npu:0", NPUS, "npu:0"),
        ("cpu", NPUS, "cpu"),
    ],
)
def test_the_device_that_a_worker_sees(device, there, chosen):
    assert plan_workers(there, device).device == chosen


@pytest.mark.parametrize(
    ("device", "there", "words"),
    [
        ("cuda", NPUS, "got the device 'cuda', but no machine of the cluster offers Ray a GPU; use --device cpu"),
        ("npu:0", GPUS, "got the device 'npu:0', but no machine of the cluster offers Ray a NPU; use --device cpu"),
        ("cuda:1", GPUS, "got the device 'cuda:1', need auto, cpu, cuda or npu: Ray gives each worker one of its own"),
        ("npu:1", NPUS, "got the device 'npu:1', need auto, cpu, cuda or npu"),
        ("tpu", GPUS, "got the device 'tpu', need auto, cpu, cuda or npu"),
    ],
)
def test_a_device_that_cannot_be_had(device, there, words):
    with pytest.raises(DeviceError, match=f"^{re.escape(words)}"):
        plan_workers(there, device)


@pytest.mark.parametrize(
    ("wanted", "fewest", "most"), [(None, 1, 32), ("1", 1, 1), ("8", 8, 8), ("2-8", 2, 8), (" 4-4 ", 4, 4)]
)
def test_the_size_of_the_pool(wanted, fewest, most):
    planned = plan_workers(GPUS, number=wanted)
    assert (planned.fewest, planned.most) == (fewest, most)


@pytest.mark.parametrize("wanted", ["0", "-1", "1.5", "two", "", "8-2", "0-4", "2-", "-3", "1-2-3", "2:4"])
@pytest.mark.parametrize("there", [GPUS, cluster((2,))])
def test_a_pool_that_is_none(wanted, there):
    words = f"got {wanted!r} workers: need a number from 1, or two, as in 2-8"
    with pytest.raises(SettingsError, match=f"^{re.escape(words)}$"):
        plan_workers(there, number=wanted)


@pytest.mark.parametrize("wanted", [None, "1", "2", "3", "7", "1-5"])
@pytest.mark.parametrize("nodes", [[(1,)], [(2,)], [(3,)], [(64,)], [(0,), (2,), (96,)], [(5,), (5,), (5,)]])
def test_a_worker_fits_into_every_machine(nodes, wanted):
    planned = plan_workers(cluster(*nodes), number=wanted)
    smallest = min(cores for (cores,) in nodes if cores)
    assert 0 < planned.cpus <= smallest and planned.threads >= 1 and planned.decode_threads >= 1
    # and the whole pool at once, though every machine were as small
    machines = sum(cores > 0 for (cores,) in nodes)
    room = machines * int(smallest / planned.cpus + 1e-9)
    assert room >= planned.most


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_no_machine_has_the_worker_of_another(cores):
    """Two workers that fit on one would leave the other without."""
    planned = plan_workers(cluster((cores,), (cores,)))
    assert planned.most == 2 and 2 * planned.cpus > cores


@pytest.mark.parametrize(
    ("value", "is_local", "threads"), [("3", True, 3), ("3", False, 8), ("0", True, 8), ("x", True, 8)]
)
def test_threads_set_for_this_machine_hold_on_a_cluster_of_our_own(monkeypatch, value, is_local, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert plan_workers(cluster((8,), is_local=is_local)).threads == threads


def test_an_openvino_device_is_each_machines_own():
    """It is not a CPU: a worker that judged there after all would say nothing."""
    assert plan_workers(cluster((4,), (4,)), "openvino:GPU") == Workers(
        "openvino:GPU", 1, 2, cpus=4, threads=4, decode_threads=4
    )
