"""As much of an API server as Helm's `lookup` asks: a namespace with its account, and what a test puts there."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chart.rendering import CHART, KUBERNETES, Object, helm, parsed

NAMESPACE = "studios"
# The kinds that the chart makes, and the group that every cluster has. Helm 4 asks for all, Helm 3 for those it reads.
_KINDS = {
    "v1": ["Secret", "ServiceAccount", "Service"],
    "apiregistration.k8s.io/v1": [],
    "apps/v1": ["Deployment", "StatefulSet"],
    "batch/v1": ["Job"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
}


@dataclass
class Cluster:
    """What is there, and how Helm reaches it."""

    kubeconfig: Path
    objects: dict[str, Object] = field(default_factory=dict)

    def put(self, item: Object) -> None:
        """Have an object of the namespace, as Helm has installed it."""
        owner = {"meta.helm.sh/release-name": "studio", "meta.helm.sh/release-namespace": NAMESPACE}
        item = item | {"metadata": item["metadata"] | {"annotations": owner}}
        self.objects[f"/api/v1/namespaces/{NAMESPACE}/{_plural(item['kind'])}/{item['metadata']['name']}"] = item

    def render(self, *values: Path, options: tuple[str, ...] = (), major: int = 3) -> list[Object]:
        """Return what Helm would install, or upgrade to, here; a RuntimeError with what it says if it refuses."""
        place = [
            f"--namespace={NAMESPACE}",
            f"--kubeconfig={self.kubeconfig}",
            "--dry-run=server",
            "--disable-openapi-validation",
        ]
        known = [f"--kube-version={KUBERNETES}", "--api-versions=apiregistration.k8s.io/v1"]
        files = [f"--values={path}" for path in values]
        done = helm(major, "template", "studio", str(CHART), *place, *known, *files, *options)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return parsed(done.stdout)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster whose namespace has its account, as every namespace does."""
    there = Cluster(folder / "kubeconfig")
    there.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}})
    discovery = _discovery()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            known = discovery | there.objects
            if path in known:
                self._answer(200, known[path])
            else:
                self._answer(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

        def _answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there.kubeconfig.write_text(json.dumps(_kubeconfig(f"http://127.0.0.1:{server.server_port}")), encoding="utf-8")
        yield there
        server.shutdown()


def _discovery() -> dict[str, Object]:
    versions = [{"groupVersion": name, "version": name.rpartition("/")[2]} for name in _KINDS if name != "v1"]
    groups = [{"name": each["groupVersion"].partition("/")[0], "versions": [each]} for each in versions]
    found: dict[str, Object] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": f"v{KUBERNETES}"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "groups": groups},
    }
    for name, kinds in _KINDS.items():
        resources = [{"name": _plural(kind), "kind": kind, "namespaced": True, "verbs": ["get"]} for kind in kinds]
        path = f"/api/{name}" if name == "v1" else f"/apis/{name}"
        found[path] = {"kind": "APIResourceList", "groupVersion": name, "resources": resources}
    return found


def _plural(kind: str) -> str:
    return f"{kind.lower().removesuffix('y')}ies" if kind.endswith("y") else f"{kind.lower()}s"


def _kubeconfig(server: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
