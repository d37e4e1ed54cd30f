"""Helm on the chart: what it renders, as objects. Knows nothing of what is right."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "hunmin"
HELM = {major: ROOT / ".tools" / f"helm-{version}" / "helm" for major, version in {3: "3.19.5", 4: "4.3.1"}.items()}
KUBERNETES = "1.34.0"  # built by Go, Helm does not know by itself for which one it renders
Object = dict[str, Any]

VALUES = {
    "defaults": (),
    "full": (HERE / "values" / "full.yaml",),
    "existing secrets": (HERE / "values" / "existing-secrets.yaml",),
    "single service": (HERE / "values" / "single-service.yaml",),
    "development": (CHART / "values-dev.yaml", CHART / "values-gpu.yaml"),
}


def program(major: int) -> str:
    """Return the Helm to run: the one that was built here, or for 3 else this machine's own."""
    is_missing = major == 3 and not HELM[major].exists()
    return shutil.which("helm") or "helm" if is_missing else str(HELM[major])


def helm(major: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm 3 or 4."""
    return subprocess.run([program(major), *arguments], capture_output=True, text=True, check=False)


@cache
def template(
    values: tuple[Path, ...] = (), *options: str, release: str = "studio", major: int = 3, chart: Path = CHART
) -> str:
    """Return what `helm template` prints; fail with what it says if it refuses."""
    done = helm(major, *_command(values, options, release, chart))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def refusal(values: tuple[Path, ...] = (), *options: str, major: int = 3, chart: Path = CHART) -> str | None:
    """Return what Helm says against the values, None if it takes them."""
    done = helm(major, *_command(values, options, "studio", chart))
    return done.stderr if done.returncode else None


def _command(values: Sequence[Path], options: Sequence[str], release: str, chart: Path) -> list[str]:
    files = [f"--values={path}" for path in values]
    return ["template", release, str(chart), "--namespace=studios", f"--kube-version={KUBERNETES}", *files, *options]


@cache
def parsed(text: str) -> list[Object]:
    return [item for item in yaml.load_all(text, yaml.CSafeLoader) if item]


def objects(
    values: tuple[Path, ...] = (), *options: str, release: str = "studio", major: int = 3, chart: Path = CHART
) -> list[Object]:
    """Return the objects that these values make; they may be changed."""
    return deepcopy(parsed(template(values, *options, release=release, major=major, chart=chart)))


def value_set(name: str, *, major: int = 3) -> list[Object]:
    """Return the objects of a value set; "two releases" are two of one namespace."""
    if name == "two releases":
        small, full = (VALUES[each] for each in ("defaults", "full"))
        return objects(small, major=major) + objects(full, release="other", major=major)
    return objects(VALUES[name], major=major)


@dataclass(frozen=True)
class Pod:
    """A pod as its owner makes it."""

    owner: Object
    metadata: Object
    spec: Object

    @property
    def name(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.metadata["labels"]
        return labels

    @property
    def part(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(found: Sequence[Object]) -> Iterator[Pod]:
    """Yield the pods of Deployments, StatefulSets and Jobs."""
    for item in found:
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            template_of = item["spec"]["template"]
            yield Pod(item, template_of["metadata"], template_of["spec"])


def kind(found: Sequence[Object], *names: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [item for item in found if item["kind"] in names]


def title(item: Object) -> str:
    """Return what a complaint calls an object."""
    return f"{item['kind']} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Tell whether a selector takes these labels; of expressions it knows `In`, the only one that the chart writes."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))


def environment(container: Object) -> dict[str, str | Object]:
    """Return the variables of a container: a text, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}
