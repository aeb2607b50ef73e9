"""Bodies of requests and answers. They check what comes in, and the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError, WithJsonSchema

from winspect.service.contract import CalibrationState, ClassInfo
from winspect.service.http.refusals import Refused

ClassField = Annotated[
    str,
    Field(
        description="What the part is called, in words, as in `metal nut`.",
        json_schema_extra={"minLength": 1, "maxLength": 100, "example": "candle"},
    ),
]
DEFAULT_CLASS = "object"
_LONGEST_VALUE = 80


def _key(name: str) -> str:
    """A field's key in JSON."""
    return "class" if name == "class_name" else name


class Body(BaseModel):
    """A request's body: numbers are finite, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, alias_generator=_key)

    @classmethod
    def read(cls, content: object, status: int = 422) -> Any:
        """The checked body.

        Raises:
            Refused: ``status``; names the field, what came and what is needed.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        *_, field_name = place = first["loc"] or ("the request",)
        if first["type"] == "missing":
            raise Refused(status, f"got no field {field_name!r}; it is needed")
        if first["type"] == "extra_forbidden":
            names = (field.alias or name for name, field in cls.model_fields.items())
            known = f"; known are {', '.join(names)}" if len(place) == 1 else ""
            raise Refused(status, f"got the unknown field {str(field_name)[:_LONGEST_VALUE]!r}{known}")
        if first["type"] == "union_tag_invalid":
            name, known = shown(first["ctx"]["tag"]), first["ctx"]["expected_tags"]
            raise Refused(status, f"got {name} among the {place[0]}; known are {known}")
        message = first["msg"][0].lower() + first["msg"][1:]
        raise Refused(status, f"{'.'.join(map(str, place))}: got {shown(first['input'])}: {message}")


def shown(value: object) -> str:
    """A caller's value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


# -- forms of /v1

Pictures = Annotated[
    list[Any],
    SkipValidation,
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "JPEG, PNG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 files.",
        }
    ),
]
"""Each a name and a file's bytes."""


class PredictForm(Body):
    """Fields of ``POST /v1/predict``."""

    pictures: Pictures
    class_name: ClassField = DEFAULT_CLASS
    overlay: bool = Field(default=False, description="Also the heat map over the picture, as PNG.")
    map: bool = Field(default=False, description="Also the anomaly map, of at most a megapixel.")
    threshold: float | None = Field(default=None, description="Scores from here on are anomalous.")
    review_threshold: float | None = Field(
        default=None, description="Beside `threshold`, and below it: scores from here on are `review`."
    )
    boxes: Literal["none", "anomalous", "all"] | None = Field(
        default=None,
        description="Which pictures get boxes of defects; all: also normal ones. Without it anomalous, where the class "
        "has a calibration. none is less work.",
    )
    pixel_threshold: float | None = Field(default=None, description="A defect has a map value above this.")
    min_area: float | None = Field(default=None, ge=0, description="Smaller regions, in pixels, are none.")
    zero_shot: bool = Field(
        default=False, description="Inspect without the class' good samples; 422 where the recipe needs them."
    )
    deadline_ms: float | None = Field(default=None, gt=0, description="Answer by then, or not at all.")


class PicturesForm(Body):
    """Pictures of a class."""

    pictures: Pictures
    class_name: ClassField


class ReferencesForm(PicturesForm):
    """Fields of ``POST /v1/references``."""

    add: bool = Field(default=False, description="Beside those shown before, not in place.")


class CalibrationForm(Body):
    """Fields of ``POST /v1/calibrations``."""

    class_name: ClassField
    max_false_alarms: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="The share of good pictures that may be flagged; 1/k needs k - 1 pictures.",
    )
    review: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The share of good pictures that may be `review` or `anomalous`, above `max_false_alarms`; without "
        "it there are two verdicts.",
    )
    force: bool = Field(
        default=False, description="Also where good pictures of the audit sample contradict what the others promise."
    )


class FeedbackForm(Body):
    """Fields of ``POST /v1/feedback``."""

    id: str = Field(description="Of a row.", max_length=64)
    answer: Literal["good", "defective", "undo"] = Field(description="What it was; undo takes back what was said.")
    by: str | None = Field(default=None, max_length=100, description="Who says so; it is written down, not proven.")
    note: str | None = Field(default=None, max_length=1000, description="Written into the audit log, too.")
    reference: bool = Field(
        default=False,
        description="With good: the picture becomes a good sample of its class, which is calibrated again.",
    )


# -- answers of /v1


class Answer(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True, extra="forbid", alias_generator=_key)


class ErrorBody(Answer):
    """Type and message of an error."""

    type: str
    message: str


