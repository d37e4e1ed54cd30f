"""What ships as a product can be used as it is: its sample is uploaded and judged, and its template is tried."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hunmin_contracts.datasets import REPORT, UPLOAD, DatasetReport, ReportRequest, UploadRequest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.products import DESCRIBE, LIST, SAMPLE, Product, ProductRequest
from hunmin_contracts.schema import Empty
from hunmin_kit.testing import running
from hunmin_kit.web import Client
from hunmin_text.prompt_template import parse_template
from hunmin_text.tuning_example import example_fields
from hunmin_tuning.products.catalogue import all_products, find_product, sample_path
from hunmin_tuning.service import SERVICE

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"
ME = AccountId("acct_1")
NAMES = ["augmentation", "event_titles", "persona", "sentiment"]


@pytest.fixture
async def tuning() -> AsyncIterator[Client]:
    async with running(SERVICE, env={"HUNMIN_TUNING_MODELS": f'{{"starter": "{STARTER}"}}'}) as up:
        yield up.client("tuning")


async def judged(tuning: Client, product: Product) -> DatasetReport:
    sample = await tuning.call(SAMPLE, ProductRequest(name=product.name))

    async def pieces() -> AsyncIterator[bytes]:
        yield sample.content.encode()

    request = UploadRequest(account_id=ME, name=product.name, filename=sample.filename)
    info = await tuning.upload(UPLOAD, request, pieces())
    told = (product.sample.rows, product.sample.columns, product.sample.size_bytes, product.sample.format)
    assert (info.rows, info.columns, info.size_bytes, info.format) == told
    question = ReportRequest(
        account_id=ME,
        reference=product.name,
        template=product.template,
        slots=product.hyperparameters.slots,
        shares=product.shares,
    )
    return await tuning.call(REPORT, question)


async def test_every_sample_passes_without_a_finding(tuning: Client) -> None:
    products = (await tuning.call(LIST, Empty())).data
    assert [product.name for product in products] == NAMES
    for product in products:
        report = await judged(tuning, product)
        assert (report.passes, report.findings) == (True, []), product.name
        assert report.rows == product.sample.rows >= 60
        if product.name == "sentiment":
            assert report.splits == {"train": 4000, "validation": 500, "test": 2000}
            assert report.labels == {"0": 3250, "1": 3250}
    assert await tuning.call(DESCRIBE, ProductRequest(name="persona")) == products[2]
    with pytest.raises(HunminError, match="augmentation, event_titles") as caught:
        await tuning.call(SAMPLE, ProductRequest(name="poems"))
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_fills_the_prompt_with_what_no_row_has(name: str) -> None:
    product = find_product(name)
    assert set(product.trial) == set(parse_template(product.template.prompt).fields)
    assert set(example_fields(product.template)) == set(product.sample.columns)
    text = sample_path(product).read_text(encoding="utf-8")
    assert not [value for value in product.trial.values() if value in text]


def test_samples_are_small() -> None:
    assert sum(product.sample.size_bytes for product in all_products()) < 1_000_000
