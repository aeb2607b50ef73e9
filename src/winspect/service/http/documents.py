"""What the OpenAPI document says beyond what FastAPI finds out by itself: bodies that are read by hand, and errors."""

from __future__ import annotations

from typing import Any

ERROR_V1 = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
ERROR_V2 = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}

_WORDS = {
    400: "The body is damaged.",
    401: "The service wants an API key.",
    403: "A browser sent this from a page of another site.",
    404: "Unknown class, or there is nothing of what is asked for.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pictures or fields.",
    415: "Another type of body, or a compressed one.",
    422: "A field, a class name or a picture that cannot be used.",
    429: "Overload: ask again after Retry-After seconds.",
    500: "A mistake of the service; it is in its log.",
    503: "Loading, restarting or ending: ask again after Retry-After seconds.",
    504: "The deadline passed.",
    507: "The service's disk is full; nothing was changed.",
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
_ANY = (401, 500)
_BODY = (400, 403, 408, 413, 415, 422, 429)


def errors(*statuses: int, body: bool = False, v2: bool = False) -> dict[int | str, dict[str, Any]]:
    """The error answers of an endpoint; those that any endpoint, or any with a body, may give come by themselves."""
    schema = ERROR_V2 if v2 else ERROR_V1
    described: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *_ANY, *(_BODY if body else ())}):
        described[status] = {"description": _WORDS[status], "content": {"application/json": {"schema": schema}}}
        if status in (429, 503):
            described[status]["headers"] = _RETRY_AFTER
    return described


def json_answer(description: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The answer of success."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}}


CLASS = {
    "type": "string",
    "minLength": 1,
    "maxLength": 100,
    "description": "What the part is called, in words, as in `metal nut`.",
    "example": "candle",
}
_PICTURES = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "format": "binary"},
    "description": "JPEG, PNG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 files.",
}


def multipart(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """A multipart body, as ``openapi_extra``. The field ``pictures`` holds files."""
    properties = {**properties, **({"pictures": _PICTURES} if "pictures" in required else {})}
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    content: dict[str, Any] = {"multipart/form-data": {"schema": schema}}
    if "pictures" not in required:
        content["application/json"] = content["application/x-www-form-urlencoded"] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


_NUMBER_OR_NULL = {"type": ["number", "null"]}
_TEXT_OR_NULL = {"type": ["string", "null"]}
ROW = {
    "type": "object",
    "required": [
        *(
            "path",
            "class",
            "anomaly_score",
            "verdict",
            "threshold",
            "p_value",
            "boxes",
            "error",
            "warning",
            "size",
            "shots",
        ),
        "map",
    ],
    "properties": {
        "path": {"type": "string", "description": "The client's file name."},
        "class": {"type": "string"},
        "anomaly_score": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "description": "1 is most anomalous.",
        },
        "verdict": {"enum": ["normal", "anomalous", None], "description": "null without a threshold."},
        "threshold": _NUMBER_OR_NULL,
        "p_value": {**_NUMBER_OR_NULL, "description": "null without a calibration; small is anomalous."},
        "boxes": {
            "type": ["array", "null"],
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
            "description": "Defects as x0, y0, x1, y1 in pixels, the last two exclusive; null where none were looked "
            "for.",
        },
        "error": {"anyOf": [ERROR_V1["properties"]["error"], {"type": "null"}]},  # type: ignore[index]
        "warning": {**_TEXT_OR_NULL, "description": "What is suspicious about the picture: damaged, black, ..."},
        "size": {"type": ["array", "null"], "items": {"type": "integer"}, "description": "Width and height, pixels."},
        "shots": {"type": ["integer", "null"], "description": "Good samples it was compared with; 0 is zero-shot."},
        "map": {
            "type": ["object", "null"],
            "description": "The anomaly map, when asked for: float32, little-endian, base64, row by row.",
            "properties": {
                "shape": {"type": "array", "items": {"type": "integer"}, "description": "Height and width."},
                "dtype": {"const": "float32"},
                "data": {"type": "string"},
                "range": {
                    "type": "array",
                    "items": {"type": "number"},
                    "description": "The values at which colours begin and are strongest: by the calibration, by the "
                    "good samples, or 0 and 1.",
                },
            },
        },
        "overlay_png": {**_TEXT_OR_NULL, "description": "When asked for: PNG, base64."},
    },
}
PREDICTIONS = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": {"type": "array", "items": ROW, "description": "In the order of the pictures."}},
}
_CALIBRATION = {
    "type": "object",
    "required": ["state", "message", "max_false_alarms", "done", "total", "threshold", "pictures", "date"],
    "properties": {
        "state": {"enum": ["none", "running", "ready", "stale", "failed"]},
        "message": {**_TEXT_OR_NULL, "description": "Why it is stale, or has failed."},
        "max_false_alarms": _NUMBER_OR_NULL,
        "done": {"type": "integer", "description": "Pictures judged of `total`, while it runs."},
        "total": {"type": "integer"},
        "threshold": _NUMBER_OR_NULL,
        "pictures": {"type": ["integer", "null"], "description": "How many it was made from."},
        "date": _TEXT_OR_NULL,
    },
}
CALIBRATION = {
    **_CALIBRATION,
    "required": ["class", *_CALIBRATION["required"]],
    "properties": {"class": {"type": "string"}, **_CALIBRATION["properties"]},  # type: ignore[dict-item]
}
CLASS_INFO = {
    "type": "object",
    "required": ["class", "shots", "good_pictures", "calibration"],
    "properties": {
        "class": {"type": "string"},
        "shots": {"type": "integer", "description": "Good samples it is judged with; 0 is zero-shot."},
        "good_pictures": {"type": "integer", "description": "Stored to calibrate with."},
        "calibration": {"anyOf": [_CALIBRATION, {"type": "null"}]},
    },
}
CLASSES = {
    "type": "object",
    "required": ["classes"],
    "properties": {"classes": {"type": "array", "items": CLASS_INFO}},
}
REFERENCES = {
    "type": "object",
    "required": ["class", "references"],
    "properties": {
        "class": {"type": "string"},
        "references": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "sha256", "size"],
                "properties": {
                    "name": {"type": "string"},
                    "sha256": {"type": "string"},
                    "size": {"type": "integer", "description": "Bytes."},
                },
            },
        },
    },
}
GOOD_PICTURES = {
    "type": "object",
    "required": ["class", "good_pictures"],
    "properties": {"class": {"type": "string"}, "good_pictures": {"type": "integer"}},
}

