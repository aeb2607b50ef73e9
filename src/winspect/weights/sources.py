"""Finding the weights of a model, and fetching them: a pretrained tag, the user's file, or the bundled model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from winspect.errors import SettingsError, WeightsCorruptError, WeightsMissingError
from winspect.pictures.tiles import Preprocess
from winspect.system.files import expanded
from winspect.system.opening import check_file
from winspect.weights import DEFAULT_MODEL, HUB, LOCAL, TIMM, TINY
from winspect.weights.architectures import architecture, image_size, list_architectures
from winspect.weights.cache import cache_folder, remembered_sha256, sha256_of
from winspect.weights.checkpoint import check_openable, check_zip, has_weights_suffix
from winspect.weights.configs import (
    CONFIG_FILE,
    bundled_source,
    config_in_repository,
    source_in_folder,
    source_in_repository,
    source_of_file,
    with_config,
)
from winspect.weights.fetching import FetchError
from winspect.weights.recommended import RECOMMENDED
from winspect.weights.tags import Source, default_tag, describe_tags, find_tag, tag_names, tag_of_file
from winspect.weights.timm_names import check_timm, is_timm, timm_source, timm_tags

_OFFLINE_VARIABLES = ("WINSPECT_OFFLINE", "HF_HUB_OFFLINE")

_Folder = str | os.PathLike[str] | None


def find(model: str, weights: str | os.PathLike[str] | None = None, *, cache_dir: _Folder = None) -> Source:
    """Where the weights are or will be, without fetching or reading them.

    Args:
        model: an open_clip architecture, ``timm/NAME``, ``winspect-tiny``, ``local-dir:FOLDER`` or
            ``hf-hub:OWNER/NAME``.
        weights: a pretrained tag of the architecture, or a file; None for the default. A name that is both is the
            tag; a :class:`~pathlib.Path` is always a file. Models that bring their own take none.
        cache_dir: where downloaded weights are kept; None for the user's cache folder.

    Raises:
        ArchitectureError: the model is unknown, or of a kind WinCLIP cannot use.
        WeightsMissingError: no such tag or file, or there is no default.
    """
    folder = cache_folder(cache_dir) / "weights"
    if is_timm(model):
        return timm_source(model, weights, folder)
    if _brings_weights(model):
        if weights is not None:
            kind = "carries" if model == TINY else "brings"
            raise SettingsError(f"{model} {kind} its own weights, got {os.fspath(weights)!r}; leave the weights out")
        if model == TINY:
            return bundled_source()
        return source_in_folder(model) if model.startswith(LOCAL) else source_in_repository(model, folder)
    size = image_size(architecture(model))
    model = model.replace("/", "-")
    if weights is None:
        weights = default_tag(model)
    source = find_tag(model, weights, folder) if isinstance(weights, str) else None
    if source is not None:
        return source
    path = expanded(weights)
    if not os.path.isfile(path):  # false, not an error, also for a name too long or a folder we may not enter
        raise WeightsMissingError(_no_such_file(model, weights, path))
    return _from_file(model, path.absolute(), size)


def resolve(
    model: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    cache_dir: _Folder = None,
    offline: bool = False,
) -> Source:
    """Find the weights, fetching them if need be; the file's hash is checked where it is known.

    Args:
        model, weights, cache_dir: see :func:`find`.
        offline: never use the network (also where ``WINSPECT_OFFLINE`` or ``HF_HUB_OFFLINE`` is 1).

    Raises:
        See :func:`winspect.backbones.open_clip_models.load`.
    """
    offline = offline or any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _OFFLINE_VARIABLES
    )
    folder = cache_folder(cache_dir) / "weights"
    if model.startswith(HUB) and not offline:
        _fetch_config(model, folder)
    source = find(model, weights, cache_dir=cache_dir)
    if not source.present:
        source = _fetch(source, folder, offline=offline)
    if source.kind != "bundled":
        _verify(source, cache_dir)
    return source


def pull(model: str, weights: str | None = None) -> Source:
    """:func:`resolve` weights ahead of use; a damaged copy in the cache is replaced."""
    try:
        return resolve(model, weights)
    except WeightsCorruptError:
        source = find(model, weights)
        if source.kind != "tag" or not source.present:
            raise
        source.path.unlink()
        return resolve(model, weights)


def list_weights(models: Iterable[str] | None = None) -> list[Source]:
    """The weights known for some models; without ``models``, those of the default and the bundled model, those of timm
    that are recommended, and all of open_clip that are in the cache.

    Raises:
        ArchitectureError: a model is unknown, or of a kind WinCLIP cannot use.
    """
    if models is not None:
        return [source for model in models for source in _list(model)]
    others = (model for model in list_architectures() if model != DEFAULT_MODEL)
    cached = (source for model in others for source in _list(model) if source.present)
    return [*_list(TINY), *_list(DEFAULT_MODEL), *map(find, RECOMMENDED), *cached]


def _list(model: str) -> list[Source]:
    if _brings_weights(model) or (is_timm(model) and "." in model):
        return [find(model)]
    if is_timm(model):
        check_timm(model.removeprefix(TIMM))
        return [find(model, tag) for tag in timm_tags(model.removeprefix(TIMM))]
    architecture(model)  # an unknown one is an error, not an empty list
    return [find(model, tag) for tag in tag_names(model.replace("/", "-"))]


def _brings_weights(model: str) -> bool:
    """Whether a model's name is a place with weights, not an architecture."""
    return model == TINY or model.startswith((LOCAL, HUB))


