"""Forms -> fields and files, in memory: Starlette's parser with its limits.

The guard has bounded the whole body, so that nothing need ever be spooled to a disk.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from winspect.service.contract import clean_name
from winspect.service.http.refusals import Refused

MAX_FIELD_BYTES = 4096
"""Largest text field."""
MAX_FIELDS = 32
FILE_FIELDS = ("pictures", "picture")

_EXTENDED_NAME = re.compile(rb';\s*filename\*\s*=\s*("[^"]*"|[^;]*)', re.IGNORECASE)


async def read_form(request: Request, *, max_files: int = 0) -> Any:
    """The fields of a multipart body; where no files are expected also of a URL-encoded one, or what JSON holds.

    Returns:
        Texts by name; the files of ``pictures`` and ``picture`` under ``pictures``, in their order: names, without
        folders and control characters, and contents.

    Raises:
        Refused: 400 for a damaged body, 413 for too many or too large parts, 415 for another type of body, 422 for a
            repeated field, or a file in place of text or text in place of a file.
    """
    header = request.headers.get("content-type", "")
    kind, options = parse_options_header(header)
    if kind == b"multipart/form-data" and options.get(b"boundary"):
        return await _read_multipart(request, max_files)
    if not max_files and kind == b"application/x-www-form-urlencoded":
        return _once(parse_qsl(await _text(request), keep_blank_values=True))
    if not max_files and kind == b"application/json":
        try:
            return json.loads(await _text(request))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is not JSON") from error
    example = ", as of curl -F class=NAME -F pictures=@FILE" if max_files else ", or application/json"
    expected = f"multipart/form-data with a boundary{example}"
    raise Refused(415, f"got a body of type {header[:80]!r}, need {expected}")


async def _text(request: Request) -> str:
    body = await request.body()
    if len(body) > MAX_FIELDS * MAX_FIELD_BYTES:
        raise Refused(413, f"got a body of {len(body)} bytes, at most {MAX_FIELDS * MAX_FIELD_BYTES} make sense here")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, "the body is not UTF-8 text") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise Refused(422, f"got the field {name[:80]!r} twice, need it once")
        fields[name] = value
    return fields


async def _read_multipart(request: Request, max_files: int) -> dict[str, Any]:
    limits = {"max_files": max_files, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    parser = _Parser(request.headers, request.stream(), **limits)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # a charset of the client's may fail
        message = getattr(error, "message", "its text cannot be read")
        raise Refused(413 if "aximum" in message else 400, f"part {parser.part} of the form: {message}") from error
    try:
        return await _sorted(form)
    finally:
        await form.close()


async def _sorted(form: FormData) -> dict[str, Any]:
    texts: list[tuple[str, Any]] = []
    files: list[tuple[str, bytes]] = []
    for part, (name, value) in enumerate(form.multi_items(), 1):
        is_file = isinstance(value, UploadFile)
        if is_file != (name in FILE_FIELDS):
            got = "a file" if is_file else "text, need a file: a part with a filename"
            message = f"part {part} of the form ({name[:80]!r}): got {got}"
            raise Refused(422, f"{message}; files are called {' or '.join(FILE_FIELDS)}")
        if isinstance(value, UploadFile):
            files.append((clean_name(value.filename or "", f"picture-{len(files) + 1}"), await value.read()))
        else:
            texts.append((name, value))
    return {**_once(texts), **({"pictures": files} if files else {})}


class _Parser(MultiPartParser):
    """Also notices a missing last boundary, which Starlette lets pass, and reads names in ``filename*``.

    Attributes:
        part: number of the part that is read, from 1.
        ended: whether the last boundary has come.
    """

    spool_max_size = sys.maxsize
    part, ended = 0, False

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int) -> None:
        super().__init__(headers, self._to_its_end(stream), **limits)

    async def _to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self.ended:
            raise MultiPartException("it is cut short, or the last boundary is missing")

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.part += 1

    def on_headers_finished(self) -> None:
        part = self._current_part
        part.content_disposition = _with_plain_name(part.content_disposition or b"")
        super().on_headers_finished()

    def on_end(self) -> None:
        self.ended = True


def _with_plain_name(disposition: bytes) -> bytes:
    """A Content-Disposition whose file name is in ``filename*`` alone (RFC 8187), as some clients send it, in plain."""
    found = _EXTENDED_NAME.search(disposition)
    if found is None or b"filename" in parse_options_header(disposition)[1]:
        return disposition
    try:
        charset, _, name = found[1].decode("ascii").strip(' "').split("'", 2)
        plain = unquote_to_bytes(name).decode(charset)
    except (LookupError, ValueError) as error:
        raise MultiPartException(
            f"its filename* is {found[1][:80].decode('utf-8', 'replace')!r}, need UTF-8''NAME, percent-encoded, or a "
            "plain filename"
        ) from error
    return disposition + b'; filename="' + plain.replace('"', "").encode("utf-8", "replace") + b'"'
