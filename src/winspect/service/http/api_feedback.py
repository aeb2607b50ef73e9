"""``/v1/feedback`` and ``/v1/review``: what operators say of judged pictures, and which they should look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from pydantic import Field
from starlette.responses import Response

from winspect.service.contract import UnknownClass, class_key
from winspect.service.http import openapi
from winspect.service.http.forms import read_form
from winspect.service.http.models import Answer, FeedbackForm
from winspect.service.http.refusals import Refused

if TYPE_CHECKING:
    from winspect.service.answering import ServiceFeedback
    from winspect.service.backend import Backend

_FORMS = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
_MOST = 1000
_TYPES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"))
_HEADERS = {"Content-Security-Policy": "default-src 'none'; sandbox"}

OneId = Annotated[str, Query(description="Of a row.", max_length=64)]


class JudgedPicture(Answer):
    """A picture as it was judged."""

    id: str
    time: str
    path: str = Field(description="The client's file name.")
    class_name: str
    sha256: str | None
    score: float | None
    verdict: str | None
    threshold: float | None
    p_value: float | None
    audit: bool = Field(description="Drawn by chance for the audit sample, whatever its score.")


class FeedbackAnswer(JudgedPicture):
    """A picture and what was said of it."""

    answer: Literal["good", "defective"] | None = Field(description="That stands; null: nobody has judged it.")
    by: str | None
    answered: str | None = Field(description="When.")
    disputed: bool = Field(description="Somebody else said the opposite: it counts as neither.")
    reference: bool = Field(description="It is a good sample of its class by feedback.")
    pooled: bool = Field(description="It is among the good pictures that its class is calibrated on.")


class ReviewPicture(JudgedPicture):
    """A picture of the review queue."""

    because: Literal["disputed", "review", "audit", "anomalous", "doubt"]
    doubt: float = Field(description="1 at the threshold, towards 0 far from it.")
    has_picture: bool = Field(description="`GET /v1/review/picture` has it.")


class ReviewAnswer(Answer):
    """The first pictures of the queue."""

    pictures: list[ReviewPicture]
    waiting: dict[str, int] = Field(description="Pictures without an answer, by why they are in the queue.")


class RatesAnswer(Answer):
    """What the audit sample of a class says: numbers of pictures."""

    class_name: str
    good: int = Field(description="Drawn and called good.")
    alarms: int = Field(description="Of these flagged.")
    defective: int = Field(description="Drawn and called defective.")
    found: int = Field(description="Of these flagged.")
    all_defective: int = Field(description="With those that were not drawn.")
    all_found: int
    pooled: int = Field(description="Good pictures of the audit sample that its class is calibrated on.")
    waits_for: str | None = Field(description="The drawn picture without an answer that holds back those behind it.")
    behind: int


def add_feedback(app: FastAPI, backend: Backend) -> None:
    """The endpoints of feedback."""
    tags: list[Any] = ["feedback"]

    def feedback() -> ServiceFeedback:
        if backend.feedback is None:
            raise UnknownClass("no feedback is taken here: start with `winspect serve --feedback`")
        return backend.feedback

    def key_of(category_name: str | None) -> str | None:
        if category_name is not None:
            backend.check_class(category_name)
        return None if category_name is None else class_key(category_name)

    @app.post(
        "/v1/feedback",
        tags=tags,
        summary="Say of a judged picture whether it was good or defective, or take that back",
        responses=openapi.errors(404, 409, 503, 507, body=True),
        openapi_extra=openapi.request_body(FeedbackForm, *_FORMS),
    )
    async def post_feedback(request: Request) -> FeedbackAnswer:
        taken = feedback()
        form: FeedbackForm = FeedbackForm.read(await read_form(request))
        if form.reference and form.answer != "good":
            raise Refused(422, f"reference: got it with the answer {form.answer}; only a good picture becomes one")
        if form.answer == "undo":
            await taken.undo(form.id, by=form.by)
        else:
            await taken.judge(form.id, form.answer, by=form.by, note=form.note, reference=form.reference)
        return FeedbackAnswer.model_validate(await taken.document(form.id))

    @app.get(
        "/v1/feedback", tags=tags, summary="A judged picture and what was said of it", responses=openapi.errors(404)
    )
    async def read_feedback(id: OneId) -> FeedbackAnswer:
        return FeedbackAnswer.model_validate(await feedback().document(id))

    @app.get(
        "/v1/feedback/rates",
        tags=tags,
        summary="False alarms and defects found by the audit sample of a class",
        responses=openapi.errors(404, 422),
    )
    async def rates(
        category_name: Annotated[str, Query(alias="class", description="What the part is called.")],
    ) -> RatesAnswer:
        key = key_of(category_name) or ""
        return RatesAnswer(class_name=key, **await feedback().rates(key))

    @app.get(
        "/v1/review",
        tags=tags,
        summary="The pictures to look at, the most doubtful first",
        responses=openapi.errors(404, 422),
    )
    async def review(
        category_name: Annotated[str | None, Query(alias="class", description="Only this class.")] = None,
        most: Annotated[int, Query(ge=1, le=_MOST, description="At most so many.")] = 50,
    ) -> ReviewAnswer:
        return ReviewAnswer.model_validate(await feedback().review(key_of(category_name), most))

    @app.get(
        "/v1/review/picture",
        tags=tags,
        summary="A picture of the queue, as it was sent",
        response_class=Response,
        responses={
            200: {"description": "The file.", "content": {"application/octet-stream": {}}},
            **openapi.errors(404, 422),
        },
    )
    async def review_picture(id: OneId) -> Response:
        content = await feedback().content(id)
        kind = next((kind for start, kind in _TYPES if content.startswith(start)), "application/octet-stream")
        return Response(content, media_type=kind, headers=_HEADERS)
