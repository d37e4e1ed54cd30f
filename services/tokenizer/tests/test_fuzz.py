"""Every answer of the service is what its OpenAPI file says, whatever is asked."""

from pathlib import Path

import pytest
from hunmin_kit.testing import running
from hunmin_kit.testing.fuzzing import FuzzPlan, fuzz
from hunmin_tokenizer.service import SERVICE

PLAN = FuzzPlan(
    known={"tokenizer": ["starter"]},
    refusals={"is not in the vocabulary": "which ids a vocabulary holds is not the same for every tokenizer"},
)


@pytest.mark.timeout(600)
async def test_answers_are_as_described(tmp_path: Path) -> None:
    async with running(SERVICE, network=True) as up:
        await fuzz(up.url("tokenizer"), PLAN, tmp_path)
