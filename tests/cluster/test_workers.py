"""How a cluster is shared out among judging and decoding processes."""

from __future__ import annotations

import re

import pytest

from winspect.cluster.cluster import Cluster, Node
from winspect.cluster.workers import Workers, plan_workers
from winspect.errors import DeviceError, SettingsError


def cluster(*nodes, is_own=False):
    """Machines of (cores, GPUs, NPUs)."""
    made = (Node(str(at), f"host{at}", *map(float, (*node, 0, 0)[:3])) for at, node in enumerate(nodes))
    return Cluster(is_own, False, None, tuple(made))


@pytest.fixture(autouse=True)
def no_threads_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


GPUS = cluster(*[(64, 8)] * 4)
NPUS = cluster((192, 0, 8), (192, 0, 8))


@pytest.mark.parametrize(
    ("cores", "cpus", "decoder", "threads"), [(1, 0.6, 0.4, 1), (2, 1.2, 0.8, 2), (64, 63.0, 1.0, 64)]
)
def test_one_machine_computes_on_all_cores_and_keeps_one_to_decode(cores, cpus, decoder, threads):
    expected = Workers("cpu", 1, 1, cpus=cpus, decoder_cpus=decoder, threads=threads)
    assert plan_workers(cluster((cores,))) == expected


def test_several_workers_share_a_machine():
    # by hand: 7 of 8 cores for 2 workers, and half of the machine's threads for each
    assert plan_workers(cluster((8,)), wanted="2") == Workers("cpu", 2, 2, cpus=3.5, threads=4)


def test_workers_that_do_not_divide_evenly():
    # 3 workers on 2 machines: one machine has two, so each may take half of one
    assert plan_workers(cluster((9,), (9,)), wanted="3") == Workers("cpu", 3, 3, cpus=4.0, threads=4)


def test_a_head_without_cores_has_no_worker_and_the_smallest_machine_decides():
    assert plan_workers(cluster((0,), (16,), (4,))) == Workers("cpu", 1, 2, cpus=3.0, threads=4)


def test_every_gpu_has_a_worker_and_a_core_beside_it():
    planned = plan_workers(GPUS)
    assert planned == Workers("cuda", 1, 32, cpus=1, gpus=1)
    assert planned.options() == planned.options_beside() == {"num_cpus": 1, "num_gpus": 1}
    assert planned.on_accelerator


def test_every_npu_has_a_worker():
    planned = plan_workers(NPUS)
    assert planned == Workers("npu:0", 1, 16, cpus=1, npus=1)
    assert planned.options() == {"num_cpus": 1, "resources": {"NPU": 1}}


def test_cpu_is_taken_where_it_is_asked_for_though_there_are_gpus():
    planned = plan_workers(GPUS, "cpu")
    assert planned == Workers("cpu", 1, 4, cpus=63.0, threads=64)
    assert planned.options() == {"num_cpus": 63.0} and planned.options_beside() == {"num_cpus": 0}
    assert not planned.on_accelerator


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
    planned = plan_workers(GPUS, wanted=wanted)
    assert (planned.fewest, planned.most) == (fewest, most)


@pytest.mark.parametrize("wanted", ["0", "-1", "1.5", "two", "", "8-2", "0-4", "2-", "-3", "1-2-3", "2:4"])
@pytest.mark.parametrize("there", [GPUS, cluster((2,))])
def test_a_pool_that_is_none(wanted, there):
    words = f"got {wanted!r} workers: need a number from 1, or two, as in 2-8"
    with pytest.raises(SettingsError, match=f"^{re.escape(words)}$"):
        plan_workers(there, wanted=wanted)


@pytest.mark.parametrize("wanted", [None, "1", "2", "3", "7", "1-5"])
@pytest.mark.parametrize("nodes", [[(1,)], [(2,)], [(3,)], [(64,)], [(0,), (2,), (96,)], [(5,), (5,), (5,)]])
def test_a_worker_and_a_decoder_fit_into_every_machine(nodes, wanted):
    planned = plan_workers(cluster(*nodes), wanted=wanted)
    smallest = min(cores for (cores,) in nodes if cores)
    assert planned.cpus > 0 and planned.decoder_cpus > 0 and planned.threads >= 1
    assert planned.cpus + planned.decoder_cpus <= smallest
    # and the whole pool at once, though every machine were as small
    machines = sum(cores > 0 for (cores,) in nodes)
    room = machines * int((smallest - planned.decoder_cpus) / planned.cpus + 1e-9)
    assert room >= planned.most


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_no_machine_has_the_worker_of_another(cores):
    """Two workers that fit on one would leave the other without."""
    planned = plan_workers(cluster((cores,), (cores,)))
    assert planned.most == 2 and 2 * planned.cpus > cores


@pytest.mark.parametrize(
    ("value", "is_own", "threads"), [("3", True, 3), ("3", False, 8), ("0", True, 8), ("x", True, 8)]
)
def test_threads_set_for_this_machine_hold_on_a_cluster_of_our_own(monkeypatch, value, is_own, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert plan_workers(cluster((8,), is_own=is_own)).threads == threads


def test_an_openvino_device_is_each_machines_own():
    """It is not a CPU: a worker that judged there after all would say nothing."""
    assert plan_workers(cluster((4,), (4,)), "openvino:GPU") == Workers("openvino:GPU", 1, 2, cpus=3.0, threads=4)
