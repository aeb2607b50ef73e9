"""Identity: what decides a score, and the only comparison of two of them. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from winspect._version import __version__
from winspect.errors import ClassNameError, SettingsError
from winspect.methods.method import Method
from winspect.methods.registry import all_settings, method_of
from winspect.methods.winclip.prompts import PromptEnsemble, check_class_name, class_key
from winspect.pictures.alignment import TO
from winspect.pictures.fingerprints import Fingerprint
from winspect.system.entries import entry

SINCE_LATER = ("activation",)
"""Entries that earlier releases did not write; they are compared only where both documents have them."""

_NONE_WHERE_MISSING = ("bit_depth", "roi", "alignment")
_ROUNDING_ONLY = ("engine", "device")
_LONGEST, _MOST_NAMES = 80, 4


@dataclass(frozen=True)
class Identity:
    """What decides the scores of a model or a bundle, or, with ``class_name``, of a class of one.

    Two identities are equal when the same scores follow from them, up to names that decide nothing.

    Attributes:
        model: architecture, or ``winspect-tiny``.
        weights: pretrained tag, name of the weights file, or ``bundled``; None where a document has no such entry.
        weights_sha256: hash of the weights file.
        activation: ``gelu``, ``quick_gelu``, ...; None where an earlier release wrote the document.
        recipe: the method: embeddings to scores. Settings that the release of a document did not know are
            as it scored.
        prompts: states and templates; None for a document that holds their hash alone.
        prompts_sha256: hash of the prompts.
        engine, precision, device: what runs the image tower, and the type of device it runs on.
        bit_depth: bits of a camera whose values stand unscaled in 16 bits; None for values of the whole range.
        roi: the region of interest in words, with its hash; None for whole pictures.
        alignment: how pictures are registered in words, of a class with the hash of the first good sample; None for
            pictures as they are.
        class_name: words of the class in prompts; None for the model as such.
        references: name and hash of each good sample of the class; none for zero-shot.
        release: of winspect.
    """

    model: str
    weights_sha256: str
    recipe: Method
    engine: str
    precision: str
    device: str
    weights: str | None = field(default=None, compare=False)
    activation: str | None = None
    prompts: PromptEnsemble | None = field(default=None, compare=False, repr=False)
    prompts_sha256: str = ""
    bit_depth: int | None = None
    roi: str | None = None
    alignment: str | None = None
    class_name: str | None = None
    references: tuple[Fingerprint, ...] = ()
    release: str = field(default=__version__, compare=False)

    def __post_init__(self) -> None:
        if self.prompts is not None:
            text = json.dumps(asdict(self.prompts), sort_keys=True)
            object.__setattr__(self, "prompts_sha256", hashlib.sha256(text.encode()).hexdigest())

    def of_class(self, class_name: str, references: Sequence[Fingerprint]) -> Identity:
        """The identity of a class of this model.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
        """
        names = (Fingerprint.read(sample.document()) for sample in references)
        return replace(self, class_name=check_class_name(class_name), references=tuple(names))

    def entries(self) -> dict[str, Any]:
        """Every entry by its name in documents, as JSON has it, but for those that are not known."""
        entries: dict[str, Any] = {
            "winspect": self.release,
            "model": self.model,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "activation": self.activation,
            "recipe": self.recipe.document(),
            "prompts": self.prompts and asdict(self.prompts),
            "prompts_sha256": self.prompts_sha256,
            "engine": self.engine,
            "precision": self.precision,
            "device": self.device,
            "bit_depth": self.bit_depth,
            "roi": self.roi,
            "alignment": self.alignment,
            "class": self.class_name,
        }
        if self.class_name is not None:
            entries["references"] = [sample.document() for sample in self.references]
        return json.loads(json.dumps({name: value for name, value in entries.items() if value is not None}))

    def document(self) -> dict[str, Any]:
        """What results, bundles and ``describe`` say of a model, as JSON has it."""
        apart = ("prompts_sha256", "class", "references")
        return {name: value for name, value in self.entries().items() if name not in apart}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Identity:
        """The identity in a document of this or an earlier release: a bundle, a calibration, or :meth:`document`.

        Raises:
            SettingsError: an entry is missing or is not what it should be.
        """

        def maybe(name: str, kind: type) -> Any:
            return None if document.get(name) is None else entry(document, name, kind)

        prompts, class_name = maybe("prompts", dict), maybe("class", str)
        try:
            class_name = None if class_name is None else check_class_name(class_name)
        except ClassNameError as error:
            raise SettingsError(f"class: {error}") from error
        return cls(
            model=entry(document, "model", str),
            weights_sha256=entry(document, "weights_sha256", str),
            recipe=method_of(entry(document, "recipe", dict)),
            engine=entry(document, "engine", str),
            precision=entry(document, "precision", str),
            device=entry(document, "device", str),
            weights=maybe("weights", str),
            activation=maybe("activation", str),
            prompts=None if prompts is None else _prompts(prompts),
            prompts_sha256=entry(document, "prompts_sha256", str) if prompts is None else "",
            bit_depth=maybe("bit_depth", int),
            roi=maybe("roi", str),
            alignment=maybe("alignment", str),
            class_name=class_name,
            references=() if class_name is None else tuple(map(Fingerprint.read, entry(document, "references", list))),
            release=maybe("winspect", str) or "unknown",
        )

    def differences(self, other: Identity, *, ignore: Collection[str] = ()) -> list[Difference]:
        """The entries in which another identity differs, by name.

        A class is the same however it is typed. References are a set of contents: neither their order nor their names
        decide a score. An entry that only one of the two has is not compared.

        Args:
            ignore: names of entries in documents.
        """
        first, second = (
            identity.entries() | ({"class": class_key(identity.class_name)} if identity.class_name else {})
            for identity in (self, other)
        )
        if all("alignment" in entries for entries in (first, second)):
            sides = first["alignment"], second["alignment"]
            if sum(TO in words for words in sides) == 1:  # of a model as such: it has no good sample
                first["alignment"], second["alignment"] = (words.split(TO)[0] for words in sides)
        unsaid = ({*first} ^ {*second}) - {*_NONE_WHERE_MISSING}
        rounding = _ROUNDING_ONLY if self.precision == other.precision == "fp32" else ()
        return [
            replace(difference, is_rounding=difference.name in rounding)
            for difference in differences(first, second, ignore={*ignore, *unsaid, "prompts"})
        ]


class Identified(Protocol):
    """A model as far as its identity matters."""

    def identity(self, category_name: str | None = None) -> Identity:
        """What decides the scores of a class; of the model as such for None."""


def written_by(document: Mapping[str, Any]) -> str:
    """Both releases, for the end of a message on a document of another release; empty for this release's."""
    release = document.get("winspect") or "of an unknown release"
    return "" if release == __version__ else f" (written by winspect {release}, this is {__version__})"


