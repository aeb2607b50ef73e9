"""Schemathesis makes requests from the service's own OpenAPI document: no answer is a 5xx, and each is as documented.

For longer than here: ``WINSPECT_FUZZ_EXAMPLES=2000``; on a service that runs: ``WINSPECT_FUZZ_URL=http://127.0.0.1:8080``.
"""

from __future__ import annotations

import base64
import os
import warnings
from types import SimpleNamespace

import pytest

from tests.service.asking import encoded, picture, settings
from tests.service.fake_backend import FakeBackend
from tests.service.live import Live

schemathesis = pytest.importorskip("schemathesis")
import hypothesis  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("WINSPECT_FUZZ_EXAMPLES", "8"))


def no_5xx(context, response, case):
    """504 is what a request asks for that names a deadline of microseconds; nothing else may be a 5xx."""
    names_a_deadline = any(word in repr(case.body) for word in ("deadline_ms", "timeout"))
    if not (response.status_code == 504 and names_a_deadline):
        not_a_server_error(context, response, case)


CHECKS = [no_5xx, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = {
    ("POST", "/v1/predict"),
    ("GET", "/v1/references"),
    ("POST", "/v1/references"),
    ("DELETE", "/v1/references"),
    ("GET", "/v1/classes"),
    ("GET", "/v1/model"),
    ("GET", "/v1/samples"),
    ("GET", "/v1/samples/{name}"),
    ("GET", "/v1/calibrations"),
    ("POST", "/v1/calibrations"),
    ("DELETE", "/v1/calibrations"),
    ("GET", "/v1/calibrations/document"),
    ("POST", "/v1/calibrations/pictures"),
    ("DELETE", "/v1/calibrations/pictures"),
    ("GET", "/v1/drift"),
    ("DELETE", "/v1/drift"),
    ("GET", "/v1/feedback"),
    ("POST", "/v1/feedback"),
    ("GET", "/v1/feedback/rates"),
    ("GET", "/v1/review"),
    ("GET", "/v1/review/picture"),
    ("GET", "/v2"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/ready"),
    ("POST", "/v2/models/{name}/infer"),
}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    if url := os.environ.get("WINSPECT_FUZZ_URL"):
        yield SimpleNamespace(url=url)
        return
    limits = settings(tmp_path_factory.mktemp("data"))
    with Live(FakeBackend(limits), limits) as live:
        yield live


@pytest.fixture(scope="module")
def operations(live):
    """What the document describes, by method and path. Files are sometimes pictures."""
    files = [encoded(picture(100)), encoded(picture(1, (9, 300)), "JPEG"), b"", b"\x89PNG\r\n\x1a\n"]
    schemathesis.openapi.format("binary", st.one_of(st.sampled_from(files), st.binary(max_size=200)))
    schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(file).decode() for file in files]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        return {(one.method.upper(), one.path): one for one in (found.ok() for found in schema.get_all_operations())}


def test_the_document_is_complete(operations):
    assert set(operations) == OPERATIONS


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("key", sorted(OPERATIONS), ids=" ".join)
def test_no_request_makes_the_service_fail(live, operations, key, mode):
    sent = 0

    @hypothesis.seed(20)
    @hypothesis.settings(
        max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(operations[key].as_strategy(generation_mode=mode))
    def ask(case):
        nonlocal sent
        sent += 1
        case.validate_response(case.call(base_url=live.url), checks=CHECKS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fuzzer's own
        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # an operation without parameters cannot be asked wrongly
            return
    assert sent


@pytest.mark.skipif("WINSPECT_FUZZ_URL" in os.environ, reason="it needs the fake's own mistake")
def test_a_failure_would_be_found(live, operations):
    live.do(setattr, live.backend, "error", RuntimeError("on purpose"))
    try:
        with pytest.raises(BaseException, match=r"[Ss]erver error"):
            test_no_request_makes_the_service_fail(live, operations, ("POST", "/v1/predict"), GenerationMode.POSITIVE)
    finally:
        live.do(setattr, live.backend, "error", None)