_PARAMETERS = {"type": "object", "additionalProperties": True}
_NAMES = {"name": {"type": "string"}, "datatype": {"type": "string"}}
_SHAPE = {"type": "array", "items": {"type": "integer"}}
TENSOR = {"type": "object", "required": ["name", "datatype", "shape"], "properties": {**_NAMES, "shape": _SHAPE}}
MODEL_V2 = {
    "type": "object",
    "required": ["name", "platform", "inputs", "outputs"],
    "properties": {
        "name": {"type": "string"},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": TENSOR},
        "outputs": {"type": "array", "items": TENSOR},
    },
}
_LENGTH = {"type": "integer", "minimum": 1}
_ENCODED_INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"const": "pictures"},
        "datatype": {"const": "BYTES"},
        "shape": {"type": "array", "items": _LENGTH, "minItems": 1, "maxItems": 1, "example": [1]},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
        "data": {"type": "array", "items": {"type": "string", "format": "byte"}, "description": "Files, as base64."},
    },
}
_PIXELS_INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"const": "pixels"},
        "datatype": {"const": "UINT8"},
        "shape": {"type": "array", "items": _LENGTH, "minItems": 3, "maxItems": 4, "example": [480, 640, 3]},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
        "data": {"type": "array", "items": {}, "description": "0 to 255, flat or nested."},
    },
}
INFER_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "class": CLASS,
                "threshold": {"type": "number"},
                "zero_shot": {"type": "boolean"},
                "timeout": {"type": "integer", "minimum": 1, "description": "Microseconds."},
                "binary_data_output": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {"anyOf": [_ENCODED_INPUT, _PIXELS_INPUT]},
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"enum": ["anomaly_score", "verdict", "p_value", "anomaly_map", "error", "warning"]},
                    "parameters": _PARAMETERS,
                },
            },
        },
    },
}
INFER_RESPONSE = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {**_NAMES, "shape": _SHAPE, "parameters": _PARAMETERS, "data": {"type": "array"}},
            },
        },
    },
}
