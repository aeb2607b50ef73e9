"""The machine's description: what kernels say about processors, containers and memory, and what they do not say."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch

from winspect import __version__
from winspect.system import machine
from winspect.system.machine import FLAGS, CPUFeatures, cpu_features, describe_machine

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads this machine's /proc")

# Excerpts in the kernel's own form: two cores each, as far as they tell processors apart.
HASWELL = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz
flags\t\t: fpu sse4_2 avx f16c fma bmi1 avx2 smep bmi2 erms invpcid
bugs\t\t: cpu_meltdown spectre_v1

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz
flags\t\t: fpu sse4_2 avx f16c fma bmi1 avx2 smep bmi2 erms invpcid
"""
GENOA = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9R14
flags\t\t: fpu avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16 avx512vbmi avx512_vnni avx512_bitalg
"""
SAPPHIRE_RAPIDS = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu avx2 avx512f avx_vnni avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8
"""
GRAVITON_3 = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes atomics fphp asimdhp asimddp sve svebf16 svei8mm i8mm bf16 dgh rng
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
"""
RASPBERRY_PI_4 = """\
processor\t: 0
model name\t: ARMv8 Processor rev 3 (v8l)
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08
"""
RISCV = "processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc\n"

SELDOM = {"avx512f": False, "avx512_vnni": False, "avx512_bf16": False, "amx_bf16": False, "amx_int8": False}
NO_ARM = {"arm_bf16": False, "arm_i8mm": False}
NO_X86 = {"avx2": False, **SELDOM}
AVX512 = {"avx2": True, "avx512f": True, "avx512_vnni": True, "avx512_bf16": True}

CPUS = {
    "Haswell": (HASWELL, "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz", {"avx2": True, **SELDOM, **NO_ARM}, False),
    "Genoa": (GENOA, "AMD EPYC 9R14", {**AVX512, "amx_bf16": False, "amx_int8": False, **NO_ARM}, True),
    "Sapphire Rapids": (
        SAPPHIRE_RAPIDS,
        "Intel(R) Xeon(R) Platinum 8488C",
        {**AVX512, "amx_bf16": True, "amx_int8": True, **NO_ARM},
        True,
    ),
    "Graviton 3": (
        GRAVITON_3,
        "ARM implementer 0x41, part 0xd40",
        {**NO_X86, "arm_bf16": True, "arm_i8mm": True},
        True,
    ),
    "Raspberry Pi 4": (RASPBERRY_PI_4, "ARMv8 Processor rev 3 (v8l)", {**NO_X86, **NO_ARM}, False),
    "RISC-V": (RISCV, None, dict.fromkeys((*NO_X86, *NO_ARM)), None),
    "no file": ("", None, dict.fromkeys((*NO_X86, *NO_ARM)), None),
}


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """A Linux of our own: write its kernel's files below ``proc`` and ``sys/fs/cgroup``; eight cores."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


# Processors


@pytest.mark.parametrize("name", CPUS)
def test_processors_of_linux(name, linux):
    text, cpu_name, flags, native = CPUS[name]
    linux("proc/cpuinfo", text)
    cpu = cpu_features()
    assert (cpu.name, cpu.cores) == (cpu_name, 8)
    assert cpu.flags == flags
    assert cpu.native_bf16 is native


@LINUX
def test_this_processor_is_what_pytorch_finds_in_it():
    """PyTorch asks the processor itself, not the kernel."""
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("needs a newer PyTorch")
    said = torch.cpu.get_capabilities()
    flags = cpu_features().flags
    names = {"avx2": "avx2", "avx512f": "avx512_f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16"}
    assert {name: flags[name] for name in names} == {name: said.get(other, False) for name, other in names.items()}


