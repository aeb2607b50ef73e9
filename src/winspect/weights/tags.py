"""open_clip's pretrained tags: where the file of each is, what its hash is, and what it was trained with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import open_clip

from winspect.errors import WeightsMissingError
from winspect.pictures.tiles import Preprocess
from winspect.weights import DEFAULT_TAGS
from winspect.weights.architectures import architecture, image_size
from winspect.weights.fetching import Repository, Url, last_part

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weights in a repository, the preferred one first."""
_HASH_SUFFIX = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
# open_clip before 2.29 does not state which tags were trained with QuickGELU. It lists them under a "-quickgelu"
# architecture too, all but this one.
_UNLISTED_QUICK_GELU_TAG = "dfn2b"


@dataclass(frozen=True)
class Source:
    """Where weights are, and what goes with them.

    Attributes:
        model: architecture, ``timm/`` and one, ``winspect-tiny``, ``hf-hub:OWNER/NAME``, or ``local-dir:`` and the
            folder's name.
        kind: "tag", "file" or "bundled".
        tag: the pretrained tag, the file's name, or "bundled".
        path: where the file is, or will be after it was fetched.
        preprocess: what the weights were trained to see.
        quick_gelu: trained with OpenAI's approximation of GELU, or without; None where neither a tag nor a
            configuration beside the file tells: the file's format and the architecture decide then.
        sha256_prefix: first digits the file's SHA-256 must have, or None where nothing states them.
        origin: where the file is fetched from; None for the user's files and the bundled model.
        config: the configuration that came with the weights, or timm's; None where the model's name is one of
            open_clip's architectures.
    """

    model: str
    kind: Literal["tag", "file", "bundled"]
    tag: str
    path: Path
    preprocess: Preprocess
    quick_gelu: bool | None = None
    sha256_prefix: str | None = None
    origin: Url | Repository | None = None
    config: Mapping[str, Any] | None = None

    @property
    def full_name(self) -> str:
        """Model and tag in one, as timm writes them."""
        return f"{self.model}.{self.tag}"

    @property
    def present(self) -> bool:
        """Whether the file is on this machine."""
        return os.path.isfile(self.path)

    @property
    def size_bytes(self) -> int | None:
        """Size of the file; None where it is not on this machine."""
        return self.path.stat().st_size if self.present else None

    @property
    def address(self) -> str | None:
        """Where the file can be fetched; None where it is not fetched."""
        return self.origin.address(self.path) if self.origin else None


def tag_names(model: str) -> list[str]:
    """open_clip's pretrained tags for an architecture; [] where there are none."""
    return list(open_clip.list_pretrained_tags_by_model(model))


def find_tag(model: str, name: str, folder: Path) -> Source | None:
    """The source of a pretrained tag, or None where open_clip has none of this name for this architecture.

    Args:
        model: architecture, open_clip's name.
        name: the tag, in any case, with dashes or underscores.
        folder: where downloaded weights are kept.
    """
    if _clean(name) not in map(_clean, tag_names(model)):
        return None
    config = open_clip.get_pretrained_cfg(model, name)
    origin = _origin(config)
    # A tag that does not state it leaves the activation to the architecture, some of which have it in their name.
    quick_gelu = _quick_gelu(model, name, config) or None
    preprocess = chosen_preprocess(Preprocess(image_size(architecture(model))), config)
    path = origin.find(folder)
    return Source(model, "tag", _clean(name), path, preprocess, quick_gelu, origin.sha256_prefix, origin)


def chosen_preprocess(default: Preprocess, settings: Mapping[str, Any]) -> Preprocess:
    """The settings of a configuration that winspect has, and ``default`` for those that it leaves open."""
    return replace(default, **{key: settings[key] for key in ("mean", "std", "interpolation") if settings.get(key)})


def _origin(config: Mapping[str, Any]) -> Url | Repository:
    """The tag's URL where its hash is known from it, else the Hugging Face hub, which states every hash."""
    url, hub = config.get("url") or None, config.get("hf_hub") or None
    found = _HASH_SUFFIX.search(last_part(url)) if url else None
    prefix = found[1] if found else None
    if url and "openaipublic" in url:  # OpenAI's archives lie in a folder named by their SHA-256
        prefix = None if hub else urlsplit(url).path.split("/")[-2]  # the hub has their tensors alone
    if hub and prefix is None:
        repo, _, file = hub.rpartition("/")
        return Repository(repo, _hub_files(file))
    return Url(url or "", prefix)


def tag_of_file(model: str, path: Path) -> Source | None:
    """The tag whose file has this name, or None: a file that was downloaded by hand keeps its tag's settings."""
    for name in tag_names(model):
        url = open_clip.get_pretrained_cfg(model, name).get("url")
        if url and "openaipublic" not in url and last_part(url) == path.name:
            return find_tag(model, name, path.parent)
    return None


def default_tag(model: str) -> str:
    """The tag used where the user names none.

    Raises:
        WeightsMissingError: the architecture has no default; lists the tags there are.
    """
    if model in DEFAULT_TAGS:
        return DEFAULT_TAGS[model]
    raise WeightsMissingError(f"no weights were named for {model}, which has no default; {describe_tags(model)}")


def describe_tags(model: str, typed: str | None = None) -> str:
    """What to give as weights instead, for an error message."""
    names = tag_names(model)
    if not names:
        return f"open_clip has no pretrained tag for {model}: give a file with --weights FILE"
    close = get_close_matches(typed, names, n=3) if typed else []
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}its tags: {', '.join(names)}; or give a file with --weights FILE"


def hash_in_name(file_name: str) -> str | None:
    """The first digits of the SHA-256 in a name such as ``vit-laion400m_e31-8fb26589.pt`` (open_clip's convention).

    Decimal digits alone are taken for a date.
    """
    found = _HASH_SUFFIX.search(file_name)
    return None if found is None or found[1].isdecimal() else found[1]


def _quick_gelu(model: str, name: str, config: Mapping[str, Any]) -> bool:
    if "quick_gelu" in config or model.endswith("-quickgelu"):
        return bool(config.get("quick_gelu", True))
    if "quick_gelu" in open_clip.get_pretrained_cfg("ViT-B-32", "openai"):  # open_clip 2.29 and later
        return False
    twin = open_clip.get_pretrained_cfg(f"{model}-quickgelu", name)
    return _clean(name) == _UNLISTED_QUICK_GELU_TAG or bool(twin and twin.get("url") == config.get("url"))


def _hub_files(file: str) -> tuple[str, ...]:
    if not file:
        return HUB_FILES
    stem, dot, suffix = file.rpartition(".")
    return (f"{stem}.safetensors", file) if dot and suffix in ("bin", "pth") else (file,)


def _clean(name: str) -> str:
    return name.lower().replace("-", "_")
