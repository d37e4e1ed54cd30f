"""What /metrics tells of the soft prompts in memory."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hunmin_generation.soft_prompts.residents import Residents

_PREFIX = "hunmin_generation_soft_prompt"


class ResidentMetrics(Collector):
    """Reads the residents at each scrape."""

    def __init__(self, registry: CollectorRegistry, residents: Residents) -> None:
        self._residents = residents
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the state of the residents."""
        now = self._residents
        yield GaugeMetricFamily(f"{_PREFIX}s_resident", "Soft prompts in memory.", value=len(now))
        yield GaugeMetricFamily(f"{_PREFIX}s_used", "Soft prompts in memory that a request uses.", value=now.used)
        yield GaugeMetricFamily(f"{_PREFIX}_bytes", "Bytes of rows in memory.", value=now.held_bytes)
        yield CounterMetricFamily(f"{_PREFIX}_loads", "Soft prompts read into memory.", value=now.loads)
        yield CounterMetricFamily(
            f"{_PREFIX}_evictions", "Soft prompts that made room for others.", value=now.evictions
        )
