"""How the service learns that a PyTorchJob has ended, from a server that speaks as Kubernetes does."""

import asyncio
import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hunmin_tuning.jobs.backends.pytorchjob.cluster import Cluster

NAME = "hunmin-job-1"


def job(condition: str = "Running") -> dict[str, Any]:
    return {"metadata": {"name": NAME}, "status": {"conditions": [{"type": condition, "status": "True"}]}}


class Kubernetes:
    """Tells one watcher what is put into `told`, and whoever asks what `there` is."""

    def __init__(self) -> None:
        self.there: dict[str, Any] | None = job()
        self.told: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue()
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if "watch=true" in url.query.lower():
                    self._answer(200, None)
                    outer.watch(self)
                else:
                    outer.asked += 1
                    status = 404 if outer.there is None else 200
                    self._answer(status, json.dumps(outer.there or {"reason": "NotFound"}).encode())

            def _answer(self, status: int, body: bytes | None) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                if body is None:
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                else:
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def watch(self, handler: BaseHTTPRequestHandler) -> None:
        while (event := self.told.get()) is not None:
            line = json.dumps({"type": event[0], "object": event[1]}).encode() + b"\n"
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def kubernetes() -> Iterator[Kubernetes]:
    kubernetes_ = Kubernetes()
    yield kubernetes_
    kubernetes_.told.put(None)
    kubernetes_.server.shutdown()
    kubernetes_.server.server_close()


@pytest.fixture
def cluster(kubernetes: Kubernetes, tmp_path: Path) -> Cluster:
    server = {"server": f"http://127.0.0.1:{kubernetes.server.server_port}"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    return Cluster("tuning", kubeconfig=tmp_path / "kubeconfig", patience_s=0)


async def until_told(cluster: Cluster, kubernetes: Kubernetes) -> None:
    """Return once the watch has told of the job: nobody needs to ask for it then."""
    while True:
        before = kubernetes.asked
        assert not await cluster.has_ended(NAME)
        if kubernetes.asked == before:
            return
        await asyncio.sleep(0.01)


class TestHasEnded:
    async def test_is_told_and_not_asked(self, cluster: Cluster, kubernetes: Kubernetes) -> None:
        kubernetes.told.put(("ADDED", job()))
        await until_told(cluster, kubernetes)
        before = kubernetes.asked
        for _ in range(20):
            assert not await cluster.has_ended(NAME)
        assert kubernetes.asked == before
        kubernetes.there = job("Succeeded")
        kubernetes.told.put(("MODIFIED", job("Succeeded")))
        while not await cluster.has_ended(NAME):  # noqa: ASYNC110  # the event is in a thread of the client's
            await asyncio.sleep(0.01)

    async def test_asks_whether_what_was_told_is_of_an_earlier_job_of_the_name(
        self, cluster: Cluster, kubernetes: Kubernetes
    ) -> None:
        kubernetes.told.put(("ADDED", job()))
        await until_told(cluster, kubernetes)
        kubernetes.told.put(("MODIFIED", job("Failed")))
        while kubernetes.asked < 5:
            assert not await cluster.has_ended(NAME)  # it was made anew
            await asyncio.sleep(0.01)

    async def test_a_job_that_goes_has_ended(self, cluster: Cluster, kubernetes: Kubernetes) -> None:
        kubernetes.told.put(("ADDED", job()))
        await until_told(cluster, kubernetes)
        kubernetes.there = None
        kubernetes.told.put(("DELETED", job()))
        while not await cluster.has_ended(NAME):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def test_asks_as_long_as_nobody_tells(self, cluster: Cluster, kubernetes: Kubernetes) -> None:
        assert not await cluster.has_ended(NAME)
        kubernetes.there = job("Succeeded")
        assert await cluster.has_ended(NAME)

    async def test_watches_again_when_a_watch_breaks_off(
        self, cluster: Cluster, kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hunmin_tuning.jobs.backends.pytorchjob.watching._AGAIN_S", 0.05)
        kubernetes.told.put(("ADDED", job()))
        await until_told(cluster, kubernetes)
        kubernetes.told.put(None)
        kubernetes.told.put(("ADDED", job()))
        await until_told(cluster, kubernetes)
