"""A product's document: every entry of its file, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from winspect.calibration.judgement import ProductRevision
from winspect.errors import ClassNameError, SettingsError
from winspect.methods.winclip.prompts import check_class_name
from winspect.product.sections import READERS, Section, portable, read_sections

SCHEMA = 1
RECORD = "record"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
ENGINES = ("torch", "openvino", "onnx")

_LONGEST_NAME = 200
_SHA256 = 64
_KINDS = {str: "a text", int: "a whole number", dict: "a table", list: "a list"}
_BIT_DEPTHS = range(9, 17)


@dataclass(frozen=True)
class ProductModel:
    """The table ``[model]``: what scores. What is None is the library's default.

    Attributes:
        name: as ``--model`` takes it.
        weights: a pretrained tag, or a file.
        recipe, settings: the recipe and its single settings.
        precision, engine: what the image tower runs in; an engine that is None is any.
        prompts: a published set, or a file.
        bit_depth: of the camera, 9 to 16.
    """

    name: str
    weights: str | None = None
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None
    engine: str | None = None
    prompts: str | None = None
    bit_depth: int | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ProductModel:
        """The table; errors as of :meth:`Product.read`."""
        _check_keys("[model]", document, [entry.name for entry in fields(cls)])
        texts = ("weights", "recipe", "precision", "engine", "prompts")
        model = cls(
            _entry("[model]", document, "name", str),
            **{name: _maybe("[model]", document, name, str) for name in texts},
            settings=_maybe("[model]", document, "settings", dict) or {},
            bit_depth=_maybe("[model]", document, "bit_depth", int),
        )
        for name, known in (("precision", PRECISIONS), ("engine", ENGINES), ("bit_depth", _BIT_DEPTHS)):
            value = getattr(model, name)
            if value is not None and value not in known:
                words = "9 to 16" if name == "bit_depth" else f"one of {', '.join(map(str, known))}"
                raise SettingsError(f"[model] {name}: got {value!r}, need {words}")
        return model

    def document(self) -> dict[str, Any]:
        """The table; what is at its default is left out."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, {})}


@dataclass(frozen=True)
class ProductReferences:
    """The table ``[references]``: good samples.

    Attributes:
        files: files, folders and globs.
        shots: the first so many of them; None for all.
    """

    files: tuple[str, ...]
    shots: int | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ProductReferences:
        """The table; errors as of :meth:`Product.read`."""
        _check_keys("[references]", document, [entry.name for entry in fields(cls)])
        files = _entry("[references]", document, "files", list)
        if not files or not all(isinstance(file, str) and file for file in files):
            raise SettingsError(f"[references] files: got {files!r}, need a list of files, folders and globs")
        shots = _maybe("[references]", document, "shots", int)
        if shots is not None and shots < 1:
            raise SettingsError(f"[references] shots: got {shots}, need 1 or more; leave it out for all")
        return cls(tuple(files), shots)

    def document(self) -> dict[str, Any]:
        """The table."""
        return {"files": list(self.files), **({} if self.shots is None else {"shots": self.shots})}


@dataclass(frozen=True)
class ProductRecord:
    """The table ``[record]``, which winspect writes: what the revision was recorded with.

    Attributes:
        document: fingerprint of the document, see :meth:`Product.fingerprint`.
        files: SHA-256 of each file, by its path relative to the product's folder.
    """

    document: str
    files: Mapping[str, str]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ProductRecord:
        """The table; errors as of :meth:`Product.read`."""
        _check_keys("[record]", document, ("document", "files"))
        files = _maybe("[record]", document, "files", dict) or {}
        for name, sha256 in files.items():
            if not (isinstance(sha256, str) and len(sha256) == _SHA256):
                raise SettingsError(f"[record] files: {name}: got {sha256!r}, need a SHA-256 of 64 digits")
        return cls(_entry("[record]", document, "document", str), files)


