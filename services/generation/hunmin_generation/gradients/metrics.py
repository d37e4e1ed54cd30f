"""What /metrics tells of gradients. A label is a model, never a caller."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hunmin_generation.gradients.models import GradientModels
from hunmin_generation.gradients.worker import GradientWorker

_PREFIX = "hunmin_generation_gradient_"
_LABELS = ("model_name",)
_COUNTERS: dict[str, tuple[str, Callable[[GradientWorker], float]]] = {
    "tokens": ("Positions that backward passes went through.", lambda worker: worker.backward_tokens),
    "request_success": ("Batches that ended well.", lambda worker: worker.finished),
    "request_failure": ("Batches that ended in an error.", lambda worker: worker.failed),
    "request_cancelled": ("Batches whose client left.", lambda worker: worker.cancelled),
}


class GradientMetrics(Collector):
    """Reads the workers at each scrape."""

    def __init__(self, registry: CollectorRegistry, models: GradientModels) -> None:
        self._models = models
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the state of every worker."""
        waiting = GaugeMetricFamily(_PREFIX + "requests_waiting", "Batches waiting to be computed.", labels=_LABELS)
        for model in self._models.all():
            waiting.add_metric((model.info.name,), model.worker.waiting)
        yield waiting
        for name, (documentation, read) in _COUNTERS.items():
            counter = CounterMetricFamily(_PREFIX + name, documentation, labels=_LABELS)
            for model in self._models.all():
                counter.add_metric((model.info.name,), read(model.worker))
            yield counter
