"""Tensors of a TorchScript archive, as OpenAI publishes its weights, without running the program in it.

The archive is a zip: ``data.pkl`` describes the modules and where each tensor lies, ``data/N`` hold the tensors'
bytes, ``code/`` the program, which is never opened. The pickle is read with a handful of names only: whatever else it
asks for is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from winspect.errors import UnsafeWeightsError

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LARGEST_DESCRIPTION = 64_000_000
_MOST_NAMES, _LONGEST_NAME = 100_000, 1000  # of modules and tensors: a pickle can hold a module in itself


def is_torchscript(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of an archive's modules by their name in a state dict; read into memory.

    Raises:
        UnsafeWeightsError: the archive describes something that is neither a module nor a plain tensor.
        Exception: of zipfile, pickle or torch, for a damaged archive.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).removesuffix(
            "constants.pkl"
        )
        description = archive.getinfo(f"{root}data.pkl")
        if description.file_size > _LARGEST_DESCRIPTION:
            raise ValueError(f"data.pkl is {description.file_size} bytes; a CLIP's is a few hundred thousand")
        with archive.open(description) as file:
            model = _Reader(file, archive, root, path).load()
    if not isinstance(model, _Module):
        raise ValueError(f"data.pkl holds a {type(model).__name__}, not a module")
    return _named(model)


class _Module:
    """A module, or another object of the program, as the attributes it was saved with."""

    attributes: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _named(model: _Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    waiting, seen = [("", model)], 0
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            seen += 1
            if seen > _MOST_NAMES or len(prefix) > _LONGEST_NAME:
                raise ValueError("its modules do not end")
            if isinstance(value, Tensor):
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
    return tensors


class _Reader(pickle.Unpickler):
    """An unpickler that can build modules' attributes and plain tensors, and calls nothing else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str, path: Path) -> None:
        super().__init__(file)
        self._archive, self._root, self._path = archive, root, path
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch.jit._pickle", "restore_type_tag"): _first,
        }
        if module == "torch.jit._pickle" and name.startswith("build_"):  # lists of numbers and tensors
            return _first
        if (module, name) not in known:
            raise UnsafeWeightsError(
                f"{self._path}: a TorchScript archive that holds {module}.{name}, neither a module nor a plain tensor. "
                "It was not run. If you trust where it comes from, keep only its tensors: load it with torch.jit.load "
                "in a place where it can do no harm and save its state_dict() with safetensors.torch.save_file"
            )
        return known[module, name]

    def persistent_load(self, place: Any) -> Tensor:
        kind, dtype, key, _, count = place
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError(f"got {kind!r} in place of a tensor's bytes")
        if (key, dtype) not in self._storages:
            self._storages[key, dtype] = self._read(f"{self._root}data/{key}", dtype, count)
        return self._storages[key, dtype]

    def _read(self, record: str, dtype: torch.dtype, count: int) -> Tensor:
        info = self._archive.getinfo(record)
        if info.file_size != info.compress_size or info.file_size != count * dtype.itemsize:
            raise ValueError(f"{record} has {info.file_size} bytes, need {count} x {dtype.itemsize}, not compressed")
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._archive.read(info)), dtype=dtype)  # reading compares the checksum


def _tensor(storage: Tensor, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    return torch.as_strided(storage, shape, stride, offset)


def _first(value: object, *_: object) -> object:
    return value
