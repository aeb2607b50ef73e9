"""open_clip's pretrained tags: where each one's file is, what its hash is, and what it was trained with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

import open_clip

from winspect.errors import WeightsMissingError
from winspect.pictures.tiles import Preprocess
from winspect.weights.names import DEFAULT_TAGS

_HASH_SUFFIX = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
# open_clip before 2.29 does not say which tags were trained with QuickGELU. It lists them under a "-quickgelu"
# architecture too, all but this one.
_UNLISTED_QUICK_GELU_TAG = "dfn2b"


@dataclass(frozen=True)
class Tag:
    """One set of pretrained weights.

    Attributes:
        model: architecture, open_clip's name.
        name: open_clip's tag.
        url: address of the file, or None where it comes from the Hugging Face hub.
        repo: repository on the hub, or None where there is a ``url``.
        hub_files: file names in the repository, the preferred one first.
        sha256_prefix: first digits of the file's SHA-256, or None where the hub tells it.
        mean, std: per channel, of RGB in 0..1.
        interpolation: resize filter, "bicubic" or "bilinear".
        quick_gelu: trained with OpenAI's approximation of GELU.
    """

    model: str
    name: str
    url: str | None = None
    repo: str | None = None
    hub_files: tuple[str, ...] = ()
    sha256_prefix: str | None = None
    mean: tuple[float, float, float] = Preprocess.mean
    std: tuple[float, float, float] = Preprocess.std
    interpolation: str = Preprocess.interpolation
    quick_gelu: bool = False

    @property
    def file_name(self) -> str:
        """Name of the file in the cache (of the preferred one, where the hub has several)."""
        return self.hub_files[0] if self.url is None else _last_part(self.url)


def tag_names(model: str) -> list[str]:
    """open_clip's pretrained tags for an architecture; [] where there are none."""
    return list(open_clip.list_pretrained_tags_by_model(model))


def find_tag(model: str, name: str) -> Tag | None:
    """The pretrained tag, or None where open_clip has none of this name for this architecture.

    The tag's own address is preferred where its hash is known from it, else the Hugging Face hub is used: it tells
    the hash of every large file.

    """
    if _clean(name) not in map(_clean, tag_names(model)):
        return None
    config = open_clip.get_pretrained_cfg(model, name)
    url, hub = config.get("url") or None, config.get("hf_hub") or None
    prefix = hash_in_name(_last_part(url)) if url else None
    if url and "openaipublic" in url:  # OpenAI's own archives stand in a folder of their SHA-256
        prefix = urlsplit(url).path.split("/")[-2]
        url = None if hub else url  # the hub has their tensors alone
    if hub and (url is None or prefix is None):
        url, prefix = None, None
    repo, _, file = hub.rpartition("/") if hub and url is None else ("", "", "")
    return Tag(
        model=model,
        name=_clean(name),
        url=url,
        repo=repo or None,
        hub_files=_hub_files(file) if repo else (),
        sha256_prefix=prefix,
        mean=tuple(config.get("mean") or Preprocess.mean),
        std=tuple(config.get("std") or Preprocess.std),
        interpolation=config.get("interpolation") or Preprocess.interpolation,
        quick_gelu=_quick_gelu(model, name, config),
    )


def tag_of_file(model: str, file_name: str) -> Tag | None:
    """The tag whose file has this name, or None: a file that was downloaded by hand keeps its tag's settings."""
    for name in tag_names(model):
        url = open_clip.get_pretrained_cfg(model, name).get("url")
        if url and "openaipublic" not in url and _last_part(url) == file_name:
            return find_tag(model, name)
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

    Eight decimal digits alone are taken for a date, and give None unless open_clip lists the file under that name.
    """
    found = _HASH_SUFFIX.search(file_name)
    if found is None:
        return None
    digits = found[1]
    return None if digits.isdecimal() and not _is_listed(file_name) else digits


def _is_listed(file_name: str) -> bool:
    urls = (open_clip.get_pretrained_cfg(model, tag).get("url") or "" for model, tag in open_clip.list_pretrained())
    return file_name in map(_last_part, urls)


def _quick_gelu(model: str, name: str, config: dict[str, object]) -> bool:
    if "quick_gelu" in config or model.endswith("-quickgelu"):
        return bool(config.get("quick_gelu", True))
    if _knows_quick_gelu():
        return False
    twin = open_clip.get_pretrained_cfg(f"{model}-quickgelu", name)
    return _clean(name) == _UNLISTED_QUICK_GELU_TAG or bool(twin and twin.get("url") == config.get("url"))


def _knows_quick_gelu() -> bool:
    return "quick_gelu" in open_clip.get_pretrained_cfg("ViT-B-32", "openai")


def _hub_files(file: str) -> tuple[str, ...]:
    if not file:
        return "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
    stem, dot, suffix = file.rpartition(".")
    return (f"{stem}.safetensors", file) if dot and suffix in ("bin", "pth") else (file,)


def _last_part(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _clean(name: str) -> str:
    return name.lower().replace("-", "_")
