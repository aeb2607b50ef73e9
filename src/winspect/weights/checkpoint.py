"""Reading a checkpoint file without running anything in it, and fitting it strictly to an architecture."""

from __future__ import annotations

import errno
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from winspect.errors import (
    UnsafeWeightsError,
    WeightsCorruptError,
    WeightsError,
    WeightsMismatchError,
    WeightsMissingError,
)
from winspect.system.opening import open_file
from winspect.weights import SUFFIXES
from winspect.weights.architectures import architectures_like
from winspect.weights.torchscript import is_torchscript, read_torchscript

_WRAPPER_KEYS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile
# Not weights: masks and indices of old versions, and the three numbers in OpenAI's files. ``logit_bias`` is added to
# both of WinCLIP's logits and cancels in their softmax.
_HARMLESS = re.compile(r"(^|\.)(attn_mask|position_ids)$|^(input_resolution|context_length|vocab_size|logit_bias)$")
_PART_OF_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\.\w+|torch\._utils\.\w+|torch\.storage\.\w+|torch\.nn\.parameter\.Parameter"
)
_PICKLES_IN_OLD_FILES = 4  # magic number, version, machine, content
_NAMES_SHOWN = 8
# Numbers in OpenAI's archives, and in state dicts taken from them; no other program's files have all three.
_OPENAI = {"input_resolution", "context_length", "vocab_size"}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, mapped into memory: nothing is read from disk until it is used.

    The mapping is private: writing to a tensor never reaches the file. A file in PyTorch's format from before 1.6, or
    in TorchScript's, cannot be mapped and is read whole.

    Args:
        path: ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` as ``torch.save`` writes them, or a
            TorchScript archive as OpenAI publishes them; endings in any case.

    Raises:
        WeightsMissingError: the file cannot be opened.
        WeightsCorruptError: the file is empty, truncated or damaged.
        UnsafeWeightsError: the file holds pickled code.
        WeightsMismatchError: the file holds no named tensors.
    """
    check_openable(path)
    content = _read_safetensors(path) if _is_safetensors(path) else _read_pickled(path)
    tensors = _unwrap(content, path)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return tensors


def is_openai(names: Iterable[str]) -> bool:
    """Whether tensors of these names are of OpenAI's format: trained with QuickGELU, whatever the architecture says."""
    return set(names) >= _OPENAI


def has_weights_suffix(path: Path) -> bool:
    """Whether a file's name ends as weights do, in upper or lower case."""
    return path.suffix.lower() in SUFFIXES


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def check_openable(path: Path) -> None:
    if not has_weights_suffix(path):
        raise WeightsError(f"{path}: got a file ending in {path.suffix!r}, need one of {', '.join(SUFFIXES)}")
    try:
        with open_file(path) as file:
            start = file.read(64)
    except OSError as error:
        fix = "give yourself the right to read it" if error.errno == errno.EACCES else "check the path"
        raise WeightsMissingError(f"{path}: cannot be read ({error.strerror}); {fix}") from error
    if not start:
        raise WeightsCorruptError(f"{path}: the file is empty (0 bytes); fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsCorruptError(f"{path}: got a Git LFS pointer, not the weights; fetch the file with `git lfs pull`")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with _refusing_damage(path), safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def _read_pickled(path: Path) -> object:
    """``torch.load`` restricted to tensors and plain containers; it refuses to call anything else."""
    with _refusing_damage(path):
        zipped = zipfile.is_zipfile(path)
        if zipped and is_torchscript(path):
            return read_torchscript(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:
            if culprit := _first_call(path, zipped):
                raise UnsafeWeightsError(
                    f"{path}: holds more than tensors: loading it would call {culprit}. It was not run. If you trust "
                    "where it comes from, keep only its tensors: load it with torch.load(..., weights_only=False) in a "
                    "place where it can do no harm and save them with safetensors.torch.save_file"
                ) from error
            raise


def _first_call(path: Path, zipped: bool) -> str | None:
    """The first thing a pickle would import that a file of tensors has no need of; None where there is none.

    The pickle's instructions are listed, not followed.
    """
    strings = ["", ""]
    with suppress(Exception), _open_pickle(path, zipped) as file:
        for _ in range(_PICKLES_IN_OLD_FILES):
            for instruction, argument, _ in pickletools.genops(file):
                if instruction.name in ("GLOBAL", "STACK_GLOBAL"):
                    name = str(argument).replace(" ", ".") if argument else ".".join(strings[-2:])
                    if not _PART_OF_TENSORS.fullmatch(name):
                        return name
                elif isinstance(argument, str):
                    strings.append(argument)
    return None


@contextmanager
def _open_pickle(path: Path, zipped: bool) -> Iterator[IO[bytes]]:
    if not zipped:
        with open_file(path) as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(name) as file:
            yield file


def check_zip(path: Path) -> None:
    """Compare the checksums inside a ``torch.save`` file with its content (PyTorch itself does not).

    Files of other formats carry no checksums and pass.

    Raises:
        WeightsCorruptError: bytes were changed or lost.
    """
    with _refusing_damage(path):
        if _is_safetensors(path) or not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    if bad is not None:
        raise WeightsCorruptError(f"{path}: is damaged (the checksum of {bad!r} is wrong); fetch or copy it again")


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Whatever torch, pickle, zipfile and safetensors raise on a damaged file, which has no common base."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise WeightsCorruptError(
            f"{path}: is damaged or truncated, or no weights file ({reason}); fetch it again"
        ) from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict in what a training script saved."""
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPER_KEYS if isinstance(content.get(key), Mapping)), content)
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise WeightsMismatchError(
        f"{path}: holds a {type(content).__name__} without named tensors; need a model's state_dict, or a "
        f"checkpoint that has it under {' or '.join(map(repr, _WRAPPER_KEYS))}"
    )


def fit(model: nn.Module, tensors: Mapping[str, Tensor], *, path: Path, name: str, dtype: torch.dtype) -> None:
    """Put the tensors in the place of the model's parameters, after checking every name and shape.

    Tensors that have ``dtype`` already are used as they are (memory-mapped); the others are converted one at a time,
    so the peak is the weights plus one tensor. Positional embeddings of another size are an error, not interpolated.

    Args:
        model: on the ``meta`` device.
        tensors: from :func:`read_tensors`.
        path: the file, for the messages.
        name: the architecture, for the messages.
        dtype: floating dtype of all parameters afterwards.

    Raises:
        WeightsMismatchError: names are missing or unexpected, or shapes differ; lists them.
    """
    expected = model.state_dict()
    given = {key: value for key, value in tensors.items() if key in expected or not _HARMLESS.search(key)}
    if "logit_scale" in given and given["logit_scale"].numel() == 1:  # a scalar in some versions, one element in others
        given["logit_scale"] = given["logit_scale"].reshape(expected["logit_scale"].shape)
    if "logit_bias" in expected:
        given.setdefault("logit_bias", torch.zeros(()))
        given["logit_bias"] = given["logit_bias"].reshape(expected["logit_bias"].shape)
    problems = _differences(expected, given)
    if problems:
        raise WeightsMismatchError(f"{path}: these are not weights of {name}: {'; '.join(problems)}. {_advice(given)}")
    for key in expected:
        given[key] = given[key].to(dtype).contiguous()
    model.load_state_dict(given, strict=True, assign=True)


def _differences(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    both = [key for key in expected if key in given]
    shapes = [
        f"{key} (file {tuple(given[key].shape)}, model {tuple(expected[key].shape)})"
        for key in both
        if given[key].shape != expected[key].shape
    ]
    dtypes = [f"{key} ({given[key].dtype})" for key in both if not given[key].dtype.is_floating_point]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "not floating-point": dtypes}
    return [f"{len(items)} {kind}: {_first(items)}" for kind, items in kinds.items() if items]


def _first(items: list[str]) -> str:
    more = len(items) - _NAMES_SHOWN
    return ", ".join(items[:_NAMES_SHOWN]) + (f", and {more} more" if more > 0 else "")


def _advice(given: Mapping[str, Tensor]) -> str:
    fitting = architectures_like({key: tuple(value.shape) for key, value in given.items()})
    if fitting:
        return f"Their sizes are those of {' or '.join(fitting)}: choose that model"
    if any(key.startswith(("vision_model.", "text_model.")) for key in given):
        return "They are in the format of the transformers library; winspect reads open_clip's"
    return "Choose the model they were trained for, or another file"
