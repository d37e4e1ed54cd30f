"""A runner in a process of its own, to be killed: `runner_process.py URL FOLDERS PLAN`."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from hunmin_kit.data import Database
from hunmin_kit.testing.events import events_of
from hunmin_tuning.jobs.attempt import Parts
from hunmin_tuning.jobs.backends.local import LocalBackend
from hunmin_tuning.jobs.claims import Claim, Claims
from hunmin_tuning.jobs.registry import JobLimits
from hunmin_tuning.jobs.runner import Runner
from opentelemetry.trace import NoOpTracer

TRAINER = Path(__file__).parent / "fake_trainer.py"
LIMITS = JobLimits(max_attempts=4, lease_s=1.0, retry_delay_s=0.0, away_delay_s=0.0)


class Studio:
    """What surrounds a runner: it prepares jobs with `plan`, and publishes each once, on a shelf beside the folders."""

    def __init__(self, folders: Path, plan: dict) -> None:
        self.folders = folders
        self.plan = plan

    async def prepare(self, claim: Claim, folder: Path) -> None:
        shutil.copy(TRAINER, folder)  # a pod has nothing but its folder
        (folder / "plan.json").write_text(json.dumps(self.plan))

    async def publish(self, claim: Claim, folder: Path) -> str:
        with (self.folders.parent / "published").open("a") as shelf:
            shelf.write(f"{claim.job_id}\n")
        return f"{claim.request.name}@1"

    def published(self) -> set[str]:
        shelf = self.folders.parent / "published"
        return set(shelf.read_text().split()) if shelf.exists() else set()

    def parts(self, claims: Claims, backend: LocalBackend) -> Parts:
        return Parts(claims, backend, self.prepare, self.publish, poll_s=0.02)


def new_backend() -> LocalBackend:
    return LocalBackend([sys.executable, "-S", str(TRAINER)], environment={"PATH": os.environ["PATH"]}, grace_s=1.0)


async def main(url: str, folders: str, plan: str) -> None:
    database = Database(url, schema="tuning", tracer=NoOpTracer(), pool_size=3)
    claims = Claims(database, LIMITS, events_of(database))
    studio = Studio(Path(folders), json.loads(plan))
    await Runner(studio.parts(claims, new_backend()), studio.folders).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
