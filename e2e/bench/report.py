"""How a benchmark ends: its figures in results/NAME.json, and a status that says whether they meet their targets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"
Metric = dict[str, float | str]


@dataclass(frozen=True)
class Target:
    """What a metric's ratio, or another of its figures, must be at least or at most."""

    metric: str
    least: float | None = None
    most: float | None = None
    figure: str = "ratio"

    def miss(self, metric: Metric) -> str | None:
        """Say by what it is missed; None if it is met."""
        found = float(metric[self.figure])
        if self.least is not None and found < self.least:
            return f"{self.metric}: {self.figure} {found} is less than {self.least}"
        if self.most is not None and found > self.most:
            return f"{self.metric}: {self.figure} {found} is more than {self.most}"
        return None


def report(name: str, metrics: Mapping[str, Metric], targets: Sequence[Target] = ()) -> None:
    """Write `metrics`; a SystemExit names each target that one of them misses. What was not measured misses none."""
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{name}.json").write_text(
        json.dumps({"metrics": metrics}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    misses = [target.miss(metrics[target.metric]) for target in targets if target.metric in metrics]
    if told := [miss for miss in misses if miss is not None]:
        raise SystemExit("\n".join(told))
