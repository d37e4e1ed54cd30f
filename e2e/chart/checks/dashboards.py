"""Rules for dashboards: what they ask for is what the services tell."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from chart.rendering import Object, kind
from hunmin_kit.observe.metrics import EventMetrics, Metrics

_METRIC = re.compile(r"\b(?:vllm:|hunmin_|process_)[a-z0-9_]+\b")


def metrics_exist(found: list[Object]) -> Iterator[str]:
    """Every metric that a dashboard asks for is one that /metrics has."""
    told = told_metrics()
    for item in kind(found, "ConfigMap"):
        for file, text in item["data"].items():
            for panel in json.loads(text)["panels"]:
                asked = {name for target in panel["targets"] for name in _METRIC.findall(target["expr"])}
                yield from (f"{file}: {panel['title']} asks for {name}" for name in sorted(asked - told))


def told_metrics() -> set[str]:
    """Return the names of all samples that a process of every service tells."""
    from hunmin_generation.gradients.metrics import GradientMetrics
    from hunmin_generation.metrics import EngineMetrics
    from hunmin_generation.soft_prompts.metrics import ResidentMetrics

    metrics = Metrics()
    EventMetrics(metrics.registry)
    nobody: Any = SimpleNamespace(all=list)
    nothing: Any = _NoResidents()
    EngineMetrics(metrics.registry)
    GradientMetrics(metrics.registry, nobody)
    ResidentMetrics(metrics.registry, nothing)
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
    return {
        f"{family.name}{suffix}" for family in metrics.registry.collect() for suffix in suffixes.get(family.type, [""])
    }


class _NoResidents:
    used = held_bytes = loads = evictions = 0

    def __len__(self) -> int:
        return 0
