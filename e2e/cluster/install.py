"""Installs the chart on the cluster of KUBECONFIG as tests want it: `python e2e/cluster/install.py`, again and again.

Prints how long each step took, and the memory of each pod.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chart.rendering import ROOT
from cluster.kube import NAMESPACE, hunmin, install, kubectl, memory, run
from studio_process import STARTER

VOLUME = ROOT / "charts" / "hunmin" / "examples" / "models.yaml"
# Of the account of the first key, before anything is counted: a counter begins with its limit.
LIMIT = ("default", "tokens_per_month", "1000000000")


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Say how long a step took."""
    began = time.monotonic()
    yield
    print(f"{step}: {(time.monotonic() - began) / 60:.1f} min", flush=True)


def make_namespace() -> None:
    """Make the namespace. Its pods meet `restricted`, but for what the Training Operator adds to workers."""
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    run("kubectl", "apply", "--filename", "-", sent=yaml.safe_dump(namespace))


def fill_models() -> None:
    """Put the starter model on a volume, as docs/operations.md does it."""
    kubectl("apply", "--filename", str(VOLUME))
    kubectl("wait", "--for=condition=Ready", "pod/models", "--timeout=5m")
    kubectl("cp", str(STARTER), "models:/models/")
    kubectl("delete", "pod", "models", "--grace-period=1")


def report() -> None:
    """Print the memory of each pod."""
    for name, (used, limit) in sorted(memory().items()):
        print(f"  {name:<48} {used / 2**20:6.0f} MiB of {limit / 2**20 if limit else 0:6.0f}")


def main() -> None:
    """Do it all."""
    with timed("namespace and models"):
        make_namespace()
        fill_models()
    with timed("helm upgrade --install --wait"):
        install()
    with timed("a limit that counts everything"):
        hunmin("quotas", "set", *LIMIT)
    report()


if __name__ == "__main__":
    main()
