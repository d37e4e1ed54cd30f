"""The PyTorchJobs of a namespace as a watch tells of them, so that nobody asks for each of them again and again."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog
from kubernetes.client import ApiException, CustomObjectsApi
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError

from hunmin_tuning.jobs.backends.pytorchjob.manifest import JOB_LABEL

_TURN_S = 60  # of a watch, which begins by telling of every job that there is
_SILENT_S = 30  # beyond it, in which the connection is found to be dead
_PAUSE_S = 1.0  # between two, or a server that ends each at once would be asked without end
_AGAIN_S = 5.0  # after one that failed
_log = structlog.get_logger()


class WatchedJobs:
    """Watches from when it is first asked until the process ends, in a thread: so the client of Kubernetes does it."""

    def __init__(self, api: CustomObjectsApi, place: Mapping[str, str]) -> None:
        """Watch what `api` finds at that place: group, version, plural and namespace."""
        self._api = api
        self._place = place
        self._told: dict[str, dict[str, Any]] = {}
        self._thread: threading.Thread | None = None

    def job(self, name: str) -> dict[str, Any] | None:
        """Return the PyTorchJob as it was last told of; None where nothing was, and whoever wants to know asks."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="pytorchjobs", daemon=True)
            self._thread.start()
        return self._told.get(name)

    def _watch(self) -> None:
        while True:
            try:
                self._watch_once()
            except (ApiException, HTTPError, OSError, ValueError) as error:  # ValueError: a line that broke off
                _log.warning("tuning.cluster.unwatched", error=str(error))
                self._told = {}  # until it is told again
                time.sleep(_AGAIN_S)
            time.sleep(_PAUSE_S)

    def _watch_once(self) -> None:
        told: dict[str, dict[str, Any]] = {}
        self._told = told
        turn = Watch().stream(  # type: ignore[no-untyped-call]
            self._api.list_namespaced_custom_object,
            **self._place,
            label_selector=JOB_LABEL,
            timeout_seconds=_TURN_S,
            _request_timeout=_TURN_S + _SILENT_S,
        )
        for event in turn:
            job = event["object"]
            if event["type"] == "DELETED":
                told.pop(job["metadata"]["name"], None)
            else:
                told[job["metadata"]["name"]] = job
