"""Metrics: one Prometheus registry per process. Labels are services, route templates and classes, never a tenant."""

from functools import cached_property

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The registry of a process, with what each of its services counts of its own HTTP requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        labels = ("service", "method", "route", "status")
        self._requests = Counter("hunmin_http_requests", "Requests answered.", labels, registry=self.registry)
        self._duration = Histogram(
            "hunmin_http_request_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            labels,
            registry=self.registry,
            buckets=_BUCKETS_S,
        )

    @cached_property
    def events(self) -> "EventMetrics":
        """What the services of this process count of their events."""
        return EventMetrics(self.registry)

    def observe(self, *, service: str, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one finished request under its route template and status class."""
        labels = (service, method, route, f"{status // 100}xx")
        self._requests.labels(*labels).inc()
        self._duration.labels(*labels).observe(duration_s)

    def exposition(self) -> tuple[bytes, str]:
        """Return all of it as Prometheus text, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class EventMetrics:
    """Events on their way. Labels are schemas, topics and consumers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, documentation: str, label: str) -> Gauge:
            return Gauge(f"hunmin_events_{name}", documentation, (label,), registry=registry)

        self._waiting = gauge("outbox_rows", "Events that wait to be relayed.", "schema")
        self._oldest = gauge("outbox_oldest_seconds", "How long the oldest of them waits.", "schema")
        self._lag = gauge(
            "consumer_lag", "Events that were relayed, and that this process has yet to handle.", "consumer"
        )
        self._dead = gauge("dead", "Dead letters.", "consumer")
        self._relayed = Counter("hunmin_events_relayed", "Events relayed.", ("schema", "topic"), registry=registry)
        self._handled = Counter(
            "hunmin_events_deliveries",
            "Deliveries by what came of them: handled, repeated (handled before), failed (to be tried again), dead.",
            ("consumer", "outcome"),
            registry=registry,
        )

    def waiting(self, *, schema: str, rows: int, oldest_s: float) -> None:
        """Tell what waits in an outbox."""
        self._waiting.labels(schema).set(rows)
        self._oldest.labels(schema).set(oldest_s)

    def relayed(self, *, schema: str, topic: str) -> None:
        """Count one event that reached the bus."""
        self._relayed.labels(schema, topic).inc()

    def behind(self, *, consumer: str, lag: int | None, dead: int) -> None:
        """Tell how far behind a consumer is; `lag` None: another process reads for it, and tells."""
        self._lag.labels(consumer).set(lag or 0)
        self._dead.labels(consumer).set(dead)

    def handled(self, *, consumer: str, outcome: str) -> None:
        """Count one delivery."""
        self._handled.labels(consumer, outcome).inc()