def _from_file(model: str, path: Path, size: int) -> Source:
    """A local file: the settings of the tag it belongs to by its name, of ``open_clip_config.json`` beside it as the
    hub's repositories have it, or the architecture's."""
    tag = tag_of_file(model, path)
    if tag is not None:
        return replace(tag, kind="file", tag=path.name, path=path, origin=None)
    source, beside = source_of_file(model, path, Preprocess(size)), path.with_name(CONFIG_FILE)
    return with_config(source, beside, whole=False) if beside.is_file() else source


def _fetch_config(model: str, folder: Path) -> None:
    origin = config_in_repository(model)
    path = origin.find(folder)
    if path.is_file():
        return
    try:
        origin.fetch(folder)
    except FetchError as error:
        raise WeightsMissingError(
            f"{model}: its {CONFIG_FILE} is not on this machine and could not be fetched ({error}). Fetch "
            f"{origin.address(path)} and the weights where there is a network, put both into one folder, and "
            f"name that: --model {LOCAL}FOLDER"
        ) from error


def _fetch(source: Source, folder: Path, *, offline: bool) -> Source:
    """The source with its file in place."""
    if source.origin is None:
        raise WeightsMissingError(f"{source.path}: not found; the package is not complete, install it again")
    try:
        if offline:
            raise FetchError("offline, as asked")
        return replace(source, path=source.origin.fetch(folder))
    except FetchError as error:
        raise WeightsMissingError(
            f"the weights {source.tag} of {source.model} are not on this machine and could not be fetched ({error}). "
            f"Fetch {source.address} where there is a network and put it at {source.path}, or name your copy with "
            f"--weights FILE. Without any download, --model {TINY} works now"
        ) from error


def _verify(source: Source, cache_dir: _Folder) -> None:
    """Compare the file with the hash in its name; without one, at least with the checksums inside it.

    Done once per file: the hash is remembered.
    """
    check_openable(source.path)
    if remembered_sha256(source.path, cache_dir) is None and not source.sha256_prefix:
        check_zip(source.path)
    sha256 = sha256_of(source.path, cache_dir)
    if source.sha256_prefix and not sha256.startswith(source.sha256_prefix):
        fix = "delete it and run again" if source.kind == "tag" else "fetch or copy it again, or rename it"
        raise WeightsCorruptError(
            f"{source.path}: has the wrong SHA-256: expected {source.sha256_prefix}..., got {sha256}; {fix}"
        )


def _no_such_file(model: str, weights: str | os.PathLike[str], path: Path) -> str:
    typed = os.fspath(weights)
    try:
        if typed and os.path.isdir(path):
            inside = sorted(p.name for p in path.iterdir() if has_weights_suffix(p))
            return f"{path}: is a folder; name the weights file in it ({', '.join(inside) or 'there is none'})"
        if typed and os.path.exists(path):
            check_file(path)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    if has_weights_suffix(path) or len(path.parts) > 1:
        return f"{path}: no such weights file"
    return f"{typed!r} is neither a pretrained tag of {model} nor a file here; {describe_tags(model, typed)}"
