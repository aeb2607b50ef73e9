"""The client for programs with an event loop."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Iterable
from itertools import count
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

import anyio

from winspect.client import requests
from winspect.client.answers import Calibration, ClassInfo, Feedback, Rates, References, ReviewPicture, Row
from winspect.client.connecting import httpx, options_of, read, wait_after, wait_without
from winspect.client.errors import ClientError, NoAnswerError, RefusedError
from winspect.client.requests import Picture, Request
from winspect.system.retrying import Retries

Found = TypeVar("Found")


class AsyncClient:
    """Asks a service; use it in an async with-block, or call :meth:`close`. See :class:`Client`.

    Raises:
        SettingsError: a value that cannot be used.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        tls: str | PathLike[str] | ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        retries: Retries = Retries(),  # noqa: B008 (frozen)
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url, self.retries = url.rstrip("/"), retries
        self._http = httpx.AsyncClient(**options_of(self.url, api_key, tls, timeout_s, transport))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # -- pictures

    async def predict(self, picture: Picture, class_name: str | None = None, **options: Any) -> Row:
        """Inspect a picture. See :meth:`Client.predict`."""
        (row,) = await self._do(requests.predict([picture], class_name, options))
        return row

    async def predict_many(
        self, pictures: Iterable[Picture], class_name: str | None = None, *, per_request: int = 8, **options: Any
    ) -> AsyncIterator[Row]:
        """Inspect any number of pictures, a few per request; a row each, in order. See :meth:`Client.predict_many`."""
        for group in requests.in_groups(pictures, per_request):
            try:
                rows = await self._do(requests.predict(group, class_name, options))
            except RefusedError as error:
                rows = requests.one_row(group, class_name, error)
            for row in rows:
                yield row

    # -- good samples

    async def set_references(self, class_name: str, pictures: Iterable[Picture], *, add: bool = False) -> ClassInfo:
        """Show good samples of a class, in place of those shown before, or beside them (``add``): few-shot from now."""
        return await self._do(requests.set_references(class_name, pictures, add=add))

    async def references(self, class_name: str) -> References:
        """The good samples of a class."""
        return await self._do(requests.references(class_name))

    async def delete_references(
        self, class_name: str, *, name: str | None = None, sha256: str | None = None
    ) -> ClassInfo:
        """Forget the good samples of a class, or the one of a name or hash."""
        return await self._do(requests.delete_references(class_name, name, sha256))

    # -- thresholds

    async def calibrate(
        self,
        class_name: str,
        pictures: Iterable[Picture] = (),
        *,
        max_false_alarms: float = 0.01,
        review: float | None = None,
        per_request: int = 8,
        within_s: float = 600.0,
    ) -> Calibration:
        """Store good pictures of a class, calibrate on all that are stored, and wait for the threshold.

        See :meth:`Client.calibrate`.
        """
        for group in requests.in_groups(pictures, per_request):
            await self.add_good(class_name, group)
        until = time.monotonic() + within_s
        state = await self.start_calibration(class_name, max_false_alarms=max_false_alarms, review=review)
        while state.state == "running":
            if time.monotonic() > until:
                raise NoAnswerError(f"the calibration of {class_name!r} still runs after {within_s:g} s")
            await anyio.sleep(requests.POLL_S)
            state = await self.calibration(class_name)
        if state.state != "ready":
            raise ClientError(f"the calibration of {class_name!r} is {state.state}: {state.message}")
        return state

    async def add_good(self, class_name: str, pictures: Iterable[Picture]) -> int:
        """Store good pictures of a class to calibrate with; returns how many it has now. Copies count once."""
        return await self._do(requests.add_good(class_name, pictures))

    async def delete_good(self, class_name: str) -> ClassInfo:
        """Forget the good pictures of a class."""
        return await self._do(requests.delete_good(class_name))

    async def start_calibration(
        self, class_name: str, *, max_false_alarms: float = 0.01, review: float | None = None
    ) -> Calibration:
        """Calibrate a class on its stored good pictures, in the service's background."""
        return await self._do(requests.start_calibration(class_name, max_false_alarms, review))

    async def calibration(self, class_name: str) -> Calibration:
        """Where the calibration of a class stands."""
        return await self._do(requests.calibration(class_name))

    async def calibration_document(self, class_name: str) -> dict[str, Any]:
        """The calibration as the file of ``winspect calibrate``, for ``winspect predict --calibration``."""
        return await self._do(requests.calibration_document(class_name))

    async def delete_calibration(self, class_name: str) -> ClassInfo:
        """Drop the calibration of a class, or stop the one that runs."""
        return await self._do(requests.delete_calibration(class_name))

    # -- feedback

    async def feedback(
        self, id: str, answer: str, *, by: str | None = None, note: str | None = None, reference: bool = False
    ) -> Feedback:
        """Say of a picture what it was. See :meth:`Client.feedback`."""
        return await self._do(requests.feedback(id, answer, by, note, reference=reference))

    async def review(self, class_name: str | None = None, *, most: int = 50) -> list[ReviewPicture]:
        """The pictures to look at, the most doubtful first, of a class or of all."""
        return await self._do(requests.review(class_name, most))

    async def judged(self, id: str) -> Feedback:
        """A judged picture and what was said of it."""
        return await self._do(requests.judged(id))

    async def review_picture(self, id: str) -> bytes:
        """The file of a judged picture, as it was sent; 422 where the service has it no more."""
        return await self._do(requests.review_picture(id))

    async def feedback_rates(self, class_name: str) -> Rates:
        """False alarms and defects found by the audit sample of a class."""
        return await self._do(requests.feedback_rates(class_name))

    # -- drift

    async def drift(self, class_name: str | None = None, *, newest: int = 0) -> list[dict[str, Any]]:
        """Has a line drifted, since when: a line per class, as ``GET /v1/drift`` has them."""
        return await self._do(requests.drift("GET", class_name, newest))

    async def reset_drift(self, class_name: str) -> list[dict[str, Any]]:
        """Watch a line anew, as after its lamp was replaced."""
        return await self._do(requests.drift("DELETE", class_name, None))

    # -- the service

    async def classes(self) -> list[ClassInfo]:
        """The classes that something is known of."""
        return await self._do(requests.classes())

    async def model(self) -> dict[str, Any]:
        """What inspects: model, weights, recipe, engine, precision, and ``score_range``."""
        return await self._do(requests.model())

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server, by the Open Inference Protocol."""
        return await self._do(requests.server())

    async def is_live(self) -> bool:
        """Whether the service answers."""
        return await self._is_well(requests.LIVE)

    async def is_ready(self) -> bool:
        """Whether pictures are inspected: the model is loaded and warm."""
        return await self._is_well(requests.READY)

    async def wait_ready(self, within_s: float = 600.0) -> None:
        """Wait until pictures are inspected. See :meth:`Client.wait_ready`."""
        until = time.monotonic() + within_s
        while not await self.is_ready():
            if time.monotonic() > until:
                raise NoAnswerError(f"{self.url}: not ready after {within_s:g} s")
            await anyio.sleep(requests.POLL_S)

    async def _is_well(self, path: str) -> bool:
        try:
            return (await self._http.get(path)).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def _do(self, request: Request[Found]) -> Found:
        for tried in count(1):
            try:
                response = await self._http.request(request.method, request.path, **request.arguments())
            except httpx.TransportError as error:
                wait_s: float | None = wait_without(request, self.retries, tried, error)
            else:
                wait_s = wait_after(self.retries, tried, response)
                if wait_s is None:
                    return read(request, response)
            await anyio.sleep(wait_s or 0.0)
        raise AssertionError("unreachable")