@pytest.mark.parametrize(
    ("has", "native"),
    [
        ({"avx512_bf16": True}, True),  # one is enough, whatever is not known
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"arm_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "arm_bf16": False}, False),
        ({"avx512_bf16": False, "amx_bf16": False}, None),
        ({"avx512_vnni": True, "arm_i8mm": True}, None),  # multiply integers
        ({}, None),
    ],
)
def test_native_bf16(has, native):
    assert CPUFeatures("", 1, {**dict.fromkeys(FLAGS), **has}).native_bf16 is native


@pytest.fixture
def windows(monkeypatch):
    """Not Linux: PyTorch is asked."""
    monkeypatch.setattr(sys, "platform", "win32")
    return monkeypatch


def test_processors_by_pytorch(windows):
    said = {**dict.fromkeys((*NO_X86, "avx512_f"), False), "avx2": True, "architecture": "x86_64", "cpu_name": "A CPU"}
    windows.setattr(torch.cpu, "get_capabilities", lambda: said, raising=False)
    cpu = cpu_features()
    assert (cpu.name, cpu.native_bf16) == ("A CPU", False)
    assert cpu.flags == {"avx2": True, **SELDOM, **NO_ARM}


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_an_arm_processor_by_pytorch(windows, system):
    windows.setattr(sys, "platform", system)
    found = {"bf16": True, "i8mm": False, "architecture": "aarch64", "cpu_name": "A CPU"}
    windows.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    cpu = cpu_features()
    assert (cpu.name, cpu.native_bf16, cpu.flags) == ("A CPU", True, {**NO_X86, "arm_bf16": True, "arm_i8mm": False})


def test_a_pytorch_that_does_not_know_the_processor(windows):
    windows.delattr(torch.cpu, "get_capabilities", raising=False)
    cpu = cpu_features()
    assert cpu == CPUFeatures(None, cpu.cores) and cpu.native_bf16 is None


def test_nobody_to_ask_about_the_processor(windows):
    windows.setitem(sys.modules, "torch", None)
    cpu = cpu_features()
    assert cpu == CPUFeatures(None, cpu.cores)


# Limits of containers


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 3),  # two and a half cores' time: three threads at most
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),  # no more than there are
        ({"box/cpu.max": "max 100000\n", "cpu.max": "300000 100000\n"}, 3),  # the limit of a group around it
        ({"box/cpu.max": "200000 100000\n", "cpu.max": "300000 100000\n"}, 2),
        ({"cpu.max": "nonsense\n"}, 8),
        ({"cpu.max": "100000 0\n"}, 8),
    ],
)
def test_quotas_of_cgroups_version_2(files, cores, linux):
    linux("proc/self/cgroup", "0::/box\n")
    for name, text in files.items():
        linux(f"sys/fs/cgroup/{name}", text)
    assert cpu_features().cores == machine.usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("150000", 2), ("100000", 1)])
def test_quotas_of_cgroups_version_1(quota, cores, linux):
    linux("proc/self/cgroup", "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n")
    # The container does not see the group by the name it has outside; its own limit stands at the top.
    linux("sys/fs/cgroup/cpu/cpu.cfs_quota_us", f"{quota}\n")
    linux("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    linux("sys/fs/cgroup/memory/cpu.max", "100 100\n")  # another controller's folder says nothing about time
    assert machine.usable_cores() == cores


def test_cores_without_affinity(linux, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert machine.usable_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


# Memory


@LINUX
def test_memory_is_the_kernels():
    kib = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1])
    assert 0 < machine.memory_mb() <= kib * 1024 // 1_000_000


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/box\n", {}, 4096),
        ("0::/box\n", {"box/memory.max": "max\n"}, 4096),
        ("0::/box\n", {"box/memory.max": "1500000000\n"}, 1500),
        ("0::/box\n", {"box/memory.max": "1500000000\n", "memory.max": "1000000000\n"}, 1000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4096),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "2000000000\n"}, 2000),
    ],
)
def test_memory_within_a_container(cgroup, files, expected, linux, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1_000_000, "SC_PAGE_SIZE": 4096}.__getitem__)
    linux("proc/self/cgroup", cgroup)
    for name, text in files.items():
        linux(f"sys/fs/cgroup/{name}", text)
    assert machine.memory_mb() == expected


