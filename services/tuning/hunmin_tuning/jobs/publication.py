"""Brings what a job learned to the service that serves it. What must be known of it is in the job's own files."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from hunmin_contracts.ids import DatasetId
from hunmin_contracts.soft_prompts import IMPORT, METADATA, ImportRequest, Manifest, SoftPromptOrigin
from hunmin_contracts.tuning import TuningResult
from hunmin_kit.web import Client

from hunmin_tuning.jobs.claims import Claim
from hunmin_tuning.trainer.job import JobFolder


class Publication:
    """Publishes by the generation service, which keeps one soft prompt of a job, however often it is sent."""

    def __init__(self, generation: Client) -> None:
        self._generation = generation

    async def publish(self, claim: Claim, folder: Path) -> str:
        """Return the `name@version` that a trained job's soft prompt is served as."""
        files, request = JobFolder(folder), claim.request
        manifest = await asyncio.to_thread(_manifest, files.soft_prompt)
        origin = SoftPromptOrigin(
            job_id=claim.job_id,
            dataset_id=DatasetId(manifest.provenance["dataset_id"]),
            dataset=manifest.provenance["dataset"],
            test_digest=manifest.provenance["test_digest"],
            result=TuningResult.model_validate_json(files.result.read_bytes()),
        )
        asked = ImportRequest(account_id=request.account_id, name=request.name, model=request.model, origin=origin)
        info = await self._generation.upload(IMPORT, asked, _whole(files.soft_prompt))
        return f"{info.name}@{info.version}"


def _manifest(path: Path) -> Manifest:
    """Read what the trainer wrote, by hand: safetensors begins with the length of a header in JSON."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return Manifest.model_validate_json(header["__metadata__"][METADATA])


async def _whole(path: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(path.read_bytes)
