"""What weights there are, and fetching them ahead of use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from winspect.errors import WeightsCorruptError
from winspect.weights.architectures import architecture, list_architectures
from winspect.weights.names import DEFAULT_MODEL, TINY, brings_config
from winspect.weights.sources import Source, find, resolve
from winspect.weights.tags import tag_names


@dataclass(frozen=True)
class Entry:
    """One line of the list of weights.

    Attributes:
        model: architecture, or ``winspect-tiny``.
        tag: pretrained tag, or "bundled".
        path: where the file is, or would be.
        size_bytes: size of the file; None where it is not on this machine.
        address: where it is fetched from; None for the bundled model.
        sha256_prefix: first digits of its SHA-256, where known before the download.
    """

    model: str
    tag: str
    path: Path
    size_bytes: int | None
    address: str | None
    sha256_prefix: str | None


def list_weights(
    models: Iterable[str] | None = None, *, cache_dir: str | os.PathLike[str] | None = None
) -> list[Entry]:
    """The weights known for some models; without ``models``, those of the default and the bundled model, and all that
    are in the cache.

    Raises:
        ArchitectureError: a model is unknown, or of a kind WinCLIP cannot use.
    """
    if models is not None:
        return [entry for model in models for entry in _entries(model, cache_dir)]
    shown = [*_entries(TINY, cache_dir), *_entries(DEFAULT_MODEL, cache_dir)]
    others = [model for model in list_architectures() if model != DEFAULT_MODEL]
    cached = (entry for model in others for entry in _entries(model, cache_dir) if entry.size_bytes is not None)
    return [*shown, *cached]


def pull(
    model: str,
    weights: str | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Source:
    """Fetch and verify the weights of a model; a damaged copy in the cache is replaced.

    Args:
        model, weights, cache_dir, progress: see :func:`winspect.weights.resolve`.

    Raises:
        See :func:`winspect.weights.resolve`.
    """
    try:
        return resolve(model, weights, cache_dir=cache_dir, progress=progress)
    except WeightsCorruptError:
        source = find(model, weights, cache_dir=cache_dir)
        if source.kind != "tag" or not source.present:
            raise
        source.path.unlink()
        return resolve(model, weights, cache_dir=cache_dir, progress=progress)


def _entries(model: str, cache_dir: str | os.PathLike[str] | None) -> list[Entry]:
    if model == TINY or brings_config(model):
        return [_entry(find(model, cache_dir=cache_dir))]
    architecture(model)  # an unknown one is an error, not an empty list
    return [_entry(find(model, tag, cache_dir=cache_dir)) for tag in tag_names(model.replace("/", "-"))]


def _entry(source: Source) -> Entry:
    size = source.path.stat().st_size if source.present else None
    return Entry(source.model, source.tag, source.path, size, source.address, source.sha256_prefix)
