"""What runs jobs. A job and its folder name its process, so that whoever holds the job finds it, also after a restart.

It knows no queue and no state of a job: it starts what it is told to and says what has become of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hunmin_contracts.ids import JobId

LOG = "trainer.log"  # in the job's folder: all that its process writes, one attempt behind the other


@dataclass(frozen=True)
class Running:
    """It runs."""


@dataclass(frozen=True)
class Gone:
    """It does not run: it ended, with `exit_code` if that is known, or was never started."""

    exit_code: int | None


Status = Running | Gone


class JobBackend(Protocol):
    """The port. One caller at a time for each job; `folder` is absolute, and the same for the whole life of a job."""

    async def start(self, job_id: JobId, folder: Path) -> None:
        """Start the trainer on `folder`. What may be left of it from before is ended first, and `exit_code` forgotten.

        When it returns, or is cancelled, a process that was started is one that `poll` and `stop` find.
        """

    async def poll(self, job_id: JobId, folder: Path) -> Status:
        """Say what has become of it."""

    async def stop(self, job_id: JobId, folder: Path) -> None:
        """Ask it to end, and end it after a grace. When it returns nothing of it runs; if nothing did, it does nothing.

        A cancelled `stop` may leave it asked to end and running.
        """

    async def forget(self, job_id: JobId, folder: Path) -> None:
        """Remove what it keeps of a job that has ended outside of the job's folder, which goes next."""
