"""What /metrics tells of the engines, under vLLM's names, so that what watches or scales a vLLM does the same here.

https://docs.vllm.ai/en/latest/usage/metrics.html. A label is a model, never a caller.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hunmin_generation.engine.engine import Engine

_LABELS = ("model_name",)
_WAIT_BUCKETS_S = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_GAUGES: dict[str, tuple[str, Callable[[Engine], float]]] = {
    "vllm:num_requests_running": ("Completions being computed.", lambda engine: len(engine.scheduler.running)),
    "vllm:num_requests_waiting": ("Completions waiting to be computed.", lambda engine: len(engine.scheduler.waiting)),
    "vllm:kv_cache_usage_perc": (
        "Part of the KV pool that is held, 0 to 1.",
        lambda engine: engine.scheduler.blocks.usage,
    ),
}
_COUNTERS: dict[str, tuple[str, Callable[[Engine], float]]] = {
    "vllm:prompt_tokens": ("Prompt tokens computed, also again.", lambda engine: engine.counts.prompt_tokens),
    "vllm:generation_tokens": ("Tokens generated.", lambda engine: engine.counts.generated_tokens),
    "vllm:prefix_cache_queries": (
        "Tokens looked up in the prefix cache.",
        lambda engine: engine.scheduler.queried_tokens,
    ),
    "vllm:prefix_cache_hits": ("Tokens found there.", lambda engine: engine.scheduler.cached_tokens),
    "vllm:num_preemptions": ("Completions that gave up their blocks.", lambda engine: engine.scheduler.preemptions),
    "vllm:request_success": ("Requests that ended well.", lambda engine: engine.counts.finished),
    "hunmin_generation_request_failure": ("Requests that ended in an error.", lambda engine: engine.counts.failed),
    "hunmin_generation_request_cancelled": ("Requests whose client left.", lambda engine: engine.counts.cancelled),
}


class EngineMetrics(Collector):
    """Reads the engines at each scrape; only waits are recorded as they come."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._engines: dict[str, Engine] = {}
        self._first_token = Histogram(
            "vllm:time_to_first_token_seconds",
            "From a request's arrival at the engine to its first token.",
            _LABELS,
            registry=registry,
            buckets=_WAIT_BUCKETS_S,
        )
        registry.register(self)

    def watch(self, model: str, engine: Engine) -> None:
        """Report on `engine` from now on."""
        self._engines[model] = engine
        self._first_token.labels(model)

    def observe_first_token(self, model: str, seconds: float) -> None:
        """Record how long a request waited for its first token."""
        self._first_token.labels(model).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the state of every engine."""
        for name, (documentation, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, documentation, labels=_LABELS)
            for model, engine in self._engines.items():
                gauge.add_metric((model,), read(engine))
            yield gauge
        for name, (documentation, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, documentation, labels=_LABELS)
            for model, engine in self._engines.items():
                counter.add_metric((model,), read(engine))
            yield counter
