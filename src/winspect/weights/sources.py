"""Where a model's weights are: a pretrained tag in the cache, a file the user names, or the bundled model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from winspect.errors import SettingsError, WeightsCorruptError, WeightsMissingError
from winspect.pictures.tiles import Preprocess
from winspect.system.home import expanded
from winspect.system.opening import check_file
from winspect.weights import described, hub
from winspect.weights.architectures import architecture, image_size
from winspect.weights.bundled import BUNDLED_FOLDER, WEIGHTS_FILE, read_config
from winspect.weights.bundled import CONFIG_FILE as BUNDLED_CONFIG_FILE
from winspect.weights.cache import cache_folder, remember_sha256, remembered_sha256, sha256_of
from winspect.weights.checkpoint import check_openable, check_zip, has_weights_suffix
from winspect.weights.download import DownloadError, fetch_url
from winspect.weights.names import CONFIG_FILE, HUB, LOCAL, TINY, brings_config
from winspect.weights.tags import Tag, default_tag, describe_tags, find_tag, hash_in_name, tag_of_file

_OFFLINE_VARIABLES = ("WINSPECT_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Source:
    """Where weights are, and what goes with them.

    Attributes:
        model: architecture, ``winspect-tiny``, ``hf-hub:OWNER/NAME``, or ``local-dir:`` and the folder's name.
        kind: "tag", "file" or "bundled".
        tag: the pretrained tag, the file's name, or "bundled".
        path: where the file is, or will be after it was fetched.
        preprocess: what the weights were trained to see.
        quick_gelu: trained with OpenAI's approximation of GELU, or without; None where neither a tag nor a
            configuration beside the file tells: the file's format and the architecture do then.
        sha256_prefix: first digits the file's SHA-256 must have, or None where nothing tells.
        pretrained: open_clip's tag behind it, or the repository of the hub, or None.
        config: open_clip's configuration that came with the weights; None where the model's name stands for one.
    """

    model: str
    kind: Literal["tag", "file", "bundled"]
    tag: str
    path: Path
    preprocess: Preprocess
    quick_gelu: bool | None = None
    sha256_prefix: str | None = None
    pretrained: Tag | None = None
    config: Mapping[str, Any] | None = None

    @property
    def present(self) -> bool:
        """Whether the file is on this machine."""
        return os.path.isfile(self.path)

    @property
    def address(self) -> str | None:
        """Where the file can be fetched, or None for a local file."""
        if self.kind != "tag" or self.pretrained is None:
            return None
        return self.pretrained.url or hub.address(self.pretrained.repo or "", self.path.name)


def find(
    model: str, weights: str | os.PathLike[str] | None = None, *, cache_dir: str | os.PathLike[str] | None = None
) -> Source:
    """Where the weights are or will be, without fetching or reading them.

    Args:
        model: an open_clip architecture, ``winspect-tiny``, ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``.
        weights: a pretrained tag of the architecture, or a file; None for the default. A name that is both is the
            tag; a :class:`~pathlib.Path` is always a file. Models that bring their own take none.
        cache_dir: where downloaded weights are kept; None for the user's cache folder.

    Raises:
        ArchitectureError: the model is unknown, or of a kind WinCLIP cannot use.
        WeightsMissingError: no such tag or file, or there is no default.
    """
    if model == TINY:
        return _find_bundled(weights)
    if brings_config(model):
        return _find_described(model, weights, cache_folder(cache_dir) / "weights")
    config = architecture(model)
    model = model.replace("/", "-")
    size = image_size(config)
    if weights is None:
        weights = default_tag(model)
    tag = find_tag(model, weights) if isinstance(weights, str) else None
    if tag is not None:
        return _from_tag(tag, size, cache_folder(cache_dir) / "weights")
    path = expanded(weights)
    if not os.path.isfile(path):  # false, not an error, also for a name too long or a folder we may not enter
        raise WeightsMissingError(_no_such_file(model, weights, path))
    return _from_file(model, path.absolute(), size)


def resolve(
    model: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: bool = True,
) -> Source:
    """Where the weights are, after fetching them if need be; the file's hash is checked where it is known.

    Args:
        model, weights, cache_dir: see :func:`find`.
        offline: never use the network (also where ``WINSPECT_OFFLINE`` or ``HF_HUB_OFFLINE`` is 1).
        progress: draw a bar on stderr while downloading.

    Raises:
        ArchitectureError: the model is unknown, or of a kind WinCLIP cannot use.
        WeightsMissingError: not on this machine and not to be fetched; says what to fetch and where to put it.
        WeightsCorruptError: the hash is wrong.
    """
    offline = offline or _offline_by_environment()
    if model.startswith(HUB):
        _fetch_config(model, cache_folder(cache_dir) / "weights", offline=offline, progress=progress)
    source = find(model, weights, cache_dir=cache_dir)
    if not source.present:
        source = _fetch(source, cache_dir, offline=offline, progress=progress)
    if source.kind != "bundled":
        _verify(source, cache_dir)
    return source


def _find_bundled(weights: str | os.PathLike[str] | None) -> Source:
    if weights is not None:
        raise SettingsError(f"{TINY} carries its own weights, got {os.fspath(weights)!r}; leave the weights out")
    settings = read_config(BUNDLED_FOLDER).get("preprocess")
    if not settings or "size" not in settings:
        raise WeightsCorruptError(
            f'{BUNDLED_FOLDER / BUNDLED_CONFIG_FILE}: has no "preprocess"; install the package again'
        )
    preprocess = described.preprocess(BUNDLED_FOLDER / BUNDLED_CONFIG_FILE, Preprocess(settings["size"]), settings)
    return Source(TINY, "bundled", "bundled", BUNDLED_FOLDER / WEIGHTS_FILE, preprocess)


def _find_described(model: str, weights: str | os.PathLike[str] | None, folder: Path) -> Source:
    """A model that brings its configuration along; of a repository only after its configuration was fetched."""
    if weights is not None:
        raise SettingsError(f"{model} brings its own weights, got {os.fspath(weights)!r}; leave the weights out")
    if model.startswith(LOCAL):
        place = described.folder_of(model)
        name, path, repository = f"{LOCAL}{place.name}", described.weights_in(place), None
        config_file = place / CONFIG_FILE
    else:
        repo = described.repo_of(model)
        repository = Tag(model, repo, repo=repo, hub_files=described.HUB_FILES)
        name, path = model, hub.find_file(repo, described.HUB_FILES, _folder_of_repo(repo, folder))
        config_file = hub.find_file(repo, (CONFIG_FILE,), _folder_of_repo(repo, folder))
        if not config_file.is_file():
            raise WeightsMissingError(
                f"{model}: its {CONFIG_FILE} is not on this machine; fetch it and the weights with "
                f"`winspect weights pull {model}`"
            )
    parts = described.read_config(config_file)
    config = described.model_config(name, config_file, parts["model_cfg"])
    return Source(
        model=name,
        kind="file" if repository is None else "tag",
        tag=path.name if repository is None else repository.name,
        path=path,
        preprocess=described.preprocess(config_file, Preprocess(image_size(config)), parts["preprocess_cfg"]),
        quick_gelu=described.stated_quick_gelu(config),
        sha256_prefix=hash_in_name(path.name) if repository is None else None,
        pretrained=repository,
        config=config,
    )


def _folder_of_repo(repo: str, folder: Path) -> Path:
    return folder / repo.replace("/", "--")


def _fetch_config(model: str, folder: Path, *, offline: bool, progress: bool) -> None:
    repo = described.repo_of(model)
    place = _folder_of_repo(repo, folder)
    if offline or hub.find_file(repo, (CONFIG_FILE,), place).is_file():
        return
    try:
        hub.fetch(repo, (CONFIG_FILE,), place, progress=progress)
    except DownloadError as error:
        raise WeightsMissingError(
            f"{model}: its {CONFIG_FILE} is not on this machine and could not be fetched ({error}). Fetch "
            f"{hub.address(repo, CONFIG_FILE)} and the weights where there is a network, put both into one folder, and "
            f"name that: --model {LOCAL}FOLDER"
        ) from error


def _from_tag(tag: Tag, size: int, folder: Path) -> Source:
    preprocess = Preprocess(size, tag.mean, tag.std, tag.interpolation)
    if tag.url:
        path = folder / tag.file_name
    else:
        path = hub.find_file(tag.repo or "", tag.hub_files, _folder_of_repo(tag.repo or "", folder))
    # A tag that does not say so leaves the activation to the architecture, some of which have it in their name.
    return Source(tag.model, "tag", tag.name, path, preprocess, tag.quick_gelu or None, tag.sha256_prefix, tag)


def _from_file(model: str, path: Path, size: int) -> Source:
    """A local file: the settings of the tag it belongs to by its name, of ``open_clip_config.json`` beside it as the
    hub's repositories have it, or the architecture's."""
    tag = tag_of_file(model, path.name)
    if tag is not None:
        source = replace(_from_tag(tag, size, path.parent), kind="file", tag=path.name, path=path)
    else:
        source = Source(model, "file", path.name, path, Preprocess(size), sha256_prefix=hash_in_name(path.name))
        beside = path.with_name(CONFIG_FILE)
        if beside.is_file():
            source = _with_config(source, beside)
    return source


def _with_config(source: Source, path: Path) -> Source:
    parts = described.read_config(path)
    preprocess = described.preprocess(path, source.preprocess, parts["preprocess_cfg"])
    return replace(source, preprocess=preprocess, quick_gelu=described.stated_quick_gelu(parts["model_cfg"]))


def _fetch(source: Source, cache_dir: str | os.PathLike[str] | None, *, offline: bool, progress: bool) -> Source:
    tag = source.pretrained
    if source.kind == "bundled" or tag is None:
        raise WeightsMissingError(f"{source.path}: not found; the package is not complete, install it again")
    if offline:
        raise WeightsMissingError(_cannot_fetch(source, "offline, as asked"))
    try:
        if tag.url:
            sha256 = fetch_url(tag.url, source.path, sha256_prefix=tag.sha256_prefix, progress=progress)
        else:
            path, sha256 = hub.fetch(tag.repo or "", tag.hub_files, source.path.parent, progress=progress)
            source = replace(source, path=path)
    except DownloadError as error:
        raise WeightsMissingError(_cannot_fetch(source, str(error))) from error
    remember_sha256(source.path, sha256, cache_dir)
    return source


def _verify(source: Source, cache_dir: str | os.PathLike[str] | None) -> None:
    """Compare the file with the hash in its name; without one, at least with the checksums inside it.

    Done once per file: the hash is remembered.
    """
    check_openable(source.path)
    if remembered_sha256(source.path, cache_dir) is None and not source.sha256_prefix:
        check_zip(source.path)
    got = sha256_of(source.path, cache_dir)
    if source.sha256_prefix and not got.startswith(source.sha256_prefix):
        fix = "delete it and run again" if source.kind == "tag" else "fetch or copy it again, or rename it"
        raise WeightsCorruptError(
            f"{source.path}: has the wrong SHA-256: expected {source.sha256_prefix}..., got {got}; {fix}"
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


def _cannot_fetch(source: Source, reason: str) -> str:
    return (
        f"the weights {source.tag} of {source.model} are not on this machine and could not be fetched ({reason}). "
        f"Fetch {source.address} where there is a network and put it at {source.path}, or name your copy with "
        f"--weights FILE. Without any download, --model {TINY} works now"
    )


def _offline_by_environment() -> bool:
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _OFFLINE_VARIABLES)
