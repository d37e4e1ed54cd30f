"""Metrics: one Prometheus registry per process. Labels are services, route templates and classes, never a tenant."""

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
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

    def observe(self, *, service: str, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one finished request under its route template and status class."""
        labels = (service, method, route, f"{status // 100}xx")
        self._requests.labels(*labels).inc()
        self._duration.labels(*labels).observe(duration_s)

    def exposition(self) -> tuple[bytes, str]:
        """Return all of it as Prometheus text, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
