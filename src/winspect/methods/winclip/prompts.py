"""The compositional prompt ensemble: states x templates x a class name. Text only, no tensors.

Source: Jeong et al., WinCLIP (CVPR 2023, arXiv 2303.14814), section 4.1 and its appendix.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from types import MappingProxyType

from winspect.errors import ClassNameError, SettingsError
from winspect.system.opening import read_text
from winspect.system.yaml_texts import parse_yaml

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

# Each once with the definite and once with the indefinite article: 22 templates.
_TEMPLATES_WITHOUT_ARTICLE = (
    "a cropped photo of {article} {{}}.",
    "a close-up photo of {article} {{}}.",
    "a bright photo of {article} {{}}.",
    "a dark photo of {article} {{}}.",
    "a jpeg corrupted photo of {article} {{}}.",
    "a blurry photo of {article} {{}}.",
    "a photo of {article} {{}}.",
    "a photo of {article} small {{}}.",
    "a photo of {article} large {{}}.",
    "a photo of {article} {{}} for visual inspection.",
    "a photo of {article} {{}} for anomaly detection.",
)
TEMPLATES = tuple(
    template.format(article=article) for article in ("the", "a") for template in _TEMPLATES_WITHOUT_ARTICLE
)

MAX_CLASS_NAME_LENGTH = 100
MOST_PROMPTS = 20_000
_YAML_KEYS = ("normal_states", "anomalous_states", "templates")


def check_class_name(name: str, *, underscores: str = "space") -> str:
    """Return the words a class name contributes to a prompt: ``"pipe_fryum"`` gives ``"pipe fryum"``.

    However its letters are composed and its blanks are set, a name is in Unicode's form NFC, with one blank between
    words. Its case stays as it is; see :func:`class_key`.

    Args:
        underscores: ``space``, or ``keep`` to leave them; see :class:`winspect.methods.winclip.recipes.Recipe`.

    Raises:
        ClassNameError: empty, longer than 100 characters, more than one line, or with braces, which are the
            placeholder of states and templates.
    """
    if not isinstance(name, str):
        raise ClassNameError(f"got a class name of type {type(name).__name__}, need text such as 'candle'")
    name = unicodedata.normalize("NFC", name)
    words = " ".join((name if underscores == "keep" else name.replace("_", " ")).split())
    if not words:
        raise ClassNameError(f"got the empty class name {name!r}; name the part, as in --class candle")
    if len(name) > MAX_CLASS_NAME_LENGTH:
        raise ClassNameError(
            f"got a class name of {len(name)} characters ({name[:20]!r}...), "
            f"at most {MAX_CLASS_NAME_LENGTH} fit into a prompt; use a few words, as in 'metal nut'"
        )
    if "{" in words or "}" in words:
        raise ClassNameError(f"got the class name {name!r}: braces mark the placeholder of a prompt; leave them out")
    if not name.strip().isprintable():
        raise ClassNameError(f"got the class name {name!r}: it has control characters or line breaks; leave them out")
    return words


def class_key(name: str, *, underscores: str = "space") -> str:
    """Key of a class, however its name is typed: its words in lower case, as CLIP's tokenizer takes them.

    Two names with one key are one class: what is stored, shown or calibrated for one holds for the other.

    Raises:
        ClassNameError: see :func:`check_class_name`.
    """
    return unicodedata.normalize("NFC", check_class_name(name, underscores=underscores).lower())


def _check_placeholders(kind: str, entries: Sequence[str]) -> tuple[str, ...]:
    if isinstance(entries, str) or not isinstance(entries, Sequence) or not entries:
        raise SettingsError(f"{kind}: got {entries!r}, need a list with at least one entry such as '{{}}'")
    for entry in entries:
        if not isinstance(entry, str) or entry.count("{}") != 1:
            raise SettingsError(f"{kind}: got {entry!r}, need text with the placeholder {{}} exactly once")
        if set("{}") & set(entry.replace("{}", "")):
            raise SettingsError(f"{kind}: got {entry!r}, which has braces beside its placeholder {{}}")
    return tuple(entries)


ACCURATE_WINCLIP_TEMPLATES = (
    *(t for t in TEMPLATES if t not in ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")),
    "a jpeg corrupted photo of the {}.",  # twice, as in that program
)
"""The 21 templates of zqhang/Accurate-WinCLIP-pytorch, with which its published tables were made."""


@dataclass(frozen=True)
class PromptEnsemble:
    """States and templates; every one holds the placeholder ``{}`` exactly once.

    The default is the paper's: 7 x 22 = 154 normal and 4 x 22 = 88 anomalous prompts.

    >>> ensemble = PromptEnsemble()
    >>> normal, anomalous = ensemble.prompts("pipe_fryum")
    >>> len(normal), len(anomalous)
    (154, 88)
    >>> anomalous[0]
    'a cropped photo of the damaged pipe fryum.'
    """

    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = TEMPLATES

    def __post_init__(self) -> None:
        for kind in _YAML_KEYS:
            object.__setattr__(self, kind, _check_placeholders(kind, getattr(self, kind)))
        count = (len(self.normal_states) + len(self.anomalous_states)) * len(self.templates)
        if count > MOST_PROMPTS:
            raise SettingsError(
                f"prompts: states and templates make {count} prompts of each class, need at most {MOST_PROMPTS}: "
                "leave some out"
            )

    def prompts(self, class_name: str, *, underscores: str = "space") -> tuple[list[str], list[str]]:
        """Prompts of a class: (normal, anomalous), state by state, each through every template.

        Args:
            underscores: see :func:`check_class_name`.

        Raises:
            ClassNameError: see :func:`check_class_name`.
        """
        words = check_class_name(class_name, underscores=underscores)

        def compose(states: Sequence[str]) -> list[str]:
            return [
                template.replace("{}", state.replace("{}", words)) for state in states for template in self.templates
            ]

        return compose(self.normal_states), compose(self.anomalous_states)

    @classmethod
    def read(cls, source: str | PathLike[str] | None) -> PromptEnsemble:
        """Prompts by the name of a set (:data:`PROMPT_SETS`) or from a YAML file; None for the paper's.

        Raises:
            SettingsError: see :meth:`from_yaml`.
        """
        if isinstance(source, str) and source in PROMPT_SETS:
            return PROMPT_SETS[source]
        return cls() if source is None else cls.from_yaml(source)

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Sequence[str]]) -> PromptEnsemble:
        """Own states and templates; what is left out keeps its default.

        Raises:
            SettingsError: an unknown key, or an entry without exactly one ``{}``.
        """
        if not isinstance(entries, Mapping):
            raise SettingsError(f"prompts: got {type(entries).__name__}, need a mapping of {', '.join(_YAML_KEYS)}")
        unknown = [str(key) for key in entries if key not in _YAML_KEYS]
        if unknown:
            raise SettingsError(f"prompts: unknown key {', '.join(unknown)}; known are {', '.join(_YAML_KEYS)}")
        return cls(**{key: entries[key] for key in _YAML_KEYS if key in entries})  # type: ignore[arg-type]

    @classmethod
    def from_yaml(cls, path: str | PathLike[str]) -> PromptEnsemble:
        """Read ``normal_states``, ``anomalous_states`` and ``templates`` (lists) from a YAML file.

        Raises:
            SettingsError: the file cannot be read, is not YAML, or its entries are wrong; names the file.
        """
        try:
            text = read_text(path)
        except OSError as error:
            raise SettingsError(f"{path}: cannot read the prompts: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path}: not a YAML file: not UTF-8 ({error})") from error
        entries = parse_yaml(text, str(path))
        try:
            return cls.from_mapping(entries)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error


PROMPT_SETS: Mapping[str, PromptEnsemble] = MappingProxyType(
    {"winclip": PromptEnsemble(), "accurate-winclip": PromptEnsemble(templates=ACCURATE_WINCLIP_TEMPLATES)}
)
"""Prompts that published figures were made with, by name. A file of such a name is read as ``./winclip``."""