@dataclass(frozen=True)
class Product:
    """A product.

    Attributes:
        name: of the product, such as the part number.
        revision: 1 for a new product; one more with each recorded change.
        class_name: what the part is called in prompts.
        model, references: tables of the file.
        calibration: a file of ``winspect calibrate``; None for none.
        sections: what other rooms read, by the name of the section.
        record: None where the file was written by hand and never checked.
        path: of the file; files that it names are relative to its folder.
    """

    name: str
    revision: int
    class_name: str
    model: ProductModel
    references: ProductReferences | None = None
    calibration: str | None = None
    sections: Mapping[str, Section] = field(default_factory=dict)
    record: ProductRecord | None = field(default=None, compare=False, repr=False)
    path: Path = field(default=Path("product.toml"), compare=False, repr=False)

    @property
    def mark(self) -> ProductRevision:
        """Name and revision, as rows have them."""
        return ProductRevision(self.name, self.revision)

    @property
    def title(self) -> str:
        """Name and revision in messages."""
        return f"product {self.name!r} revision {self.revision}"

    def place(self, file: str) -> Path:
        """Where a file that the product names lies."""
        return self.path.parent / file

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the document: two of the same say the same, however they are written."""
        text = json.dumps(self.document(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def document(self, *, packed: bool = False) -> dict[str, Any]:
        """The entries of the file but for ``[record]``, as JSON has them.

        Args:
            packed: what lies in files of its own stands in it, where a section needs it.
        """
        sections = {name: portable(each) if packed else each.document() for name, each in self.sections.items()}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "revision": self.revision,
            "class": self.class_name,
            "model": self.model.document(),
            **({} if self.references is None else {"references": self.references.document()}),
            **({} if self.calibration is None else {"calibration": {"file": self.calibration}}),
            **sections,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any], path: Path) -> Product:
        """A product from the document of its file.

        Raises:
            SettingsError: another schema, an unknown key, a value of the wrong kind, or one that is missing.
        """
        schema = document.get("schema")
        if schema != SCHEMA or isinstance(schema, bool):
            raise SettingsError(f"schema: got {schema!r}, this release reads {SCHEMA}; {_schema_fix(schema)}")
        known = ("schema", "name", "revision", "class", "model", "references", "calibration", *READERS, RECORD)
        _check_keys("the product", document, known)
        revision = _entry("", document, "revision", int)
        if revision < 1:
            raise SettingsError(f"revision: got {revision}, need 1 or more")
        tables = {name: _maybe("", document, name, dict) for name in ("references", "calibration", RECORD)}
        references, calibration, record = tables.values()
        if calibration is not None:
            _check_keys("[calibration]", calibration, ("file",))
        return cls(
            name=_name(document),
            revision=revision,
            class_name=_class_name(document),
            model=ProductModel.read(_entry("", document, "model", dict)),
            references=None if references is None else ProductReferences.read(references),
            calibration=None if calibration is None else _entry("[calibration]", calibration, "file", str),
            sections=read_sections(document, path.parent),
            record=None if record is None else ProductRecord.read(record),
            path=path,
        )


def _schema_fix(schema: object) -> str:
    is_newer = isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA
    return "upgrade winspect" if is_newer else f"write schema = {SCHEMA} at the top"


def _name(document: Mapping[str, Any]) -> str:
    name = _entry("", document, "name", str)
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise SettingsError(f"name: got {name!r}, need a printable text of 1 to {_LONGEST_NAME} characters")
    return name


def _class_name(document: Mapping[str, Any]) -> str:
    try:
        return check_class_name(_entry("", document, "class", str))
    except ClassNameError as error:
        raise SettingsError(f"class: {error}") from error


def _check_keys(where: str, document: Mapping[str, Any], known: Any) -> None:
    if unknown := [str(key) for key in document if key not in known]:
        raise SettingsError(
            f"{where}: got the unknown key {unknown[0]!r}, known are {', '.join(known)}; correct it, or leave it out"
        )


def _entry(where: str, document: Mapping[str, Any], name: str, kind: type) -> Any:
    full = f"{where} {name}".strip()
    if name not in document:
        raise SettingsError(f"{full}: not there, need {_KINDS[kind]}")
    value = document[name]
    if type(value) is not kind:
        raise SettingsError(f"{full}: got {value!r}, need {_KINDS[kind]}")
    return value


def _maybe(where: str, document: Mapping[str, Any], name: str, kind: type) -> Any:
    return _entry(where, document, name, kind) if name in document else None
