"""A database of jobs, and requests to put into it."""

from collections.abc import AsyncIterator, Callable

import pytest
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
