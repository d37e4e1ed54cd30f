"""Datasets over the service's endpoints: versions, reports, rows, and files that are large or wrong."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hunmin_contracts.datasets import (
    DELETE,
    DESCRIBE,
    LIST,
    REPORT,
    ROWS,
    UPLOAD,
    DatasetInfo,
    DatasetRequest,
    ListRequest,
    ReportRequest,
    RowsRequest,
    UploadRequest,
)
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId
from hunmin_contracts.storage import STORAGE, StorageRequest
from hunmin_contracts.tuning import TuningTemplate
from hunmin_contracts.tuning_preview import PREVIEW, PreviewRequest
from hunmin_kit.testing import Running, running
from hunmin_kit.web import Client
from hunmin_tuning.datasets.bounds import Bounds
from hunmin_tuning.datasets.library import Datasets
from hunmin_tuning.datasets.registry import Registry
from hunmin_tuning.service import SERVICE
from sqlalchemy import text

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"
ME, OTHER = AccountId("acct_1"), AccountId("acct_2")
TABLE = "text,label\n" + "".join(f"{number}번째 영화,{number % 2}\n" for number in range(100))
TEMPLATE = TuningTemplate(
    prompt="{text}<|VIRTUAL_PROMPT_0|> 평가:", answer="{label}", verbalizers={"1": " 긍정", "0": " 부정"}
)


@pytest.fixture
async def services() -> AsyncIterator[Running]:
    env = {"HUNMIN_TUNING_MODELS": f'{{"starter": "{STARTER}"}}', "HUNMIN_BODY_LIMIT_BYTES": "100000"}
    async with running(SERVICE, env=env) as up:
        yield up


@pytest.fixture
def tuning(services: Running) -> Client:
    return services.client("tuning")


async def upload(
    tuning: Client, content: str | bytes, *, name: str = "nsmc", account_id: AccountId = ME, filename: str | None = None
) -> DatasetInfo:
    async def pieces() -> AsyncIterator[bytes]:
        yield content.encode() if isinstance(content, str) else content

    return await tuning.upload(UPLOAD, UploadRequest(account_id=account_id, name=name, filename=filename), pieces())


async def code_of(call: object) -> ErrorCode:
    with pytest.raises(HunminError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code


def named(reference: str, account_id: AccountId = ME) -> DatasetRequest:
    return DatasetRequest(account_id=account_id, reference=reference)


async def test_a_file_becomes_a_version_and_the_same_file_the_same_version(tuning: Client) -> None:
    first = await upload(tuning, TABLE)
    assert (first.version, first.rows, first.columns, first.encoding) == (1, 100, ["text", "label"], "utf-8")
    assert (first.digest, first.size_bytes) == (hashlib.sha256(TABLE.encode()).hexdigest(), len(TABLE.encode()))
    second = await upload(tuning, TABLE + "하나 더,1\n")
    assert (second.version, second.rows) == (2, 101)
    assert await upload(tuning, TABLE) == first
    assert await tuning.call(DESCRIBE, named("nsmc")) == second
    assert await tuning.call(DESCRIBE, named("nsmc@1")) == await tuning.call(DESCRIBE, named(first.id)) == first
    assert (await upload(tuning, TABLE, name="other")).version == 1


async def test_the_same_file_twice_at_once_is_one_version(tuning: Client, services: Running) -> None:
    infos = await asyncio.gather(*(upload(tuning, TABLE) for _ in range(4)))
    assert {info.id for info in infos} == {infos[0].id}
    assert infos[0].version == 1
    kept = services.platform("tuning").home / "blobs" / "datasets"
    assert [folder.name for folder in kept.iterdir() if any(folder.iterdir())] == [infos[0].id]


async def test_datasets_are_listed_by_name_and_newest_first(tuning: Client) -> None:
    for name in ("b", "a"):
        for number in range(2):
            await upload(tuning, f"text\n{name}{number}\n", name=name)
    request = ListRequest(account_id=ME, limit=3)
    page = await tuning.call(LIST, request)
    assert ([(info.name, info.version) for info in page.data], page.has_more) == ([("a", 2), ("a", 1), ("b", 2)], True)
    rest = await tuning.call(LIST, request.model_copy(update={"after": page.data[-1].id}))
    assert ([(info.name, info.version) for info in rest.data], rest.has_more) == ([("b", 1)], False)
    assert (await tuning.call(LIST, ListRequest(account_id=ME, name="a"))).data == page.data[:2]


async def test_an_account_sees_its_own_alone(tuning: Client) -> None:
    info = await upload(tuning, TABLE)
    for reference in ("nsmc", "nsmc@1", info.id, "nsmc@2", "../nsmc", "nothing"):
        for endpoint in (DESCRIBE, DELETE):
            assert await code_of(tuning.call(endpoint, named(reference, OTHER))) == ErrorCode.NOT_FOUND
    assert (await tuning.call(LIST, ListRequest(account_id=OTHER))).data == []
    assert (await upload(tuning, TABLE, account_id=OTHER)).id != info.id


async def test_a_deleted_version_is_gone_and_its_number_does_not_come_again(tuning: Client, services: Running) -> None:
    info = await upload(tuning, TABLE)
    await tuning.call(REPORT, ReportRequest(account_id=ME, reference="nsmc", template=TEMPLATE))
    await tuning.call(DELETE, named("nsmc@1"))
    for endpoint in (DESCRIBE, DELETE):
        assert await code_of(tuning.call(endpoint, named("nsmc"))) == ErrorCode.NOT_FOUND
    assert list((services.platform("tuning").home / "blobs" / "datasets" / info.id).iterdir()) == []
    again = await upload(tuning, TABLE)
    assert (again.version, again.digest) == (2, info.digest)


async def test_a_report_is_made_once_for_each_question(tuning: Client) -> None:
    info = await upload(tuning, TABLE)
    request = ReportRequest(account_id=ME, reference="nsmc", template=TEMPLATE)
    report = await tuning.call(REPORT, request)
    assert (report.passes, report.dataset_id, report.labels) == (True, info.id, {"0": 50, "1": 50})
    assert report.splits == {"train": 80, "validation": 10, "test": 10}
    assert report.context_length == 256
    assert await tuning.call(REPORT, request) == report
    longer = await tuning.call(REPORT, request.model_copy(update={"slots": [250]}))
    assert (longer.passes, longer.findings[0].kind, longer.findings[0].lines[:2]) == (False, "too_long", [2, 3])
    for number in range(25):  # more than are kept
        await tuning.call(REPORT, request.model_copy(update={"seed": number}))
    assert await tuning.call(REPORT, request) == report


async def test_a_report_is_made_for_whoever_asks_again(tuning: Client) -> None:
    rows = "".join(f"{number}번째로 본 영화,{number % 2}\n" for number in range(3000))
    await upload(tuning, "text,label\n" + rows)
    request = ReportRequest(account_id=ME, reference="nsmc", template=TEMPLATE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await tuning.call(REPORT, request)
    reports = await asyncio.gather(*(tuning.call(REPORT, request) for _ in range(3)))
    assert [report.rows for report in reports] == [3000] * 3


async def test_a_report_and_a_preview_may_take_longer_than_other_calls() -> None:
    rows = "".join(f"{number}번째로 본 영화,{number % 2}\n" for number in range(3000))
    env = {"HUNMIN_TUNING_MODELS": f'{{"starter": "{STARTER}"}}', "HUNMIN_CALL_DEADLINE_S": "0.02"}
    async with running(SERVICE, env=env) as up:
        tuning = up.client("tuning")
        await upload(tuning, "text,label\n" + rows)
        template = TEMPLATE.model_copy(update={"examples": 4})
        report = await tuning.call(REPORT, ReportRequest(account_id=ME, reference="nsmc", template=template))
        assert (report.passes, report.rows) == (True, 3000)
        preview = await tuning.call(PREVIEW, PreviewRequest(account_id=ME, dataset="nsmc", template=template))
        assert len(preview.examples) == 4


async def test_numbers_of_rows_are_bounded(services: Running, tuning: Client) -> None:
    await upload(tuning, TABLE)
    http, account = services.http("tuning"), {"account_id": ME}
    asked = account | {"template": TEMPLATE.model_dump(mode="json")}
    for number, status in ((2**31 - 1, 200), (2**31, 400), (10**20, 400)):
        report = await http.post("/v1/datasets/nsmc/report", json=asked | {"train_rows": number})
        rows = await http.get("/v1/datasets/nsmc/rows", params=account | {"offset": number})
        preview = await http.post("/v1/preview", json=asked | {"dataset": "nsmc", "offset": number})
        assert {report.status_code, rows.status_code, preview.status_code} == {status}, number


async def test_a_question_that_does_not_fit_is_refused(tuning: Client) -> None:
    await upload(tuning, TABLE)
    request = ReportRequest(account_id=ME, reference="nsmc", template=TEMPLATE)
    for update, code in (
        ({"columns": {"text": "review"}}, ErrorCode.INVALID_PARAMETER),
        ({"model": "nothing"}, ErrorCode.MODEL_NOT_FOUND),
        ({"slots": [2, 3]}, ErrorCode.INVALID_PARAMETER),
        ({"reference": "nsmc@7"}, ErrorCode.NOT_FOUND),
        ({"template": TEMPLATE.model_copy(update={"prompt": "{text"})}, ErrorCode.INVALID_PARAMETER),
    ):
        assert await code_of(tuning.call(REPORT, request.model_copy(update=update))) == code


async def test_rows_are_read_in_pages_and_drawn_by_a_seed(tuning: Client) -> None:
    await upload(tuning, TABLE)
    request = RowsRequest(account_id=ME, reference="nsmc", limit=3)
    first = (await tuning.call(ROWS, request)).rows
    assert [(row.line, row.fields["text"]) for row in first] == [(n + 2, f"{n}번째 영화") for n in range(3)]
    later = (await tuning.call(ROWS, request.model_copy(update={"offset": 98}))).rows
    assert [row.line for row in later] == [100, 101]
    assert (await tuning.call(ROWS, request.model_copy(update={"offset": 100}))).rows == []
    drawn = [
        [row.line for row in (await tuning.call(ROWS, request.model_copy(update={"seed": seed, "limit": 9}))).rows]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] == sorted(drawn[0]) != drawn[2]
    everything = (await tuning.call(ROWS, request.model_copy(update={"seed": 1, "limit": 200}))).rows
    assert [row.line for row in everything] == list(range(2, 102))


async def test_a_job_reads_every_row(tuning: Client, services: Running) -> None:
    info = await upload(tuning, TABLE.replace(",", "\t").encode("cp949"), filename="nsmc.txt")
    platform = services.platform("tuning")
    datasets = Datasets(Registry(platform.database()), platform.blobs(), {}, Bounds())
    rows = await datasets.read(ME, info.id, lambda _, rows: list(rows()))
    assert [row.line for row in rows] == list(range(2, 102))
    assert rows[7].fields == {"text": "7번째 영화", "label": "1"}
    assert info.encoding == "cp949"


async def test_a_large_file_passes_where_a_large_request_does_not(tuning: Client) -> None:
    rows = "".join(f"{number}번째로 본 영화는 길다,{number % 2}\n" for number in range(20_000))
    info = await upload(tuning, "text,label\n" + rows)
    assert (info.rows, info.size_bytes > 700_000) == (20_000, True)
    template = TEMPLATE.model_copy(update={"prompt": "{text}<|VIRTUAL_PROMPT_0|>" + "가" * 19_000})
    request = ReportRequest(
        account_id=ME, reference="nsmc", template=template, columns={f"c{n}": "x" * 1000 for n in range(200)}
    )
    assert await code_of(tuning.call(REPORT, request)) == ErrorCode.TOO_LARGE


async def test_what_cannot_be_read_leaves_nothing(tuning: Client, services: Running) -> None:
    with pytest.raises(HunminError) as caught:
        await upload(tuning, 'text,label\n가,1\n"나,0\n')
    assert (caught.value.code, caught.value.details["line"]) == (ErrorCode.INVALID_REQUEST, 3)
    assert (await tuning.call(LIST, ListRequest(account_id=ME))).data == []
    assert not (services.platform("tuning").home / "blobs").exists()


def test_the_service_starts_without_torch() -> None:
    program = (
        "import sys; import hunmin_tuning.service, hunmin_tuning.datasets.api, hunmin_tuning.datasets.models; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class TestStorage:
    async def stored(self, tuning: Client, account_id: AccountId = ME) -> int:
        return (await tuning.call(STORAGE, StorageRequest(account_id=account_id))).stored_bytes

    async def send(self, tuning: Client, room: int) -> DatasetInfo:
        async def pieces() -> AsyncIterator[bytes]:
            yield TABLE.encode()

        request = UploadRequest(account_id=ME, name="nsmc", filename="a.csv", max_stored_bytes=room)
        return await tuning.upload(UPLOAD, request, pieces())

    async def test_is_what_files_and_rows_of_the_account_take(self, services: Running, tuning: Client) -> None:
        assert await self.stored(tuning) == 0
        info = await upload(tuning, TABLE)
        blobs = services.platform("tuning").blobs()
        kept = [await blobs.get(f"datasets/{info.id}/{part}") for part in ("original", "rows")]
        assert await self.stored(tuning) == sum(map(len, kept))
        assert await self.stored(tuning, OTHER) == 0
        await tuning.call(DELETE, named(info.id))
        assert await self.stored(tuning) == 0

    async def test_of_rows_that_the_release_before_kept_is_measured(self, services: Running, tuning: Client) -> None:
        await upload(tuning, TABLE)
        await upload(tuning, TABLE, name="other")
        size = await self.stored(tuning)
        database = services.platform("tuning").database()
        async with database.session() as session:
            await session.execute(text("UPDATE datasets SET rows_bytes = NULL WHERE name = 'nsmc'"))
        assert await self.stored(tuning) == size
        async with database.session() as session:
            assert (await session.execute(text("SELECT 1 FROM datasets WHERE rows_bytes IS NULL"))).all() == []

    async def test_beyond_what_it_may_take_is_refused_and_nothing_is_kept(self, tuning: Client) -> None:
        size = (await self.send(tuning, 10**9)) and await self.stored(tuning)
        await tuning.call(DELETE, named("nsmc"))
        for room in (size - 1, 10):
            with pytest.raises(HunminError) as refused:
                await self.send(tuning, room)
            assert refused.value.code is ErrorCode.QUOTA_EXCEEDED
            assert refused.value.details["limit"] == "storage_bytes"
        assert await self.stored(tuning) == 0
        await self.send(tuning, size)
        assert await self.stored(tuning) == size
