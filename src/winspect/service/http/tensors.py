"""Requests and answers of the Open Inference Protocol v2, with its binary tensor data extension.

Sources: the protocol (kserve/open-inference-protocol, inference_rest.md) and the extension (Triton Inference Server,
extension_binary_data.md): tensors may follow the JSON as bytes, little-endian, row by row, in the order of the tensors;
an element of BYTES is its length as uint32 and its bytes. The header Inference-Header-Content-Length tells where the
JSON ends.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from winspect.service.http.refusals import Refused

MODEL = "winspect"
ENCODED, PIXELS = "pictures", "pixels"
"""The two inputs, of which a request has one: BYTES [n] or [n, 1], files; UINT8 [n, height, width, 3] or
[height, width, 3]."""
DEFAULT_OUTPUTS = ("anomaly_score", "verdict", "p_value", "error")
MAP = "anomaly_map"
OUTPUTS = (*DEFAULT_OUTPUTS, "warning", MAP)
TEXTS = ("verdict", "error", "warning")
"""The outputs that are BYTES; the others are FP32."""
MAX_JSON_VALUES = 2**18
"""Reading more would stop the process, whichever thread does it. Base64 has none of the marks that are counted."""
HEADER_LENGTH = "Inference-Header-Content-Length"

_DATATYPES = {ENCODED: "BYTES", PIXELS: "UINT8"}
_PARAMETERS = {
    "class": (str, "text"),
    "threshold": (int | float, "a number"),
    "zero_shot": (bool, "true or false"),
    "timeout": (int, "whole microseconds"),
    "binary_data_output": (bool, "true or false"),
}


@dataclass(frozen=True)
class InferRequest:
    """A request, checked.

    Attributes:
        id: the caller's, to be told in the answer.
        pictures: a file's bytes, or uint8 (height, width, 3), each.
        parameters: ``class``, ``threshold``, ``zero_shot``, ``timeout`` (microseconds), as far as they were given.
        outputs: name -> whether it is wanted as binary data.
    """

    id: str | None
    pictures: list[bytes] | list[np.ndarray] = field(repr=False)
    parameters: dict[str, Any]
    outputs: dict[str, bool]


def parse(body: bytes, header_length: str | None, max_pictures: int) -> InferRequest:
    """Read a request.

    Args:
        header_length: of the header that tells where the JSON ends; None when it is all of the body.

    Raises:
        Refused: 400, what came is not what the protocol, or this model, wants; 413, too many pictures.
    """
    end = _json_length(body, header_length)
    values = sum(body.count(mark, 0, end) for mark in (b",", b"[", b"{"))
    if values > MAX_JSON_VALUES:
        raise Refused(
            413, f"the JSON has about {values} values, at most {MAX_JSON_VALUES} are read; send files, or binary data"
        )
    try:
        request = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        hint = "" if header_length is not None else f"; binary tensor data needs the header {HEADER_LENGTH}"
        raise Refused(400, f"the request is not JSON{hint}") from error
    request = _object("the request", request, ("id", "parameters", "inputs", "outputs"))
    parameters = _check_parameters(request.get("parameters", {}))
    wants_binary = parameters.pop("binary_data_output", False)
    identifier = request.get("id")
    if not isinstance(identifier, str | None):
        raise Refused(400, f"id: got {_shown(identifier)}, need text")
    outputs = _outputs(request.get("outputs"), wants_binary)
    pictures = _pictures(request.get("inputs"), memoryview(body)[end:], max_pictures)
    return InferRequest(identifier, pictures, parameters, outputs)


def _json_length(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    if not (header_length.isdecimal() and len(header_length) < 12 and int(header_length) <= len(body)):
        raise Refused(400, f"{HEADER_LENGTH}: got {header_length[:40]!r}, need 0 to {len(body)}, the body's length")
    return int(header_length)


def _object(what: str, value: object, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(400, f"{what}: got {_shown(value)}, need an object")
    if unknown := [name for name in value if name not in known]:
        raise Refused(400, f"{what}: got the unknown entry {unknown[0][:80]!r}; known are {', '.join(known)}")
    return value


def _check_parameters(value: object) -> dict[str, Any]:
    parameters = _object("parameters", value, tuple(_PARAMETERS))
    for name, given in parameters.items():
        kind, words = _PARAMETERS[name]
        is_right = isinstance(given, kind) and (kind is bool or not isinstance(given, bool))
        if not is_right or (isinstance(given, int | float) and not _is_finite(given)):
            raise Refused(400, f"parameter {name}: got {_shown(given)}, need {words}")
    return dict(parameters)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that is no float
        return False


def _outputs(value: object, wants_binary: bool) -> dict[str, bool]:
    if value is None or value == []:
        return dict.fromkeys(DEFAULT_OUTPUTS, wants_binary)
    outputs: dict[str, bool] = {}
    for entry in _list("outputs", value):
        output = _object("an output", entry, ("name", "parameters"))
        name = output.get("name")
        if name not in OUTPUTS:
            raise Refused(400, f"got the unknown output {_shown(name)}; known are {', '.join(OUTPUTS)}")
        options = _object(f"parameters of output {name}", output.get("parameters", {}), ("binary_data",))
        binary = options.get("binary_data", wants_binary)
        if not isinstance(binary, bool):
            raise Refused(400, f"output {name}: binary_data: got {_shown(binary)}, need true or false")
        outputs[name] = binary
    return outputs


def _list(what: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(400, f"{what}: got {_shown(value)}, need a list")
    return value


def _pictures(value: object, binary: memoryview, max_pictures: int) -> list[bytes] | list[np.ndarray]:
    inputs = _list("inputs", value)
    if len(inputs) != 1:
        raise Refused(400, f"got {len(inputs)} inputs, need one: {ENCODED} (BYTES) or {PIXELS} (UINT8)")
    tensor = _object("an input", inputs[0], ("name", "shape", "datatype", "parameters", "data"))
    name = tensor.get("name")
    if name not in (ENCODED, PIXELS):
        raise Refused(400, f"got the unknown input {_shown(name)}; known are {ENCODED} (BYTES) and {PIXELS} (UINT8)")
    if tensor.get("datatype") != _DATATYPES[name]:
        raise Refused(400, f"input {name}: got the datatype {_shown(tensor.get('datatype'))}, need {_DATATYPES[name]}")
    shape = _shape(name, tensor.get("shape"))
    if (count := 1 if len(shape) == 3 else shape[0]) > max_pictures:
        raise Refused(413, f"got {count} pictures, at most {max_pictures} in one request; send them in several")
    data = _data(name, tensor, binary)
    return _encoded(data, shape[0]) if name == ENCODED else _pixels(data, shape)


def _shape(name: str, value: object) -> list[int]:
    wanted = "[n] or [n, 1]" if name == ENCODED else "[n, height, width, 3] or [height, width, 3]"
    shape = _list(f"the shape of input {name}", value)
    is_right = all(type(length) is int and length > 0 for length in shape) and (
        len(shape) == 1 or shape[1:] == [1] if name == ENCODED else len(shape) in (3, 4) and shape[-1] == 3
    )
    if not is_right:
        raise Refused(400, f"input {name}: got the shape {_shown(shape)}, need {wanted}, no length below 1")
    return shape


def _data(name: str, tensor: Mapping[str, Any], binary: memoryview) -> memoryview | list[Any]:
    """The tensor's bytes, or its list of JSON."""
    options = _object(f"parameters of input {name}", tensor.get("parameters", {}), ("binary_data_size", "content_type"))
    if (content_type := options.get("content_type", "base64")) != "base64":
        raise Refused(400, f"input {name}: got the content_type {_shown(content_type)}; base64 alone is known")
    size = options.get("binary_data_size")
    if size is None:
        if len(binary):
            raise Refused(400, f"got {len(binary)} bytes behind the JSON, but no input has binary_data_size")
        if "data" not in tensor:
            raise Refused(400, f"input {name}: got no data, and no binary_data_size")
        return _list(f"the data of input {name}", tensor["data"])
    if "data" in tensor:
        raise Refused(400, f"input {name}: got both data and binary_data_size, need one of them")
    if type(size) is not int or size != len(binary):
        raise Refused(
            400, f"input {name}: binary_data_size is {_shown(size)}, but {len(binary)} bytes stand behind the JSON"
        )
    return binary