@dataclass(frozen=True)
class Difference:
    """An entry in which two documents differ.

    Attributes:
        name: of the entry.
        first, second: its values, as JSON has them; of a recipe the settings that differ.
        is_rounding: scores agree up to rounding, within 1e-5: another engine or device in fp32.
    """

    name: str
    first: Any
    second: Any
    is_rounding: bool = False

    def in_words(self, form: str, show: Callable[[Any], str] = repr) -> str:
        """The entry with both values.

        Args:
            form: as in ``"{name}: {first} there, {second} here"``.
            show: makes text of a value, as :func:`brief` does. References are given by name.
        """
        first, second = (
            _names(value) if self.name == "references" and _are_samples(value) else show(value)
            for value in (self.first, self.second)
        )
        return form.format(name=self.name, first=first, second=second)


def listed(found: Iterable[Difference]) -> str:
    """The names of entries; of releases both."""
    releases = "winspect {first} there, {second} here"
    return ", ".join(each.in_words(releases, str) if each.name == "winspect" else each.name for each in found)


def brief(value: object) -> str:
    """A value as JSON, or an ellipsis for a long one."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else "..."


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> list[Difference]:
    """The entries in which two documents differ, of runs or of identities, by name.

    Settings of a recipe that an earlier release did not write are as it scored. Good samples are those of the same
    contents: where both documents have ``references_sha256``, the paths beside it are not compared.

    Args:
        first, second: as JSON has them.
        ignore: names of entries.
    """
    found = []
    paths = {"references"} if "references_sha256" in first and "references_sha256" in second else set()
    for name in sorted({*first, *second} - {*ignore} - paths):
        if name in SINCE_LATER and not (name in first and name in second):
            continue
        left, right = first.get(name), second.get(name)
        if name in ("recipe", "recipe_settings") and isinstance(left, dict) and isinstance(right, dict):
            left, right = all_settings(left), all_settings(right)
            changed = sorted(key for key in {*left, *right} if left.get(key) != right.get(key))
            left, right = ({key: settings.get(key) for key in changed} for settings in (left, right))
        if _contents(left) != _contents(right):
            found.append(Difference(name, left, right))
    return found


def _are_samples(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(sample, dict) and {*sample} == {"name", "sha256"} for sample in value
    )


def _contents(value: Any) -> Any:
    return sorted(str(sample["sha256"]) for sample in value) if _are_samples(value) else value


def _names(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return "none (zero-shot)"
    names = [f"{sample['name']} ({str(sample['sha256'])[:8]})" for sample in samples[:_MOST_NAMES]]
    more = len(samples) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _prompts(document: Mapping[str, Any]) -> PromptEnsemble:
    try:
        return PromptEnsemble(**document)
    except TypeError as error:
        raise SettingsError(f"prompts: {error}") from error
