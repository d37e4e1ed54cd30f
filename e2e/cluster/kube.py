"""The studio in a cluster, as its operator sees it: kubectl and helm on the cluster of KUBECONFIG."""

import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chart.rendering import CHART, ROOT, program

NAMESPACE = RELEASE = "hunmin"
SERVICES = ("tokenizer", "generation", "tuning", "gateway")
VALUES = ROOT / "e2e" / "cluster" / "values.yaml"
TOPIC_READER = ROOT / "e2e" / "topic.py"
INSTALL_TIMEOUT = "15m"
Object = dict[str, Any]


def run(*command: str, sent: str | None = None) -> str:
    """Run a command and return what it printed; a RuntimeError with what it complained about if it fails."""
    done = subprocess.run(command, input=sent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def kubectl(*arguments: str, sent: str | None = None) -> str:
    """Run kubectl in the studio's namespace."""
    return run("kubectl", "--namespace", NAMESPACE, *arguments, sent=sent)


def helm(*arguments: str) -> str:
    """Run Helm in the studio's namespace."""
    return run(program(3), "--namespace", NAMESPACE, *arguments)


def install(chart: Path = CHART, *options: str) -> None:
    """Install the release, or upgrade to that chart, and wait until all of it is ready."""
    files = ("--values", str(chart / "values-dev.yaml"), "--values", str(VALUES))
    waiting = ("--wait", "--wait-for-jobs", "--timeout", INSTALL_TIMEOUT)  # for the realm's Job too
    helm("upgrade", "--install", RELEASE, str(chart), *files, *options, *waiting)


def hunmin(*arguments: str) -> str:
    """Run a command of the operator's in a gateway."""
    return kubectl("exec", f"deploy/{RELEASE}-gateway", "--", "hunmin", *arguments)


def new_key(account: str = "default") -> str:
    """Return a new key of an account, with an owner's rights; the account is made if it is not there."""
    return hunmin("keys", "create", "e2e", "--account", account, "--role", "owner").split()[-1]


def items(kind: str, *selection: str) -> list[Object]:
    """Return the objects of a kind."""
    found: list[Object] = json.loads(kubectl("get", kind, *selection, "--output", "json"))["items"]
    return found


def pods(part: str) -> list[Object]:
    """Return the pods of a part of the release, those that are about to go left out."""
    label = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={part}"
    return [pod for pod in items("pods", f"--selector={label}") if "deletionTimestamp" not in pod["metadata"]]


def ready(part: str) -> int:
    """Return how many pods of a part are ready."""
    conditions = [pod["status"].get("conditions", []) for pod in pods(part)]
    return sum(any(each["type"] == "Ready" and each["status"] == "True" for each in of_pod) for of_pod in conditions)


def replicas(part: str) -> int:
    """Return how many pods of a service there should be."""
    return int(kubectl("get", f"deploy/{RELEASE}-{part}", "--output", "jsonpath={.spec.replicas}"))


def wait_until_ready(part: str, *, without: str = "", within_s: float) -> float:
    """Return the seconds until all pods of a service that there should be are ready, none of them the one named."""
    began = time.monotonic()
    while ready(part) < replicas(part) or without in [pod["metadata"]["name"] for pod in pods(part)]:
        assert time.monotonic() < began + within_s, f"{part} is not ready after {within_s} s"
        time.sleep(0.5)
    return time.monotonic() - began


def generated_secrets() -> dict[str, str]:
    """Return what the chart has made up for itself."""
    secret = json.loads(kubectl("get", "secret", f"{RELEASE}-generated", "--output", "json"))
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def nodes() -> list[str]:
    """Return the names of the nodes."""
    return kubectl("get", "nodes", "--output", "jsonpath={.items[*].metadata.name}").split()


def gateway_url() -> str:
    """Return where the gateway's Service answers, on the first node's address."""
    address = "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    port = kubectl("get", f"service/{RELEASE}-gateway", "--output", "jsonpath={.spec.ports[0].nodePort}")
    return f"http://{kubectl('get', 'nodes', '--output', address)}:{port}"


def memory() -> dict[str, tuple[int, int | None]]:
    """Return the bytes that each pod of the namespace works with, and its limit, as its kubelet sees them."""
    limits = {pod["metadata"]["name"]: _limit(pod) for pod in items("pods")}
    found = {}
    for node in nodes():
        summary = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
        for pod in summary["pods"]:
            name, used = pod["podRef"]["name"], pod.get("memory", {}).get("workingSetBytes")
            if pod["podRef"]["namespace"] == NAMESPACE and name in limits and used is not None:
                found[name] = (int(used), limits[name])
    return found


def _limit(pod: Object) -> int | None:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    texts = [each["resources"].get("limits", {}).get("memory", "") for each in pod["spec"]["containers"]]
    if not all(text[-2:] in units for text in texts):
        return None
    return sum(int(text[:-2]) * units[text[-2:]] for text in texts)


@contextmanager
def forwarded(target: str, *, port: int, to: int) -> Iterator[None]:
    """Let this machine's own `port` lead to a Service's."""
    command = ["kubectl", "--namespace", NAMESPACE, "port-forward", target, f"{port}:{to}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as forwarding:
        try:
            deadline = time.monotonic() + 30
            while not _is_open(port):
                assert forwarding.poll() is None, f"{target} cannot be forwarded to {port}"
                assert time.monotonic() < deadline, f"{target} does not answer"
                time.sleep(0.1)
            yield
        finally:
            forwarding.terminate()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class ClusterRecords:
    """What the auditor reads: the database and the topics, each asked in a pod that reaches it."""

    def rows(self, statement: str) -> list[Object]:
        """Return what a statement finds; moments come as text."""
        asked = f"SELECT coalesce(json_agg(found), '[]') FROM ({statement}) AS found"  # noqa: S608  # our own statements
        psql = "PGPASSWORD=$POSTGRES_PASSWORD exec psql --host 127.0.0.1 --username hunmin -At --quiet"
        found: list[Object] = json.loads(
            kubectl("exec", "--stdin", f"sts/{RELEASE}-postgresql", "--", "sh", "-c", psql, sent=asked)
        )
        return found

    def messages(self, topic: str) -> list[Object]:
        """Return every message of a topic, with its place there."""
        reader = TOPIC_READER.read_text(encoding="utf-8")
        told = kubectl("exec", "--stdin", f"deploy/{RELEASE}-gateway", "--", "python", "-", topic, sent=reader)
        found: list[Object] = json.loads(told)
        return found