def _encoded(data: memoryview | list[Any], count: int) -> list[bytes]:
    if not isinstance(data, memoryview):  # JSON's lists may be nested as the shape [n, 1] is
        data = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
    pictures = _split(data) if isinstance(data, memoryview) else [_from_base64(text) for text in data]
    if len(pictures) != count:
        raise Refused(400, f"input {ENCODED}: got {len(pictures)} elements for the shape [{count}]")
    return pictures


def _split(data: memoryview) -> list[bytes]:
    elements, place = [], 0
    while place < len(data):
        length = struct.unpack_from("<I", data, place)[0] if place + 4 <= len(data) else len(data)
        place += 4
        if place + length > len(data):
            raise Refused(400, f"input {ENCODED}: the data ends within an element; need length (uint32) and bytes each")
        elements.append(bytes(data[place : place + length]))
        place += length
    return elements


def _from_base64(text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Refused(400, f"input {ENCODED}: got {_shown(text)}, need a file's bytes as base64, or as binary data")


def _pixels(data: memoryview | list[Any], shape: list[int]) -> list[np.ndarray]:
    if isinstance(data, memoryview):
        values = np.frombuffer(data, np.uint8)
    else:
        try:
            given = np.asarray(data)
        except (ValueError, OverflowError) as error:
            raise Refused(400, f"input {PIXELS}: the data is no array of numbers") from error
        if given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() > 255):
            raise Refused(400, f"input {PIXELS}: need whole numbers from 0 to 255")
        values = given.astype(np.uint8).reshape(-1)
    if values.size != math.prod(shape):
        raise Refused(400, f"input {PIXELS}: got {values.size} values for the shape {shape}, need {math.prod(shape)}")
    return list(values.reshape((-1, *shape[-3:])))


