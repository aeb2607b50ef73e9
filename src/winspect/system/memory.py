"""Return memory to the system that is kept for safety alone."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from contextlib import suppress

from torch import Tensor

_MADV_PAGEOUT = 21  # Linux 5.4; Python's mmap module has no name for it


def page_out(tensors: Iterable[Tensor]) -> None:
    """Tell Linux that these weights will hardly be read again, so that they need not stay in physical memory.

    Nothing is lost: pages of a weights file are read again from there when they are touched after all. A compiled
    graph has its own, reordered copy of every weight, so the originals would only double the process' memory.
    Does nothing on other systems, or where the kernel refuses.
    """
    if not sys.platform.startswith("linux"):
        return
    page = mmap.PAGESIZE
    with suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        for tensor in tensors:
            storage = tensor.untyped_storage()
            start = -(-storage.data_ptr() // page) * page
            end = (storage.data_ptr() + storage.nbytes()) // page * page
            if end > start:
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_PAGEOUT)


def trim_heap() -> None:
    """Give memory that was freed back to the system at once, where the C library can (glibc).

    It keeps some for later; after a job that needed much and will not come again, that is only a larger process.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
