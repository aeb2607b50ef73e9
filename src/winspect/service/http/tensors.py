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
from collections.abc import Mapping
from typing import Any

import numpy as np

from winspect.service.http.models import shown
from winspect.service.http.models_v2 import ENCODED, PIXELS, EncodedInput, InferRequest, PixelsInput
from winspect.service.http.refusals import Refused

MODEL = "winspect"
DEFAULT_OUTPUTS = ("anomaly_score", "verdict", "p_value", "error")
TEXTS = ("verdict", "error", "warning")
"""The outputs that are BYTES; the others are FP32."""
MAX_JSON_VALUES = 2**18
"""Reading more would stop the process, whichever thread does it. Base64 has none of the marks that are counted."""
HEADER_LENGTH = "Inference-Header-Content-Length"

Pictures = list[bytes] | list[np.ndarray]
"""A file's bytes, or uint8 (height, width, 3), each."""


def parse(body: bytes, header_length: str | None, max_pictures: int) -> tuple[InferRequest, Pictures]:
    """Read a request.

    Args:
        header_length: of the header that tells where the JSON ends; None when it is all of the body.

    Returns:
        The request, and its pictures.

    Raises:
        Refused: 400, the request is not as the protocol or this model needs it; 413, too many pictures or values.
    """
    end = _json_length(body, header_length)
    values = sum(body.count(mark, 0, end) for mark in (b",", b"[", b"{"))
    if values > MAX_JSON_VALUES:
        raise Refused(
            413, f"the JSON has about {values} values, at most {MAX_JSON_VALUES} are read; send files, or binary data"
        )
    try:
        content = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        hint = "" if header_length is not None else f"; binary tensor data needs the header {HEADER_LENGTH}"
        raise Refused(400, f"the request is not JSON{hint}") from error
    request: InferRequest = InferRequest.read(content, 400)
    return request, _pictures(request.inputs[0], memoryview(body)[end:], max_pictures)


def outputs_of(request: InferRequest) -> dict[str, bool]:
    """Names of the outputs asked for, and whether each is sent as binary data."""
    binary = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(DEFAULT_OUTPUTS, binary)
    asked = {output.name: output.parameters.binary_data for output in request.outputs}
    return {name: binary if chosen is None else chosen for name, chosen in asked.items()}


def _json_length(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    if not (header_length.isdecimal() and len(header_length) < 12 and int(header_length) <= len(body)):
        raise Refused(400, f"{HEADER_LENGTH}: got {header_length[:40]!r}, need 0 to {len(body)}, the body's length")
    return int(header_length)


def _pictures(tensor: EncodedInput | PixelsInput, binary: memoryview, max_pictures: int) -> Pictures:
    shape, is_encoded = tensor.shape, isinstance(tensor, EncodedInput)
    if not (shape[1:] in ([], [1]) if is_encoded else shape[-1] == 3):
        need = "[n] or [n, 1]" if is_encoded else "[n, height, width, 3] or [height, width, 3]"
        raise Refused(400, f"input {tensor.name}: got the shape {shown(shape)}, need {need}")
    if (count := 1 if len(shape) == 3 else shape[0]) > max_pictures:
        raise Refused(413, f"got {count} pictures, at most {max_pictures} in one request; send them in several")
    data = _data(tensor, binary)
    return _encoded(data, shape[0]) if is_encoded else _pixels(data, shape)


def _data(tensor: EncodedInput | PixelsInput, binary: memoryview) -> memoryview | list[Any]:
    """The tensor's bytes, or its list of JSON."""
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        got = "neither" if size is None else "both"
        raise Refused(400, f"input {tensor.name}: got {got} of data and binary_data_size, need one of them")
    if len(binary) != (size or 0):
        raise Refused(
            400, f"input {tensor.name}: binary_data_size is {size}, but {len(binary)} bytes stand behind the JSON"
        )
    return binary if tensor.data is None else tensor.data


def _encoded(data: memoryview | list[Any], count: int) -> list[bytes]:
    if isinstance(data, memoryview):
        pictures = _split(data)
    else:  # JSON's lists may be nested as the shape [n, 1] is
        flat = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
        pictures = [_from_base64(text) for text in flat]
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
    raise Refused(400, f"input {ENCODED}: got {shown(text)}, need a file's bytes as base64, or as binary data")


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


def render(
    identifier: str | None, tensors: Mapping[str, list[Any] | np.ndarray], outputs: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """An answer's body, and where its JSON ends and binary data begins; None when there is none.

    Args:
        tensors: name -> texts, numbers with None for what is not there, or float32.
        outputs: name -> whether as binary data.
    """
    described, binary = [], []
    for name, is_binary in outputs.items():
        is_text = name in TEXTS
        values: Any = tensors[name] if is_text else np.asarray(tensors[name], dtype="<f4")  # None becomes NaN
        entry: dict[str, Any] = {
            "name": name,
            "datatype": "BYTES" if is_text else "FP32",
            "shape": list(np.shape(values)),
        }
        if is_binary:
            binary.append(_joined(values) if is_text else values.tobytes())
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        elif is_text:
            entry["data"] = values
        else:  # JSON has no NaN
            entry["data"] = [None if math.isnan(value) else value for value in values.ravel().tolist()]
        described.append(entry)
    answer = {"model_name": MODEL, **({} if identifier is None else {"id": identifier}), "outputs": described}
    header = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
    return b"".join((header, *binary)), len(header) if binary else None


def _joined(texts: list[str]) -> bytes:
    encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
