"""Bodies of requests -> fields and files, in memory, within limits.

The parts of a body are counted while they arrive. Nothing is ever spooled to a disk: the guard has bounded the whole
body already, so that its parts cannot be larger.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from winspect.service.http.refusals import Refused

MAX_FIELD_BYTES = 4096
"""Largest text field, name or header of a part."""
MAX_FIELDS = 32

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_NAME_LENGTH = 100
_EXTENDED_NAME = re.compile(rb';\s*filename\*\s*=\s*("[^"]*"|[^;]*)', re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Upload:
    """A file of a form. ``name`` is the client's, without folders and control characters."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Form:
    """What a body holds: text fields, each once, and files in their order."""

    fields: dict[str, str]
    files: tuple[Upload, ...] = ()

    def text(self, name: str, default: str | None = None) -> str:
        """A field's text.

        Raises:
            Refused: 422, it is not there and has no default.
        """
        value = self.fields.get(name, default)
        if value is None:
            raise Refused(422, f"got no field {name!r}; it is needed")
        return value

    def flag(self, name: str) -> bool:
        """A field that says yes or no; False when it is not there.

        Raises:
            Refused: 422, it says something else.
        """
        word = self.fields.get(name, "false").strip().lower()
        if word not in _TRUE + _FALSE:
            raise Refused(422, f"{name}: got {self.fields[name]!r}, need true or false")
        return word in _TRUE

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """A field that is one of some words; None when it is not there.

        Raises:
            Refused: 422, it is another word.
        """
        value = self.fields.get(name)
        if value is not None and value not in choices:
            raise Refused(422, f"{name}: got {value!r}, need one of {', '.join(choices)}")
        return value

    def number(self, name: str) -> float | None:
        """A field's number; None when it is not there.

        Raises:
            Refused: 422, it is no finite number.
        """
        if name not in self.fields:
            return None
        try:
            value = float(self.fields[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Refused(422, f"{name}: got {self.fields[name]!r}, need a number")
        return value


async def read_form(
    request: Request, *, fields: Collection[str], files: Collection[str] = (), max_files: int = 0
) -> Form:
    """Read a multipart body; where no files are wanted also a URL-encoded one or a JSON object.

    Args:
        fields, files: the names that are known.

    Raises:
        Refused: 400 for a damaged body, 413 for too many or too large parts, 415 for another type of body, 422 for an
            unknown or repeated field.
    """
    header = request.headers.get("content-type", "")
    kind, options = parse_options_header(header)
    if kind == b"multipart/form-data" and options.get(b"boundary"):
        form = await _read_multipart(request, options[b"boundary"], frozenset(files), max_files)
    elif not files and kind == b"application/x-www-form-urlencoded":
        form = _once(parse_qsl(await _text(request), keep_blank_values=True, max_num_fields=None))
    elif not files and kind == b"application/json":
        form = _from_json(await _text(request))
    else:
        wanted = "multipart/form-data with a boundary" + ("" if files else ", or application/json")
        raise Refused(415, f"got a body of type {header[:80]!r}, need {wanted}")
    if unknown := sorted(set(form.fields) - set(fields)):
        raise Refused(422, f"got the unknown field {unknown[0][:80]!r}; known are {', '.join((*files, *fields))}")
    return form


async def _text(request: Request) -> str:
    body = await request.body()
    if len(body) > MAX_FIELDS * MAX_FIELD_BYTES:
        raise Refused(413, f"got a body of {len(body)} bytes, at most {MAX_FIELDS * MAX_FIELD_BYTES} make sense here")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, "the body is not UTF-8 text") from error


def _once(pairs: list[tuple[str, str]]) -> Form:
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise Refused(422, f"got the field {name[:80]!r} twice, need it once")
        fields[name] = value
    return Form(fields)


def _from_json(text: str) -> Form:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is not JSON") from error
    if not isinstance(content, dict):
        raise Refused(422, f"got a JSON {type(content).__name__}, need an object of fields")
    fields = {}
    for name, value in content.items():
        if isinstance(value, bool):
            fields[name] = str(value).lower()
        elif isinstance(value, str | int | float):
            fields[name] = str(value)
        else:
            raise Refused(422, f"{name[:80]}: got a JSON {type(value).__name__}, need text or a number")
    return Form(fields)


async def _read_multipart(request: Request, boundary: bytes, file_fields: frozenset[str], max_files: int) -> Form:
    parts = _Parts(file_fields, max_files)
    try:
        parser = MultipartParser(boundary, parts.callbacks)  # type: ignore[arg-type]
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, "the multipart body is damaged; send it as an HTTP client makes it") from error
    if not parts.ended:
        raise Refused(400, "the multipart body is cut short: its last boundary is missing")
    form = _once(parts.fields)
    return Form(form.fields, tuple(parts.files))


