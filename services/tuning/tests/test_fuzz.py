"""Every answer of the service is what its OpenAPI file says, whatever is asked."""

from pathlib import Path

import pytest
from hunmin_contracts.tuning_jobs import CANCEL, CREATE, CreateJobRequest, JobRequest
from hunmin_kit.testing import running
from hunmin_kit.testing.fuzzing import FuzzPlan, fuzz
from hunmin_tuning.service import SERVICE

ME = "acct_1"
TEMPLATE = {"prompt": "{text}<|VIRTUAL_PROMPT_0|>", "answer": "{label}"}
TABLE = "text,label\n" + "".join(f"{number}번째로 본 영화,{number % 2}\n" for number in range(60))
OF_TEMPLATES = [f'"param":"{name}"' for name in ("prompt", "answer", "columns", "verbalizers", "truncated", "examples")]


@pytest.mark.timeout(600)
@pytest.mark.asyncio(loop_scope="module")
async def test_answers_are_as_described(studio, starter_env, tmp_path: Path) -> None:
    async with running(SERVICE, studio.generation.service(), env=starter_env, network=True) as up:
        tuning = up.client("tuning")
        dataset = await studio.upload(TABLE, name="reviews", to=tuning)
        request = {"account_id": ME, "name": "mood", "model": "starter", "dataset_id": dataset.id, "template": TEMPLATE}
        job = await tuning.call(CREATE, CreateJobRequest.model_validate(request))
        await tuning.call(CANCEL, JobRequest(account_id=ME, job_id=job.id))
        plan = FuzzPlan(
            known={
                "account_id": [ME],
                "reference": ["reviews@1", "reviews", dataset.id],
                "dataset": ["reviews@1"],
                "dataset_id": [dataset.id],
                "job_id": [job.id],
                "model": ["starter"],
                "name": ["sentiment"],
                "template": [TEMPLATE],
            },
            bounds={"after": 0},  # no event may ever come behind others, and the answer would not begin
            unchecked={
                "POST /v1/datasets": {"positive_data_acceptance": "no schema says what a file holds"},
            },
            refusals={
                "cannot be stored": "U+0000 is a character of JSON, and none that a database takes",
                "that the page before ended with is gone": "where a page ended is known to whoever has read it",
                "No page of the account's jobs ended with": "the same",
                **dict.fromkeys(OF_TEMPLATES, "a template's text has a grammar of its own, and has to fit its rows"),
                "The template has": "the same",
                "does not pass": "whether a dataset does is what its report is for",
                "accumulation exceeds batch_size": "no schema compares two fields",
                "the slots take": "no schema adds numbers up",
                "name a dataset, or give rows": "the rule stands in the description of the body",
                "The template shows": "the same",
            },
        )
        await fuzz(up.url("tuning"), plan, tmp_path)