def _shown(value: object) -> str:
    """A caller's value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def render(identifier: str | None, tensors: Mapping[str, list[Any] | np.ndarray], outputs: Mapping[str, bool]) -> Reply:
    """The answer's body.

    Args:
        tensors: name -> texts, numbers with None for what is not there, or float32.
        outputs: name -> whether as binary data.
    """
    described, binary = [], []
    for name, is_binary in outputs.items():
        entry, values, data = _texts(tensors[name]) if name in TEXTS else _numbers(tensors[name])
        if is_binary:
            entry["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            entry["data"] = values()
        described.append({"name": name, **entry})
    answer = {"model_name": MODEL, **({} if identifier is None else {"id": identifier}), "outputs": described}
    header = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
    return Reply(b"".join((header, *binary)), len(header) if binary else None)


Rendered = tuple[dict[str, Any], Callable[[], list[Any]], bytes]
"""A tensor: datatype and shape; its values for JSON; its bytes."""


def _texts(texts: Any) -> Rendered:
    encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
    data = b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    return {"datatype": "BYTES", "shape": [len(texts)]}, lambda: texts, data


def _numbers(numbers: Any) -> Rendered:
    values = np.asarray(numbers, dtype="<f4")  # None becomes NaN

    def for_json() -> list[float | None]:  # which has no NaN
        return [None if math.isnan(value) else value for value in values.ravel().tolist()]

    return {"datatype": "FP32", "shape": list(values.shape)}, for_json, values.tobytes()


@dataclass(frozen=True)
class Reply:
    """A body. ``header_length`` is where its JSON ends and binary data begins; None when there is none."""

    body: bytes = field(repr=False)
    header_length: int | None
