"""Bodies of the Open Inference Protocol v2: requests, checked, and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from winspect.service.http.models import DEFAULT_CLASS, Answer, Body, ClassField

ENCODED, PIXELS = "pictures", "pixels"
"""The two inputs, of which a request has one: BYTES [n] or [n, 1], files; UINT8 [n, height, width, 3] or
[height, width, 3]."""
MAP = "anomaly_map"
OutputName = Literal["anomaly_score", "verdict", "p_value", "error", "warning", "anomaly_map"]
Length = Annotated[int, Field(ge=1)]


class StrictBody(Body):
    """A part of a request whose values have their JSON types."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class InputParameters(StrictBody):
    """How an input's data comes."""

    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes behind the JSON, in place of `data`.")
    content_type: Literal["base64"] = "base64"


class InputTensor(StrictBody):
    """An input."""

    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class EncodedInput(InputTensor):
    """Files; in `data` as base64."""

    name: Literal["pictures"]
    datatype: Literal["BYTES"]
    shape: list[Length] = Field(min_length=1, max_length=2, examples=[[1]], description="[n] or [n, 1].")
    data: list[Annotated[Any, WithJsonSchema({"type": "string", "format": "byte"})]] | None = None


class PixelsInput(InputTensor):
    """Pixels, RGB, 0 to 255; `data` is flat or nested."""

    name: Literal["pixels"]
    datatype: Literal["UINT8"]
    shape: list[Length] = Field(
        min_length=3, max_length=4, examples=[[480, 640, 3]], description="[n, height, width, 3] or [height, width, 3]."
    )


class InferParameters(StrictBody):
    """Parameters of a request."""

    class_name: ClassField = DEFAULT_CLASS
    threshold: float | None = None
    zero_shot: bool = False
    timeout: int | None = Field(default=None, le=2**53, description="Microseconds.", json_schema_extra={"minimum": 1})
    binary_data_output: bool = False


class OutputParameters(StrictBody):
    """How an output is sent."""

    binary_data: bool | None = None


class RequestedOutput(StrictBody):
    """An output that is asked for."""

    name: OutputName
    parameters: OutputParameters = OutputParameters()


class InferRequest(StrictBody):
    """``POST /v2/models/winspect/infer``: a row per picture in every tensor."""

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: list[Annotated[EncodedInput | PixelsInput, Field(discriminator="name")]] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = None


class TensorMetadata(Answer):
    """A tensor of the model."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Answer):
    """The model's tensors."""

    name: str
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(TensorMetadata):
    """An output; with binary data its bytes follow the JSON."""

    parameters: dict[str, Any] = Field(default={})
    data: list[Any] = Field(default=[])


class InferAnswer(Answer):
    """The outputs of a request."""

    model_name: str
    id: str = ""
    outputs: list[OutputTensor]


class MessageAnswer(Answer):
    """An error under ``/v2``."""

    error: str


class ServerMetadata(Answer):
    """The server, and what it speaks."""

    name: str
    version: str
    extensions: list[str]
