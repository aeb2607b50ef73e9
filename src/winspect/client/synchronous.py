"""The client for programs without an event loop."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from itertools import count
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

from winspect.client import requests
from winspect.client.answers import Calibration, ClassInfo, Feedback, Rates, References, ReviewPicture, Row
from winspect.client.connecting import httpx, options_of, read, wait_after, wait_without
from winspect.client.errors import ClientError, NoAnswerError, RefusedError
from winspect.client.requests import Picture, Request
from winspect.system.retrying import Retries

Found = TypeVar("Found")


class Client:
    """Asks a service; use it in a with-block, or call :meth:`close`. Threads may share it.

    Args:
        url: of the service, ``http://HOST:PORT`` or ``https://HOST:PORT``.
        api_key: of its ``--api-key-file``; it is sent with every request.
        tls: a file of certificates (PEM) to trust, or an ``ssl.SSLContext``; None for the system's.
        timeout_s: for each answer. The service's own deadline is 30 s.
        retries: after 429, 503 and broken connections; see :class:`Retries`.
        transport: of httpx, for tests and proxies.

    Raises:
        SettingsError: a value that cannot be used.

    Every method raises :class:`RefusedError` where the service answers with an error, and :class:`NoAnswerError` where
    there is no answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        tls: str | PathLike[str] | ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        retries: Retries = Retries(),  # noqa: B008 (frozen)
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.retries = url.rstrip("/"), retries
        self._http = httpx.Client(**options_of(self.url, api_key, tls, timeout_s, transport))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- pictures

    def predict(self, picture: Picture, class_name: str | None = None, **options: Any) -> Row:
        """Inspect a picture.

        Args:
            picture: a file (str or path), its bytes, a name and bytes, a PIL image, or an array uint8 (height,
                width[, 3]), RGB.
            class_name: what the part is called; None for the service's default, object.
            options: ``threshold``, ``review_threshold``, ``overlay``, ``map``, ``boxes`` (``none``, ``anomalous``,
                ``all``), ``pixel_threshold``, ``min_area``, ``zero_shot``, ``deadline_ms``, as ``POST /v1/predict`` has
                them.

        Raises:
            RefusedError: 422 where the picture cannot be used.
        """
        (row,) = self._do(requests.predict([picture], class_name, options))
        return row

    def predict_many(
        self, pictures: Iterable[Picture], class_name: str | None = None, *, per_request: int = 8, **options: Any
    ) -> Iterator[Row]:
        """Inspect any number of pictures, a few per request; a row each, in order, as the answers come.

        A picture that cannot be used is a row with an ``error``; the others go on.

        Args:
            per_request: at most the service's ``--max-pictures``, 16.
            pictures, class_name, options: as of :meth:`predict`.
        """
        for group in requests.in_groups(pictures, per_request):
            try:
                rows = self._do(requests.predict(group, class_name, options))
            except RefusedError as error:
                rows = requests.one_row(group, class_name, error)
            yield from rows

    # -- good samples

    def set_references(self, class_name: str, pictures: Iterable[Picture], *, add: bool = False) -> ClassInfo:
        """Show good samples of a class, in place of those shown before, or beside them (``add``): few-shot from now."""
        return self._do(requests.set_references(class_name, pictures, add=add))

    def references(self, class_name: str) -> References:
        """The good samples of a class."""
        return self._do(requests.references(class_name))

    def delete_references(self, class_name: str, *, name: str | None = None, sha256: str | None = None) -> ClassInfo:
        """Forget the good samples of a class, or the one of a name or hash."""
        return self._do(requests.delete_references(class_name, name, sha256))

    # -- thresholds

    def calibrate(
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

        Args:
            max_false_alarms: the share of good pictures that may be flagged; 1/k needs k - 1 pictures.
            review: the share that may be ``review`` or ``anomalous``; None for two verdicts.
            within_s: to wait at most.

        Raises:
            ClientError: it failed; says why.
            NoAnswerError: it still runs after ``within_s``.
        """
        for group in requests.in_groups(pictures, per_request):
            self.add_good(class_name, group)
        until = time.monotonic() + within_s
        state = self.start_calibration(class_name, max_false_alarms=max_false_alarms, review=review)
        while state.state == "running":
            if time.monotonic() > until:
                raise NoAnswerError(f"the calibration of {class_name!r} still runs after {within_s:g} s")
            time.sleep(requests.POLL_S)
            state = self.calibration(class_name)
        if state.state != "ready":
            raise ClientError(f"the calibration of {class_name!r} is {state.state}: {state.message}")
        return state

    def add_good(self, class_name: str, pictures: Iterable[Picture]) -> int:
        """Store good pictures of a class to calibrate with; returns how many it has now. Copies count once."""
        return self._do(requests.add_good(class_name, pictures))

    def delete_good(self, class_name: str) -> ClassInfo:
        """Forget the good pictures of a class."""
        return self._do(requests.delete_good(class_name))

    def start_calibration(
        self, class_name: str, *, max_false_alarms: float = 0.01, review: float | None = None
    ) -> Calibration:
        """Calibrate a class on its stored good pictures, in the service's background."""
        return self._do(requests.start_calibration(class_name, max_false_alarms, review))

    def calibration(self, class_name: str) -> Calibration:
        """Where the calibration of a class stands."""
        return self._do(requests.calibration(class_name))

    def calibration_document(self, class_name: str) -> dict[str, Any]:
        """The calibration as the file of ``winspect calibrate``, for ``winspect predict --calibration``."""
        return self._do(requests.calibration_document(class_name))

    def delete_calibration(self, class_name: str) -> ClassInfo:
        """Drop the calibration of a class, or stop the one that runs."""
        return self._do(requests.delete_calibration(class_name))

    # -- feedback

    def feedback(
        self, id: str, answer: str, *, by: str | None = None, note: str | None = None, reference: bool = False
    ) -> Feedback:
        """Say of a picture what it was.

        Args:
            id: of its :class:`Row`.
            answer: ``good``, ``defective``, or ``undo`` for what was said of it.
            by: who says so. note: what else is to be written into the audit log.
            reference: a good picture becomes a good sample of its class, too.

        Raises:
            RefusedError: 404 for an unknown id, or a service that takes no feedback; 409 where the picture has an
                answer already, or none to undo.
        """
        return self._do(requests.feedback(id, answer, by, note, reference=reference))

    def review(self, class_name: str | None = None, *, most: int = 50) -> list[ReviewPicture]:
        """The pictures to look at, the most doubtful first, of a class or of all."""
        return self._do(requests.review(class_name, most))

    def judged(self, id: str) -> Feedback:
        """A judged picture and what was said of it."""
        return self._do(requests.judged(id))

    def review_picture(self, id: str) -> bytes:
        """The file of a judged picture, as it was sent; 422 where the service has it no more."""
        return self._do(requests.review_picture(id))

    def feedback_rates(self, class_name: str) -> Rates:
        """False alarms and defects found by the audit sample of a class."""
        return self._do(requests.feedback_rates(class_name))

    # -- drift

    def drift(self, class_name: str | None = None, *, newest: int = 0) -> list[dict[str, Any]]:
        """Has a line drifted, since when: a line per class, as ``GET /v1/drift`` has them."""
        return self._do(requests.drift("GET", class_name, newest))

    def reset_drift(self, class_name: str) -> list[dict[str, Any]]:
        """Watch a line anew, as after its lamp was replaced."""
        return self._do(requests.drift("DELETE", class_name, None))

    # -- the service

    def classes(self) -> list[ClassInfo]:
        """The classes that something is known of."""
        return self._do(requests.classes())

    def model(self) -> dict[str, Any]:
        """What inspects: model, weights, recipe, engine, precision, and ``score_range``."""
        return self._do(requests.model())

    def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server, by the Open Inference Protocol."""
        return self._do(requests.server())

    def is_live(self) -> bool:
        """Whether the service answers."""
        return self._is_well(requests.LIVE)

    def is_ready(self) -> bool:
        """Whether pictures are inspected: the model is loaded and warm."""
        return self._is_well(requests.READY)

    def wait_ready(self, within_s: float = 600.0) -> None:
        """Wait until pictures are inspected.

        Raises:
            NoAnswerError: they are not after ``within_s``.
        """
        until = time.monotonic() + within_s
        while not self.is_ready():
            if time.monotonic() > until:
                raise NoAnswerError(f"{self.url}: not ready after {within_s:g} s")
            time.sleep(requests.POLL_S)

    def _is_well(self, path: str) -> bool:
        try:
            return self._http.get(path).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _do(self, request: Request[Found]) -> Found:
        for tried in count(1):
            try:
                response = self._http.request(request.method, request.path, **request.arguments())
            except httpx.TransportError as error:
                wait_s: float | None = wait_without(request, self.retries, tried, error)
            else:
                wait_s = wait_after(self.retries, tried, response)
                if wait_s is None:
                    return read(request, response)
            time.sleep(wait_s or 0.0)
        raise AssertionError("unreachable")
