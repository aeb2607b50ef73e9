"""``/v1/drift``: has a line changed, since when, and the pictures that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import FastAPI, Query
from pydantic import Field

from winspect.service.contract import UnknownClass, class_key
from winspect.service.drifting import ServiceDrift
from winspect.service.http import openapi
from winspect.service.http.models import Answer

if TYPE_CHECKING:
    from winspect.service.backend import Backend

_MOST_NEWEST = 1000


class DriftPicture(Answer):
    """A picture of a line."""

    time: str
    path: str = Field(description="The client's file name.")
    id: str | None
    values: dict[str, float] = Field(description="What was watched of it, by statistic.")


class DriftAnswerAlarm(Answer):
    """What has moved, and since when."""

    statistic: str
    direction: Literal["rising", "falling"]
    since: DriftPicture | None = Field(description="The first picture of the change, estimated; null: forgotten.")
    noticed: DriftPicture | None = Field(description="The picture at which the alarm was given.")
    pictures_since: int
    pictures: list[DriftPicture] = Field(description="Those since then that lie farthest out, the farthest first.")


class DriftStatistic(Answer):
    """The evidence of a statistic."""

    log10_martingale: float = Field(description="Alarm from `log10_bound` on.")
    direction: Literal["rising", "falling"] = Field(description="Of the bet that has won most, or lost least.")
    values: int


class DriftLine(Answer):
    """A line: a class, since its model, good samples, calibration or product last changed."""

    line: str
    life: int = Field(description="How often it has begun anew, from 1.")
    began: str
    pictures: int
    rate: float = Field(description="Probability that a line without drift ever gives an alarm.")
    log10_bound: float
    statistics: dict[str, DriftStatistic]
    alarm: DriftAnswerAlarm | None
    newest: list[DriftPicture] = Field(default=[], description="The newest pictures, as many as were asked for.")


class DriftAnswer(Answer):
    """The lines."""

    lines: list[DriftLine]
    trouble: str | None = Field(description="Why the newest picture could not be taken into account.")


def add_drift(app: FastAPI, backend: Backend) -> None:
    """The endpoints of the drift alarm."""

    def drift() -> ServiceDrift:
        if backend.drift is None:
            raise UnknownClass("drift is not watched here: start with `winspect serve --drift 0.01`")
        return backend.drift

    @app.get(
        "/v1/drift",
        tags=["drift"],
        summary="Has a line drifted, since when, and the pictures that show it",
        responses=openapi.errors(404, 422, 503),
    )
    async def read_drift(
        category_name: Annotated[str | None, Query(alias="class", description="Only this class.")] = None,
        newest: Annotated[
            int, Query(ge=0, le=_MOST_NEWEST, description="So many of the newest pictures, for a chart.")
        ] = 0,
    ) -> DriftAnswer:
        line = None if category_name is None else class_key(category_name)
        documents = await drift().documents(line, newest=newest)
        lines = [DriftLine.model_validate(document) for document in documents]
        return DriftAnswer(lines=lines, trouble=drift().trouble)

    @app.delete(
        "/v1/drift",
        tags=["drift"],
        summary="Watch a line anew, as after its lamp was replaced; what was known of it is forgotten",
        responses=openapi.errors(403, 404, 422, 503, 507),
    )
    async def delete_drift(
        category_name: Annotated[str, Query(alias="class", description="What the part is called.")],
    ) -> DriftAnswer:
        await drift().reset(class_key(category_name))
        return await read_drift(category_name)