def test_memory_that_is_not_to_be_had(linux, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert machine.memory_mb() is None
    assert machine.current_rss_mb() is None


def in_a_process(code: str, before: str = "") -> list[float]:
    """What ``code`` prints in a process of its own; ``before`` runs in the process that starts it."""
    start = f"import subprocess, sys\n{before}\nsys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", start], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@LINUX
def test_the_peak_remembers_what_was_given_back():
    code = "from winspect.system.machine import *; import json; a = b'x' * 100_000_000; del a; "
    peak, now = in_a_process(f"{code}print(json.dumps([peak_rss_mb(), current_rss_mb()]))")
    assert 0 < now < 60
    assert now + 90 < peak < now + 110


@LINUX
def test_the_peak_is_not_that_of_the_process_before():
    code = "from winspect.system.machine import *; import json; print(json.dumps([peak_rss_mb(), current_rss_mb()]))"
    peak, now = in_a_process(code, before="a = b'x' * 100_000_000")
    assert 0 < now < 60
    assert 0 < peak < 60


@LINUX
def test_current_memory_is_the_kernels():
    kib = int(re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    assert machine.current_rss_mb() == pytest.approx(kib * 1.024e-3, rel=0.02)


@pytest.mark.parametrize(("system", "expected"), [("linux", 2.048), ("darwin", 0.002)])
def test_the_peak_without_proc(system, expected, linux, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2000))
    assert machine.peak_rss_mb() == pytest.approx(expected)


def test_the_peak_where_nothing_tells(linux, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert machine.peak_rss_mb() is None


# Releases and the whole


def test_versions():
    found = machine.versions()
    names = "winspect python torch torchvision open_clip openvino onnxruntime nncf torch_npu numpy pillow"
    assert list(found) == names.split()
    assert found["winspect"] == __version__
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"])
    assert found["pillow"] == PIL.__version__


def test_what_is_not_installed_has_no_version():
    assert machine.release_of("no-such-1", "no-such-2") is None
    assert machine.release_of("no-such-1", "numpy") == np.__version__


def test_asking_imports_nothing():
    code = "import json, sys; from winspect.system.machine import *\n"
    code += "cpu_features(); versions(); memory_mb(); peak_rss_mb(); "
    heavy = "('torch', 'numpy', 'open_clip', 'openvino', 'PIL')"
    assert in_a_process(f"{code}print(json.dumps([name for name in {heavy} if name in sys.modules]))") == []


def test_the_description_holds_what_readers_look_for():
    found = describe_machine("cpu")
    older = {"system", "processor", "cores", "accelerator", "python", "torch", "open_clip", "numpy"}
    newer = {"cpu", "cpu_features", "memory_mb", "openvino", "onnxruntime", "nncf", "torch_npu"}
    assert set(found) == older | newer
    assert found["accelerator"] is None
    assert found["torch"] == str(torch.__version__)
    assert found["cores"] == machine.usable_cores()
    assert json.loads(json.dumps(found)) == found


def test_the_description_names_what_the_processor_has(linux):
    linux("proc/cpuinfo", GENOA)
    found = describe_machine("cpu")
    assert found["cpu"] == "AMD EPYC 9R14"
    assert found["cpu_features"] == "avx2 avx512f avx512_vnni avx512_bf16"


@pytest.mark.parametrize(
    ("device", "name"), [("cuda", "cuda 0"), ("cuda:1", "cuda 1"), ("npu:0", "npu 0"), ("cpu", None)]
)
def test_the_description_names_the_accelerator(device, name, monkeypatch):
    for kind in ("cuda", "npu"):
        stand_in = SimpleNamespace(get_device_name=lambda number, kind=kind: f"{kind} {number}")
        monkeypatch.setattr(torch, kind, stand_in, raising=False)
    assert describe_machine(device)["accelerator"] == name
