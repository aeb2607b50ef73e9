"""Memory that is given back: nothing changes, and the process is smaller."""

from __future__ import annotations

import mmap
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from winspect.system import memory
from winspect.system.machine import current_rss_mb
from winspect.system.memory import page_out, trim_heap

MEGABYTES = 64


@pytest.fixture
def weights(tmp_path):
    """A weights file on disk, and its values."""
    values = torch.arange(MEGABYTES * 250_000, dtype=torch.float32).reshape(-1, 1000)
    save_file({"weight": values}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors", values


def test_values_do_not_change(weights):
    path, values = weights
    mapped = load_file(path)["weight"]
    own = values.clone()
    part = values.clone()[7:9, 3:5]
    page_out([mapped, own, part, torch.empty(0), torch.zeros(3)])
    assert torch.equal(mapped, values)
    assert torch.equal(own, values)
    assert torch.equal(part, values[7:9, 3:5])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone pages out on request")
def test_a_file_mapping_leaves_physical_memory(weights):
    path, values = weights
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
        mapped = torch.frombuffer(mapping, dtype=torch.uint8)
        del values
        assert mapped.sum() >= 0  # touched: it is in memory now
        before = current_rss_mb()
        page_out([mapped])
        assert before - current_rss_mb() > MEGABYTES * 0.8
        first = mapped[:8].clone()
        del mapped
    assert int.from_bytes(bytes(first.tolist()), "little") > 0  # read again: the length of the file's header


def test_the_heap_is_trimmed_without_harm():
    values = [torch.full((1000,), float(number)) for number in range(1000)]
    del values[::2]
    trim_heap()
    assert all(bool((own == 2 * number + 1).all()) for number, own in enumerate(values))


@pytest.mark.parametrize("reason", ["another system", "no C library", "no such function"])
def test_where_it_cannot_be_done_nothing_happens(monkeypatch, reason):
    def library(_):
        if reason == "another system":
            pytest.fail("called")
        if reason == "no C library":
            raise OSError
        return object()

    monkeypatch.setattr(sys, "platform", "win32" if reason == "another system" else "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    values = torch.ones(10_000)
    page_out([values])
    trim_heap()
    assert torch.equal(values, torch.ones(10_000))
