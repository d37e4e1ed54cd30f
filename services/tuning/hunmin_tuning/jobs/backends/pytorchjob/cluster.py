"""The few calls to Kubernetes that jobs need. Whatever is a permission here stands in `services/tuning/README.md`."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hunmin_contracts.errors import ErrorCode, HunminError
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api, CustomObjectsApi
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError

from hunmin_tuning.jobs.backends.pytorchjob.manifest import GROUP, JOB_LABEL, PLURAL, VERSION
from hunmin_tuning.jobs.backends.pytorchjob.mirror import patiently
from hunmin_tuning.jobs.backends.pytorchjob.watching import WatchedJobs

T = TypeVar("T")
_TIMEOUT_S = 10.0
_NOT_FOUND, _CONFLICT, _TOO_MANY, _SERVER_ERROR = 404, 409, 429, 500


class Cluster:
    """One namespace of a cluster. Outages are waited out for `patience_s`, then `unavailable`."""

    def __init__(self, namespace: str, *, kubeconfig: Path | None, patience_s: float) -> None:
        """Read the kubeconfig; without one, what every pod of a cluster is given. ValueError if there is none."""
        configuration = Configuration()
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise ValueError(f"no cluster is known, {error}") from error
        configuration.retries = False
        client = ApiClient(configuration)
        self._jobs, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._namespace = namespace
        self._patience_s = patience_s
        self._watched = WatchedJobs(self._jobs, self._place)

    async def job(self, name: str) -> dict[str, Any] | None:
        """Return a PyTorchJob, None if there is none."""
        found: Any = await self._call(
            lambda: self._jobs.get_namespaced_custom_object(**self._place, name=name, **_limits())
        )
        return found  # type: ignore[no-any-return]

    async def has_ended(self, name: str) -> bool:
        """Tell whether a PyTorchJob has ended, or is not there. It is not asked for as long as a watch tells of it."""
        if _runs(self._watched.job(name)):
            return False
        return not _runs(await self.job(name))  # what was told may be of one that had this name before

    async def create(self, body: dict[str, Any]) -> None:
        """Create a PyTorchJob, unless one of its name is there."""
        created = await self._call(
            lambda: self._jobs.create_namespaced_custom_object(**self._place, body=body, **_limits()), but=_CONFLICT
        )
        if created is None and await self.job(body["metadata"]["name"]) is None:
            raise HunminError(
                ErrorCode.INTERNAL, "The cluster knows no PyTorchJob. Install Kubeflow's Training Operator."
            )

    async def delete(self, name: str) -> None:
        """Ask for the end of a PyTorchJob, whose object goes after all of its pods."""
        await self._call(
            lambda: self._jobs.delete_namespaced_custom_object(
                **self._place, name=name, propagation_policy="Foreground", **_limits()
            )
        )

    async def pods(self, job_id: str) -> list[Any]:
        """Return the pods of a job."""
        found = await self._call(
            lambda: self._core.list_namespaced_pod(self._namespace, label_selector=f"{JOB_LABEL}={job_id}", **_limits())
        )
        return [] if found is None else list(found.items)

    @property
    def _place(self) -> dict[str, Any]:
        return {"group": GROUP, "version": VERSION, "plural": PLURAL, "namespace": self._namespace}

    async def _call(self, call: Callable[[], T], *, but: int = _NOT_FOUND) -> T | None:
        """Return what a call returns, None for a 404 or `but`. Cancelled, it waits: what was asked for is done then."""

        async def attempt() -> T | None:
            task = asyncio.create_task(asyncio.to_thread(call))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait({task})
                raise
            except ApiException as error:
                if error.status in (_NOT_FOUND, but):
                    return None
                if error.status == _TOO_MANY or error.status >= _SERVER_ERROR:
                    raise OSError(f"{error.status} {error.reason}") from error
                message = f"The cluster refused what a tuning job needs ({error.status} {error.reason}): {error.body}"
                raise HunminError(ErrorCode.INTERNAL, message) from error

        return await patiently(attempt, self._patience_s, HTTPError)


def _runs(job: dict[str, Any] | None) -> bool:
    if job is None:
        return False
    conditions = job.get("status", {}).get("conditions", [])
    return not any(each["type"] in ("Succeeded", "Failed") and each["status"] == "True" for each in conditions)


def _limits() -> dict[str, Any]:
    return {"_request_timeout": _TIMEOUT_S}
