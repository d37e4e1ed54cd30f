"""A real API server takes every object that the chart renders, those of other people's kinds too."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from chart.rendering import ROOT, VALUES, Object, value_set
from cluster.kube import run

# Kinds that an operator brings along. They stay in the cluster: others may use them.
DEFINITIONS = {
    "httproutes.gateway.networking.k8s.io": "httproutes.yaml",
    "servicemonitors.monitoring.coreos.com": "servicemonitors.yaml",
}
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("warn", "enforce")}


@pytest.fixture(scope="module")
def definitions() -> None:
    """The definitions of all kinds that the chart knows."""
    there = run("kubectl", "get", "crds", "--output", "name")
    missing = [name for name in DEFINITIONS if name not in there]
    if missing:
        run(str(ROOT / "e2e" / "cluster" / "definitions.sh"))
    for name in missing:
        run("kubectl", "apply", "--server-side", "--filename", str(ROOT / ".tools" / "definitions" / DEFINITIONS[name]))
        run("kubectl", "wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")


@pytest.fixture(scope="module")
def namespaces() -> Iterator[set[str]]:
    """Those that are added are there as long as the tests run."""
    made: set[str] = set()
    yield made
    for name in made:
        run("kubectl", "delete", "namespace", name, "--timeout=2m")


@pytest.mark.usefixtures("definitions")
@pytest.mark.parametrize("name", [*VALUES, "two releases"])
def test_an_api_server_takes_every_object(name: str, namespaces: set[str]):
    objects = value_set(name)
    there = run("kubectl", "get", "namespaces", "--output", "jsonpath={.items[*].metadata.name}").split()
    for namespace in {each["metadata"].get("namespace", "default") for each in objects} - {*there}:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": RESTRICTED}}
        run("kubectl", "apply", "--filename", "-", sent=json.dumps(made))
        namespaces.add(namespace)
    done = _dry_run(objects)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert len(done.stdout.splitlines()) == len(objects)


def _dry_run(objects: list[Object]) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", "create", "--dry-run=server", "--validate=strict", "--filename", "-", "--output", "name"]
    whole = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    return subprocess.run(command, input=whole, capture_output=True, text=True, check=False)
