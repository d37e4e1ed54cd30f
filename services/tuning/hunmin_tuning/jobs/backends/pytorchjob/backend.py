"""Jobs as PyTorchJobs, whose workers share no disk with this service: the job's folder goes there by the blob store.

The object is named after the job, so that whoever holds the job finds it. What becomes of lost pods is between the
operator and `pod.py`; what becomes of a lost job is for the queue, as with every backend.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from hunmin_contracts.ids import JobId
from hunmin_kit.blobs import Blobs

from hunmin_tuning.jobs.backends.backend import Gone, Running, Status
from hunmin_tuning.jobs.backends.pytorchjob.cluster import Cluster
from hunmin_tuning.jobs.backends.pytorchjob.manifest import manifest, name_of, trainer_command
from hunmin_tuning.jobs.backends.pytorchjob.mirror import CHECKPOINT, Mirror
from hunmin_tuning.jobs.backends.pytorchjob.settings import PyTorchJobSettings

_POLL_S = 0.2
_LOOK_S = 10.0  # between two looks at what pods wait for
_log = structlog.get_logger()


class PyTorchJobBackend:
    """See JobBackend. `blobs` is the store that pods reach at `blobs_url`."""

    def __init__(
        self, settings: PyTorchJobSettings, blobs: Blobs, *, blobs_url: str, command: Sequence[str] | None = None
    ) -> None:
        """Find the cluster; `command` is the trainer, less the folder, where it is not ours."""
        self._settings = settings
        self._blobs, self._blobs_url = blobs, blobs_url
        self._command = trainer_command(settings) if command is None else command
        self._cluster = Cluster(settings.namespace, kubeconfig=settings.kubeconfig, patience_s=settings.patience_s)
        self._mirrors: dict[JobId, Mirror] = {}
        self._looked: dict[JobId, tuple[float, str]] = {}

    async def start(self, job_id: JobId, folder: Path) -> None:
        """See JobBackend."""
        await self.stop(job_id, folder)
        mirror = self._mirror(job_id, folder)
        index = await mirror.index()
        await mirror.push(index.model_copy(update={"starts": 0, "exit_code": None}))
        await self._cluster.create(manifest(job_id, self._settings, blobs_url=self._blobs_url, command=self._command))

    async def poll(self, job_id: JobId, folder: Path) -> Status:
        """See JobBackend."""
        has_ended = await self._cluster.has_ended(name_of(job_id))
        index = await self._mirror(job_id, folder).pull(leave=CHECKPOINT)  # after: an ended job has left all by now
        if not has_ended:
            await self._look(job_id)
            return Running()
        return Gone(index.exit_code)

    async def stop(self, job_id: JobId, folder: Path) -> None:
        """See JobBackend."""
        name = name_of(job_id)
        while await self._cluster.job(name) is not None or await self._cluster.pods(job_id):
            await self._cluster.delete(name)
            await asyncio.sleep(_POLL_S)
        await self._mirror(job_id, folder).pull(leave=CHECKPOINT)

    async def forget(self, job_id: JobId, folder: Path) -> None:
        """See JobBackend."""
        await self._mirror(job_id, folder).delete()
        self._mirrors.pop(job_id, None)
        self._looked.pop(job_id, None)

    def _mirror(self, job_id: JobId, folder: Path) -> Mirror:
        if job_id not in self._mirrors:
            self._mirrors[job_id] = Mirror(self._blobs, job_id, folder, patience_s=self._settings.patience_s)
        return self._mirrors[job_id]

    async def _look(self, job_id: JobId) -> None:
        """Log what its pods wait for, such as an image that cannot be pulled or a node with room, when it changes."""
        now = asyncio.get_running_loop().time()
        looked, told = self._looked.get(job_id, (now, ""))
        if now - looked >= _LOOK_S:
            looked, reasons = now, sorted(filter(None, map(_reason, await self._cluster.pods(job_id))))
            if reasons and str(reasons) != told:
                _log.warning("tuning.job.pods_waiting", job=job_id, reasons=reasons)
            told = str(reasons)
        self._looked[job_id] = looked, told


def _reason(pod: Any) -> str | None:
    """Return what keeps a pod from running."""
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        waiting = status.state.waiting
        if waiting is not None and waiting.message:
            return f"{pod.metadata.name}: {waiting.reason}: {waiting.message}"
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{pod.metadata.name}: {condition.reason}: {condition.message}"
    return None
