"""Metrics: one Prometheus registry per service. Labels are route templates and classes, never a tenant."""

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class HttpMetrics:
    """What every service counts of its own HTTP requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self._requests = Counter("hunmin_http_requests", "Requests answered.", labels, registry=registry)
        self._duration = Histogram(
            "hunmin_http_request_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            labels,
            registry=registry,
            buckets=_BUCKETS_S,
        )

    def observe(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one finished request under its route template and status class."""
        labels = (method, route, f"{status // 100}xx")
        self._requests.labels(*labels).inc()
        self._duration.labels(*labels).observe(duration_s)


def new_registry() -> CollectorRegistry:
    """Return a registry that already reports on the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Return the registry as Prometheus text, and its media type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
