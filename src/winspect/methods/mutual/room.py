"""Arrays that may be larger than memory."""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any

import numpy as np

from winspect.errors import OutputError


def room(shape: tuple[int, ...], dtype: Any, *, limit_bytes: float) -> np.ndarray:
    """An uninitialised array: in memory, or beyond the limit in a temporary file that goes with it.

    Raises:
        OutputError: the folder for temporary files has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= limit_bytes:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="winspect-") as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # else a full disk would end the process at a later write
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: no room for {size} bytes of features ({error}); set TMPDIR to a larger disk, "
            "raise limit_gb, or score in more groups"
        ) from error