class ErrorAnswer(Answer):
    """An error."""

    error: ErrorBody


class MapAnswer(Answer):
    """The anomaly map: float32, little-endian, base64, row by row."""

    shape: list[int] = Field(description="Height and width.")
    dtype: Literal["float32"]
    data: str
    range: list[float] = Field(
        description="The values at which colours begin and are strongest: by the calibration, by the good samples, or "
        "0 and 1; for scores of another range by the map itself."
    )


class ProductAnswer(Answer):
    """A product."""

    name: str
    revision: int = Field(description="It rises with each recorded change.")


class Row(Answer):
    """A picture's row."""

    path: str = Field(description="The client's file name.")
    id: str = Field(description="By which `POST /v1/feedback` refers to it.")
    class_name: str
    anomaly_score: float | None = Field(
        ge=0, description="More is more anomalous; `score_range` of `GET /v1/model` says its range."
    )
    verdict: Literal["normal", "review", "anomalous"] | None = Field(
        description="null without a threshold; `review` only where a rate or a threshold of review was given."
    )
    threshold: float | None
    review_threshold: float | None = Field(default=None, description="Where review begins; null for two verdicts.")
    reason: str | None = Field(
        default=None,
        description="Why, where there is a verdict `review` or rules: `region 2: area 14 mm2 > 5`.",
    )
    p_value: float | None = Field(description="null without a calibration; small is anomalous.")
    boxes: list[Annotated[list[int], Field(min_length=4, max_length=4)]] | None = Field(
        description="Defects as x0, y0, x1, y1 in pixels, the last two exclusive; null where none were looked for."
    )
    error: ErrorBody | None
    warning: str | None = Field(description="What is suspicious about the picture: damaged, black, ...")
    product: ProductAnswer | None = Field(
        default=None,
        description="Whose verdict this is; null without a product, and where its good samples, calibration or "
        "threshold were changed here.",
    )
    parts: dict[str, float] | None = Field(
        default=None, description="Scores that were combined into `anomaly_score`, by recipe; null for most recipes."
    )
    size: list[int] | None = Field(description="Width and height, pixels.")
    shots: int | None = Field(description="Good samples it was compared with; 0 is zero-shot.")
    map: MapAnswer | None = Field(description="The anomaly map, when asked for.")
    overlay_png: str | None = Field(default=None, description="When asked for: PNG, base64.")


class Predictions(Answer):
    """The rows of a request."""

    results: list[Row] = Field(description="In the order of the pictures.")


class Calibration(Answer):
    """State of a calibration."""

    state: Literal["none", "running", "ready", "stale", "failed"]
    message: str | None = Field(description="Why it is stale, or has failed.")
    max_false_alarms: float | None
    done: int = Field(description="Pictures scored of `total`, while it runs.")
    total: int
    threshold: float | None
    pictures: int | None = Field(description="How many it was made from.")
    date: str | None
    review: float | None = Field(default=None, description="The rate of pictures to review; null for two verdicts.")
    review_threshold: float | None = None


class CalibrationAnswer(Calibration):
    """State of the calibration of a class."""

    class_name: str

    @classmethod
    def of(cls, class_name: str, state: CalibrationState) -> CalibrationAnswer:
        """The calibration of a class."""
        return cls(class_name=class_name, **Calibration.model_validate(state).model_dump())


class ClassAnswer(Answer):
    """Good samples, good pictures and calibration of a class."""

    class_name: str
    shots: int = Field(description="Good samples it is compared with; 0 is zero-shot.")
    good_pictures: int = Field(description="Stored to calibrate with.")
    calibration: Calibration | None

    @classmethod
    def of(cls, info: ClassInfo) -> ClassAnswer:
        """A class as the backend knows it."""
        state = None if info.calibration.state == "none" else Calibration.model_validate(info.calibration)
        return cls(class_name=info.category_name, shots=info.shots, good_pictures=info.good_pictures, calibration=state)


class ClassesAnswer(Answer):
    """The classes that something is known of."""

    classes: list[ClassAnswer]


class Reference(Answer):
    """A good sample."""

    name: str
    sha256: str
    size: int = Field(description="Bytes.")


class ReferencesAnswer(Answer):
    """The good samples of a class."""

    class_name: str
    references: list[Reference]


class GoodPicturesAnswer(Answer):
    """How many good pictures a class has."""

    class_name: str
    good_pictures: int


class Sample(Answer):
    """A picture to try."""

    name: str
    class_name: str
    kind: Literal["good", "defective"]


class SamplesAnswer(Answer):
    """The pictures to try."""

    samples: list[Sample]
