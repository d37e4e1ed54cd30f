"""A database of jobs, and requests to put into it; a cluster, where the environment names one."""

import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hunmin_contracts.tuning import Evaluation, TuningResult, TuningTemplate
from hunmin_contracts.tuning_jobs import CreateJobRequest
from hunmin_kit.data import Database
from hunmin_kit.data.migrations import Chain
from hunmin_kit.testing.postgres import fresh_database
from opentelemetry.trace import NoOpTracer


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The URL of a database with the schema `tuning`."""
    async with fresh_database() as url_:
        await Chain("tuning", "hunmin_tuning.migrations").upgrade(url_)
        yield url_


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database_ = Database(url, schema="tuning", tracer=NoOpTracer(), pool_size=5)
    yield database_
    await database_.close()


@pytest.fixture
def request_of() -> Callable[..., CreateJobRequest]:
    """Make a request of an account."""

    def make(account_id: str = "acct_1", **values: object) -> CreateJobRequest:
        template = TuningTemplate(prompt="<|VIRTUAL_PROMPT_0|>{text}", answer="{label}")
        fields = {"name": "mood", "model": "starter", "dataset_id": "ds_1", "template": template}
        return CreateJobRequest.model_validate({"account_id": account_id, **fields, **values})

    return make


@pytest.fixture
def result() -> TuningResult:
    answered = Evaluation(rows=10, loss=1.0, accuracy=0.5)
    return TuningResult(
        steps=10,
        best_step=8,
        stopped_early=False,
        train_loss=1.0,
        validation_loss=1.0,
        zero_shot=answered,
        few_shot=answered,
        tuned=answered,
        weights_digest="0" * 64,
    )


_ACCOUNT = "hunmin-tuning"
_PERMISSIONS = Path(__file__).parents[2] / "pytorchjobs.yaml"


class RealCluster:
    """A namespace of a real cluster, for a service that may do what its Role says, and an S3 that pods reach."""

    def __init__(self, client: Any, image: str, blobs_url: str, s3: dict[str, str], kubeconfig: Path) -> None:
        from kubernetes.client import CoreV1Api, CustomObjectsApi
        from kubernetes.utils import create_from_dict

        self._image, self._blobs_url, self._kubeconfig = image, blobs_url, kubeconfig
        self.core, self._jobs = CoreV1Api(client), CustomObjectsApi(client)
        self.namespace = f"hunmin-test-{secrets.token_hex(3)}"
        labels = {"pod-security.kubernetes.io/enforce": "baseline"}
        self.core.create_namespace({"metadata": {"name": self.namespace, "labels": labels}})
        self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": "blobs"}, "stringData": s3})
        for body in yaml.safe_load_all(_PERMISSIONS.read_text()):
            create_from_dict(client, body, namespace=self.namespace)
        self._write_kubeconfig(client.configuration)

    def backend(self, command: Sequence[str] | None = None, **settings: Any) -> Any:
        """Make the backend of a service in that namespace."""
        from hunmin_kit.blobs import open_blobs
        from hunmin_tuning.jobs.backends.pytorchjob.backend import PyTorchJobBackend
        from hunmin_tuning.jobs.backends.pytorchjob.settings import PyTorchJobSettings

        place = {"namespace": self.namespace, "kubeconfig": self._kubeconfig, "secrets": ["blobs"]}
        theirs = json.loads(os.environ.get("TEST_JOB_SETTINGS", "{}"))  # such as tolerations
        share = {"requests": {"cpu": "500m", "memory": "256Mi"}}  # without one, everything else goes first
        values = {"image": self._image, "sync_s": 0.2, "resources": share, **place, **theirs, **settings}
        values["environment"] = {**theirs.get("environment", {}), **settings.get("environment", {})}
        blobs = open_blobs(self._blobs_url, home=Path())
        parsed = PyTorchJobSettings.model_validate(values)
        return PyTorchJobBackend(parsed, blobs, blobs_url=self._blobs_url, command=command)

    def pods(self, job_id: str) -> list[Any]:
        """Return the job's pods."""
        selector = f"hunmin.dev/tuning-job={job_id}"
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def objects(self) -> list[str]:
        """Return the names of every pod and job that there is."""
        jobs = self._jobs.list_namespaced_custom_object("kubeflow.org", "v1", self.namespace, "pytorchjobs")["items"]
        pods = self.core.list_namespaced_pod(self.namespace).items
        return [job["metadata"]["name"] for job in jobs] + [pod.metadata.name for pod in pods]

    def job(self, job_id: str) -> Any:
        """Return the job's object."""
        return self._jobs.get_namespaced_custom_object(**self._object(job_id))

    def admit(self, job_id: str) -> None:
        """Do what Kueue does when there is room."""
        self._jobs.patch_namespaced_custom_object(
            **self._object(job_id), body={"spec": {"runPolicy": {"suspend": False}}}
        )

    def delete_pod(self, job_id: str, kind: str, **options: Any) -> None:
        """Delete the first pod of that kind, as an eviction does."""
        self.core.delete_namespaced_pod(f"hunmin-{job_id.replace('_', '-')}-{kind}-0", self.namespace, **options)

    def close(self) -> None:
        """Remove the namespace."""
        self.core.delete_namespace(self.namespace)

    def _object(self, job_id: str) -> dict[str, str]:
        name = f"hunmin-{job_id.replace('_', '-')}"
        return {
            "group": "kubeflow.org", "version": "v1", "plural": "pytorchjobs", "namespace": self.namespace, "name": name
        }  # fmt: skip

    def _write_kubeconfig(self, admin: Any) -> None:
        token = self.core.create_namespaced_service_account_token(_ACCOUNT, self.namespace, {"spec": {}})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {"name": "test", "cluster": {"server": admin.host, "certificate-authority": admin.ssl_ca_cert}}
            ],
            "users": [{"name": "test", "user": {"token": token.status.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        self._kubeconfig.write_text(yaml.safe_dump(config))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """The cluster of TEST_KUBECONFIG, whose nodes have TEST_TRAINER_IMAGE: see `make test-cluster-jobs`."""
    kubeconfig, image = os.environ.get("TEST_KUBECONFIG"), os.environ.get("TEST_TRAINER_IMAGE")
    if not kubeconfig or not image:
        pytest.skip("needs a cluster: make test-cluster-jobs")
    from kubernetes.config import new_client_from_config
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    client = new_client_from_config(kubeconfig)
    api = urlsplit(client.configuration.host)
    with socket.create_connection((api.hostname, api.port or 443)) as connection:
        address = connection.getsockname()[0]  # where this machine is, seen from the cluster
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    s3 = {
        "AWS_ENDPOINT_URL": f"http://{address}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        S3FileSystem().mkdir("hunmin-test")
        folder = tmp_path_factory.mktemp("cluster")
        real = RealCluster(client, image, "s3://hunmin-test/blobs", s3, folder / "kubeconfig")
        try:
            yield real
        finally:
            real.close()
            server.stop()
