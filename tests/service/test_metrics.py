"""What Prometheus reads, taken apart by Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.asking import Service, encoded, picture

GOOD = encoded(picture(100))


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


def families(service):
    answer = service.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def test_every_metric_is_there_from_the_start_with_its_type(service):
    kinds = {name: family.type for name, family in families(service).items()}
    expected = {
        "winspect_requests": "counter",
        "winspect_pictures": "counter",
        "winspect_executions": "counter",
        "winspect_execution_errors": "counter",
        "winspect_rejects": "counter",
        "winspect_queue_seconds": "histogram",
        "winspect_compute_seconds": "histogram",
        "winspect_request_seconds": "histogram",
        "winspect_batch_size": "histogram",
        "winspect_queue_length": "gauge",
        "winspect_pictures_in_flight": "gauge",
        "winspect_ready": "gauge",
        "winspect_model_restarts": "gauge",
    }
    assert expected.items() <= kinds.items()


def test_a_request_is_counted_where_it_belongs(service):
    files = [("pictures", ("a.png", GOOD)), ("pictures", ("b.png", GOOD)), ("pictures", ("c.png", b"x"))]
    service.post("/v1/predict", files=files, data={"threshold": "0.3"})
    service.predict(b"x")
    assert service.metric("winspect_requests_total", endpoint="/v1/predict", status="200") == 1
    assert service.metric("winspect_requests_total", endpoint="/v1/predict", status="422") == 1
    assert service.metric("winspect_pictures_total", outcome="anomalous") == 2
    assert service.metric("winspect_pictures_total", outcome="failed") == 2
    assert service.metric("winspect_queue_seconds_count") == 2
    assert service.metric("winspect_executions_total") == 2
    assert service.metric("winspect_request_seconds_count", endpoint="/v1/predict") == 2
    assert 0 < service.metric("winspect_request_seconds_sum", endpoint="/v1/predict") < 10


def test_an_execution_is_counted_by_its_batch(service):
    for record in ((4, 0.2, None), (6, 0.3, None), (1, 1.0, "RuntimeError")):
        service.backend.batcher.on_batch(*record)
    assert service.metric("winspect_executions_total") == 3
    assert service.metric("winspect_execution_errors_total") == 1
    up_to = {size: service.metric("winspect_batch_size_bucket", le=size) for size in ("1.0", "3.0", "4.0", "6.0")}
    assert up_to == {"1.0": 1, "3.0": 1, "4.0": 2, "6.0": 3}
    assert service.metric("winspect_compute_seconds_sum") == pytest.approx(1.5)


def test_gauges_tell_of_now(service):
    service.backend.waiting, service.backend.running, service.backend.restarts = 3, 2, 1
    names = ("queue_length", "pictures_in_flight", "model_restarts", "ready")
    assert [service.metric(f"winspect_{name}") for name in names] == [3, 2, 1, 1]
    service.backend.now = "unavailable"
    assert service.metric("winspect_ready") == 0


def test_labels_are_few_whatever_callers_ask(service):
    """Neither paths, nor classes, nor names of files and models become labels."""
    before = sum(len(family.samples) for family in families(service).values())
    for number in range(30):
        service.get(f"/secret/{number}")
        service.get(f"/v2/models/model-{number}")
        service.get(f"/page/{number}.js")
        service.predict(GOOD, name=f"name-{number}.png", **{"class": f"class {number}"})
        service.ask("DELETE", f"/v1/{number}")
        service.ask("BREW", f"/v1/{number}")
    text = service.get("/metrics").text
    for word in ("secret", "model-", "name-", "class ", ".js", "BREW"):
        assert word not in text
    assert service.metric("winspect_requests_total", endpoint="/v2/models/{name}", status="404") == 30
    assert service.metric("winspect_requests_total", endpoint="other", status="404") == 90
    after = sum(len(family.samples) for family in families(service).values())
    assert after - before < 120  # five endpoints' histograms


def test_probes_are_not_rejects(service):
    service.backend.now = "loading"
    service.get("/v2/health/ready")
    service.get("/v2/models/winspect/ready")
    assert service.metric("winspect_rejects_total", reason="not_ready") == 0
    service.predict(GOOD)
    assert service.metric("winspect_rejects_total", reason="not_ready") == 1


def test_rejects_have_a_reason_for_each_status(service):
    told = {sample.labels["reason"] for sample in families(service)["winspect_rejects"].samples if sample.labels}
    assert told == {
        *("no_key", "foreign_page", "slow_client", "too_large", "overload", "hung_up"),
        *("not_ready", "deadline", "disk_full"),
    }
