"""Takes jobs from the queue for as long as the service runs. What is done with one is in attempt.py."""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import structlog
from hunmin_contracts.ids import JobId

from hunmin_tuning.jobs.attempt import Attempt, Parts
from hunmin_tuning.jobs.claims import Claim

_log = structlog.get_logger()


class Runner:
    """As many jobs at a time as the limits have slots, each in a folder of its own under `folders`."""

    def __init__(self, parts: Parts, folders: Path) -> None:
        self._parts = parts
        self._folders = folders.resolve()

    async def run(self) -> None:
        """Run until cancelled; then end every process in good order, so that its job goes on later."""
        free = asyncio.Semaphore(self._parts.claims.limits.slots)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await free.acquire()
                await self._tidy()
                claim = await self._take()
                if claim is None:
                    free.release()
                    await asyncio.sleep(self._parts.poll_s)
                else:
                    tasks.create_task(self._attempt(claim)).add_done_callback(lambda _: free.release())

    async def _take(self) -> Claim | None:
        try:
            return await self._parts.claims.take()
        except Exception as error:  # the consumer's edge
            _log.error("tuning.queue.failed", exc_info=error)
            return None

    async def _attempt(self, claim: Claim) -> None:
        try:
            await Attempt(self._parts, claim, self._folders / claim.job_id).run()
        except Exception as error:  # the consumer's edge: its lease runs out, and the job is taken again
            _log.error("tuning.job.abandoned", job=claim.job_id, exc_info=error)

    async def _tidy(self) -> None:
        """Remove the folders of jobs that have ended: here or elsewhere, by a cancel in the queue, before a crash."""
        try:
            if names := [path.name for path in self._folders.iterdir()] if self._folders.is_dir() else []:
                for name in await self._parts.claims.ended(names):
                    await self._parts.backend.forget(JobId(name), self._folders / name)
                    with suppress(FileNotFoundError):  # another service on the same folders was quicker
                        shutil.rmtree(self._folders / name)
        except Exception as error:  # the consumer's edge
            _log.error("tuning.folder.kept", exc_info=error)