class _Parts:
    """The parts of a multipart body as its parser finds them."""

    def __init__(self, file_fields: frozenset[str], max_files: int) -> None:
        self.fields: list[tuple[str, str]] = []
        self.files: list[Upload] = []
        self.ended = False
        self._number = -1
        self._file_fields, self._max_files = file_fields, max_files
        self._begin()

    @property
    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._number += 1
        self._name = ""
        self._file_name: str | None = None
        self._header, self._value, self._disposition = b"", b"", b""
        self._content: list[bytes] = []
        self._size = self._header_size = 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += self._bounded(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._bounded(data[start:end])

    def _bounded(self, piece: bytes) -> bytes:
        self._header_size += len(piece)
        if self._header_size > MAX_FIELD_BYTES:
            raise self._refused(413, f"the headers of a part are longer than {MAX_FIELD_BYTES} bytes")
        return piece

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise self._refused(400, 'it has no name; need Content-Disposition: form-data; name="..."')
        self._name = options[b"name"].decode("utf-8", "replace")
        file_name = options[b"filename"] if b"filename" in options else self._extended_name()
        if file_name is None:
            if len(self.fields) >= MAX_FIELDS:
                raise self._refused(413, f"got more than {MAX_FIELDS} fields")
            return
        self._file_name = clean_name(file_name.decode("utf-8", "replace"), len(self.files))
        if self._name not in self._file_fields:
            wanted = f"; files are called {' or '.join(sorted(self._file_fields))}" if self._file_fields else ""
            raise self._refused(422, f"got a file in the field {self._name[:80]!r}{wanted}")
        if len(self.files) >= self._max_files:
            raise self._refused(413, f"got more than {self._max_files} pictures in one request; send them in several")

    def _extended_name(self) -> bytes | None:
        """The name in ``filename*`` (RFC 8187), as UTF-8; some clients send names beyond ASCII in it alone."""
        found = _EXTENDED_NAME.search(self._disposition)
        if found is None:
            return None
        charset, marks, name = found[1].strip().strip(b'"').partition(b"'")
        try:
            if not marks or b"'" not in name:
                raise ValueError
            return unquote_to_bytes(name.partition(b"'")[2]).decode(charset.decode("ascii")).encode()
        except (LookupError, ValueError) as error:
            shown = found[1][:80].decode("utf-8", "replace")
            raise self._refused(
                400, f"its filename* is {shown!r}, need UTF-8''NAME, percent-encoded, or a plain filename"
            ) from error

    def _refused(self, status: int, message: str) -> Refused:
        """A refusal that names the part: a request may have many."""
        name = f" ({self._name[:80]!r})" if self._name else ""
        return Refused(status, f"part {self._number}{name}: {message}")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._file_name is None and self._size > MAX_FIELD_BYTES:
            raise self._refused(413, f"the field is longer than {MAX_FIELD_BYTES} bytes; a file needs a filename")
        self._content.append(data[start:end])

    def _end(self) -> None:
        content = b"".join(self._content)
        self._content = []
        if self._file_name is not None:
            self.files.append(Upload(self._file_name, content))
        elif self._name in self._file_fields:
            raise self._refused(422, "got text, need a file: a part with a filename")
        else:
            self.fields.append((self._name, content.decode("utf-8", "replace")))

    def _all(self) -> None:
        self.ended = True


def clean_name(name: str, number: int) -> str:
    """A client's file name without folders and control characters; a word of ours where nothing is left.

    >>> clean_name("C:\\\\parts\\\\a.jpg", 0), clean_name("../../etc/passwd", 0), clean_name("", 2)
    ('a.jpg', 'passwd', 'picture-3')
    """
    last = _CONTROL.sub("", re.split(r"[/\\]", name)[-1]).strip()[:_NAME_LENGTH]
    return last if last.strip(".") else f"picture-{number + 1}"
