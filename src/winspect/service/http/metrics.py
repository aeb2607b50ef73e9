"""Metrics for Prometheus: counts and times in base units, with few labels - never a class name or a raw path."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from winspect.drift.report import HELP
from winspect.service.contract import Answer
from winspect.service.http.guard import Exchange
from winspect.service.http.refusals import STATUSES

if TYPE_CHECKING:
    from winspect.delivery.deliverer import Deliverer
    from winspect.service.backend import Backend
    from winspect.service.drifting import ServiceDrift

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class _DriftCollector(Collector):
    """Metrics of the drift alarm, read together."""

    def __init__(self, drift: ServiceDrift) -> None:
        self._drift = drift

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The names, without figures."""
        return (GaugeMetricFamily(name, text) for name, text in HELP.items())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The figures of now."""
        for name, value in self._drift.figures().items():
            family = GaugeMetricFamily(name, HELP[name], labels=["statistic"] if isinstance(value, dict) else [])
            for label, number in value.items() if isinstance(value, dict) else [(None, value)]:
                family.add_metric([] if label is None else [label], number)
            yield family


class _DeliveryCollector(Collector):
    """Metrics of the deliveries, a label each: their names, which are few."""

    def __init__(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer

    def describe(self) -> Iterator[Metric]:
        """The names, without figures."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        waiting, well, rows, unspooled, lost = self._families()
        for status in self._deliverer.status():
            waiting.add_metric([status.name], status.waiting)
            well.add_metric([status.name], not status.trouble)
            for outcome in ("delivered", "refused", "dropped"):
                rows.add_metric([status.name, outcome], getattr(status, outcome))
        unspooled.add_metric([], self._deliverer.unspooled)
        lost.add_metric([], self._deliverer.lost)
        return iter((waiting, well, rows, unspooled, lost))

    @staticmethod
    def _families() -> tuple[Any, ...]:
        return (
            GaugeMetricFamily("winspect_delivery_waiting", "Rows not yet delivered.", labels=["delivery"]),
            GaugeMetricFamily("winspect_delivery_well", "1 when rows are taken, else 0.", labels=["delivery"]),
            CounterMetricFamily(
                "winspect_delivery_rows", "Rows by what became of them.", labels=["delivery", "outcome"]
            ),
            GaugeMetricFamily("winspect_delivery_unspooled", "Rows that wait for space on the disk."),
            CounterMetricFamily("winspect_delivery_lost", "Rows given up, as neither disk nor memory had space."),
        )


class Metrics:
    """The service's metrics, on a separate registry.

    Args:
        backend: asked for the length of its queue and its state whenever the metrics are read.
    """

    def __init__(self, backend: Backend) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        seconds = partial(Histogram, registry=registry, buckets=SECONDS)
        self._requests = counter("winspect_requests", "Requests answered.", ["endpoint", "status"])
        self._request_seconds = seconds(
            "winspect_request_seconds", "From a request's headers to the end of its answer.", ["endpoint"]
        )
        self._rejects = counter("winspect_rejects", "Requests refused or given up.", ["reason"])
        self._pictures = counter("winspect_pictures", "Pictures by what became of them.", ["outcome"])
        self._queue_seconds = seconds("winspect_queue_seconds", "A picture's wait for the model.")
        self._executions = counter("winspect_executions", "Runs of the model, each on a batch.")
        self._execution_errors = counter("winspect_execution_errors", "Runs that failed.")
        self._compute_seconds = seconds("winspect_compute_seconds", "A run of the model, of a whole batch.")
        self._batch_size = Histogram(
            "winspect_batch_size", "Pictures of a run.", registry=registry, buckets=BATCH_SIZES
        )
        gauges = {
            "winspect_queue_length": ("Pictures that wait for the model.", lambda: backend.status.queued),
            "winspect_pictures_in_flight": ("Pictures that are with the model.", lambda: backend.status.in_flight),
            "winspect_ready": ("1 when pictures are inspected, else 0.", lambda: backend.status.state == "ready"),
            "winspect_model_restarts": ("Model processes started again.", lambda: backend.status.restarts),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=registry).set_function(value)
        if (feedback := backend.feedback) is not None:
            waiting = Gauge("winspect_audit_waiting", "Pictures not in the audit log yet.", registry=registry)
            waiting.set_function(lambda: feedback.trail.waiting)
            lost = Gauge("winspect_audit_lost", "Pictures missing in the audit log.", registry=registry)
            lost.set_function(lambda: feedback.trail.lost)
        if backend.deliverer is not None:
            registry.register(_DeliveryCollector(backend.deliverer))
        if backend.drift is not None:
            registry.register(_DriftCollector(backend.drift))
        for reason in filter(None, (status.reject for status in STATUSES.values())):
            self._rejects.labels(reason)
        for outcome in ("normal", "review", "anomalous", "unjudged", "failed"):
            self._pictures.labels(outcome)

    def exchange(self, exchange: Exchange, endpoint: str) -> None:
        """Count a request. ``endpoint`` is its route, as in ``/v2/models/{name}/infer``."""
        self._requests.labels(endpoint, exchange.status).inc()
        self._request_seconds.labels(endpoint).observe(exchange.seconds)
        reason = STATUSES[exchange.status].reject if exchange.status in STATUSES else None
        if reason and not endpoint.endswith("/ready"):  # a probe that hears "no" is answered
            self._rejects.labels(reason).inc()

    def answered(self, answer: Answer) -> None:
        """Count a picture; without a threshold there is no verdict."""
        is_failed = answer.result.error is not None
        self._pictures.labels("failed" if is_failed else answer.judgement.verdict or "unjudged").inc()
        if not is_failed:
            self._queue_seconds.observe(answer.queue_seconds)

    def batch(self, size: int, compute_seconds: float, error: str | None) -> None:
        """Count a run of the model on a batch; ``error`` is the name of its error's class, if there is one."""
        self._executions.inc()
        self._batch_size.observe(size)
        self._compute_seconds.observe(compute_seconds)
        if error is not None:
            self._execution_errors.inc()
