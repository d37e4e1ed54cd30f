"""What an account keeps: uploads are let in while there is room for what is kept of them, and never beyond it."""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.quotas import LimitName, Purpose
from hunmin_contracts.storage import STORAGE, StorageRequest
from hunmin_contracts.tenancy import KeyKind, Role
from hunmin_gateway.keys.authentication import authenticate
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import Parts, parts_of_app
from hunmin_gateway.principal import Principal
from hunmin_gateway.quotas.holdings import Holdings
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.quotas.quotas import Quotas
from hunmin_gateway.quotas.storage import Storage, store_of
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import Account
from hunmin_kit.run import Service
from hunmin_kit.testing import Running, running
from hunmin_kit.testing.postgres import fresh_database
from hunmin_tuning.service import SERVICE as TUNING
from sqlalchemy import select

pytestmark = pytest.mark.asyncio(loop_scope="module")

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"
FORM_BYTES = 2**16  # that are let in beside a file, before it is measured alone
SHORT_S = 0.05  # a lease that is over soon
WITHIN_S = 20
ROOMY = 10**7


def csv(rows: int, column: str = "text") -> bytes:
    """Return a file of so many rows; what is kept of it has the column's name in every one."""
    return f"{column}\n".encode() + b"".join(b"row %d\n" % row for row in range(rows))


@dataclass
class Studio:
    """An account at two gateways on one database, before a real tuning service."""

    up: Running
    parts: Parts
    principal: Principal
    http: Sequence[httpx.AsyncClient]

    async def limit(self, value: int, **scope: str) -> None:
        async with self.parts.database.session() as session:
            name = await session.scalar(select(Account.name).where(Account.id == self.principal.account_id))
            await Limits(session).set(name, LimitName.STORAGE_BYTES, value, **scope)

    async def upload(self, content: bytes, name: str = "rows", gateway: int = 0) -> httpx.Response:
        form = {"data": {"name": name}, "files": {"file": (f"{name}.csv", content)}}
        return await self.http[gateway].post("/studio/v1/datasets", **form)

    async def standing(self) -> tuple[int, int, int]:
        """Return what is used, reserved, and left."""
        (quota,) = (await self.http[0].get("/studio/v1/quotas")).json()["data"]
        return quota["used"], quota["reserved"], quota["remaining"]

    async def stored(self) -> int:
        asked = StorageRequest(account_id=self.principal.account_id)
        return (await self.up.client("tuning").call(STORAGE, asked)).stored_bytes

    async def size_of(self, content: bytes) -> int:
        """Return how much is kept of a file, by keeping it for a moment."""
        assert (await self.upload(content, name="measured")).status_code == 201
        size = await self.stored()
        assert (await self.http[0].delete("/studio/v1/datasets/measured")).status_code == 204
        assert await self.stored() == 0
        return size


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(neighbours: list[Service], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Running]]:
    async with fresh_database() as url:
        env = {
            "HUNMIN_DATABASE_URL": url,
            "HUNMIN_HOME": str(tmp_path_factory.mktemp("home")),
            "HUNMIN_GATEWAY_KEY_PEPPER": "p" * 32,
            "HUNMIN_TUNING_MODELS": json.dumps({"starter": str(STARTER)}),
            "HUNMIN_TUNING_SLOTS": "0",
        }
        async with (
            running(SERVICE, *neighbours[:2], TUNING, env=env, network=True) as first,
            running(SERVICE, *neighbours[:2], TUNING, env=env, network=True) as second,
        ):
            yield [first, second]


@pytest_asyncio.fixture(loop_scope="module")
async def studio(gateways: list[Running]) -> AsyncIterator[Studio]:
    parts = parts_of_app(gateways[0].app("gateway"))
    account = f"account {new_key()}"
    async with parts.database.session() as session:
        key, _ = await KeyRing(session, pepper=parts.pepper).create(account, "test", role=Role.OWNER)
        await Limits(session).set(account, LimitName.STORAGE_BYTES, ROOMY)
    principal = await authenticate(parts.database.quick, key, pepper=parts.pepper)
    headers = {"Authorization": f"Bearer {key}"}
    first, second = (httpx.AsyncClient(base_url=up.url("gateway"), headers=headers, timeout=30) for up in gateways)
    async with first, second:
        yield Studio(gateways[0], parts, principal, [first, second])


class TestUse:
    async def test_is_what_datasets_and_soft_prompts_take_and_deleting_frees_it(self, studio: Studio):
        content = csv(50)
        assert (await studio.upload(content)).status_code == 201
        kept = await studio.stored()
        assert kept > 2 * len(content)  # with its rows
        soft_prompt = {"data": {"name": "poet", "model": "team/parrot"}, "files": {"file": ("x", b"\0" * 1000)}}
        made = await studio.http[0].post("/studio/v1/soft-prompts", **soft_prompt)
        assert made.status_code == 201
        assert await studio.standing() == (kept + 1000, 0, ROOMY - kept - 1000)
        await studio.http[0].delete(f"/studio/v1/soft-prompts/poet@{made.json()['version']}")
        await studio.http[0].delete("/studio/v1/datasets/rows")
        assert await studio.standing() == (0, 0, ROOMY)

    async def test_of_a_file_that_is_there_already_is_counted_once(self, studio: Studio):
        await studio.upload(csv(50))
        used, _, _ = await studio.standing()
        assert (await studio.upload(csv(50))).status_code == 201
        assert await studio.standing() == (used, 0, ROOMY - used)


class TestRoom:
    async def test_is_needed_by_the_table_of_a_batch_before_any_of_it_is_kept(self, studio: Studio):
        await studio.limit(1000)
        form = {"template": "{text}", "model": "team/parrot"}
        refused = await studio.http[0].post("/studio/v1/batches", data=form, files={"file": ("rows.csv", csv(500))})
        assert (refused.status_code, refused.json()["details"]["limit"]) == (429, "storage_bytes"), refused.text
        assert await studio.standing() == (0, 0, 1000)

    async def test_is_let_in_to_the_last_byte_and_not_beyond(self, studio: Studio):
        content = csv(3000, column="a_column_with_a_name_that_is_much_longer_than_what_is_in_it")
        size = await studio.size_of(content)
        assert size > 4 * len(content) + 2**16  # more than is likely: it is sent again, with more room
        await studio.limit(size)
        assert (await studio.upload(content)).status_code == 201
        assert await studio.standing() == (size, 0, 0)
        await studio.http[0].delete("/studio/v1/datasets/rows")
        await studio.limit(size - 1)
        refused = await studio.upload(content)
        assert refused.status_code == 429
        problem = refused.json()
        assert (problem["code"], problem["details"]["limit"]) == ("quota_exceeded", "storage_bytes")
        assert (problem["details"]["value"], problem["details"]["requested"]) == (size - 1, size)
        assert "retry-after" not in refused.headers
        assert await studio.standing() == (0, 0, size - 1)

    async def test_is_refused_with_what_tuning_finds_that_rows_take(self, studio: Studio):
        content = csv(300)
        size = await studio.size_of(content)
        await studio.limit(size - 1)
        refused = await studio.upload(content)
        assert refused.status_code == 429
        assert "storage_bytes" in refused.json()["detail"]
        assert await studio.standing() == (0, 0, size - 1)

    async def test_is_for_one_of_two_uploads_that_race(self, studio: Studio):
        content = [csv(200), csv(201)]
        size = max([await studio.size_of(one) for one in content])
        await studio.limit(size + size // 2)
        for _ in range(5):
            answers = await asyncio.gather(*(studio.upload(content[n], f"rows{n}", n) for n in range(2)))
            assert sum(answer.status_code == 201 for answer in answers) <= 1
            assert all(answer.status_code in (201, 429) for answer in answers)
            used, reserved, _ = await studio.standing()
            assert used <= size
            assert reserved == 0
            for n, answer in enumerate(answers):
                if answer.status_code == 201:
                    await studio.http[0].delete(f"/studio/v1/datasets/rows{n}")
        assert (await studio.upload(content[0])).status_code == 201

    async def test_is_for_both_of_two_uploads_that_fit(self, studio: Studio):
        answers = await asyncio.gather(*(studio.upload(csv(100 + n), f"rows{n}", n % 2) for n in range(6)))
        assert [answer.status_code for answer in answers] == [201] * 6

    async def test_for_openai_s_files_is_the_same(self, studio: Studio):
        lines = b'{"prompt": "a", "completion": "b"}\n' * 100
        await studio.limit(len(lines))
        form = {"data": {"purpose": "fine-tune"}, "files": {"file": ("lines.jsonl", lines)}}
        refused = await studio.http[0].post("/v1/files", **form)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        await studio.limit(ROOMY)
        assert (await studio.http[0].post("/v1/files", **form)).status_code == 200

    async def test_for_files_of_batches_is_the_same_and_they_count(self, studio: Studio):
        line = b'{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {}}\n'
        await studio.limit(len(line) - 1)
        form = {"data": {"purpose": "batch"}, "files": {"file": ("lines.jsonl", line)}}
        assert (await studio.http[0].post("/v1/files", **form)).status_code == 429
        await studio.limit(len(line))
        kept = await studio.http[0].post("/v1/files", **form)
        assert kept.status_code == 200
        assert await studio.standing() == (len(line), 0, 0)
        assert (await studio.http[0].delete(f"/v1/files/{kept.json()['id']}")).status_code == 200
        assert await studio.standing() == (0, 0, len(line))

    async def test_for_soft_prompts_is_the_same(self, studio: Studio):
        await studio.limit(999)
        form = {"data": {"name": "poet", "model": "team/parrot"}, "files": {"file": ("x", b"\0" * 1000)}}
        assert (await studio.http[0].post("/studio/v1/soft-prompts", **form)).status_code == 429
        await studio.limit(1000)
        made = await studio.http[0].post("/studio/v1/soft-prompts", **form)
        assert made.status_code == 201
        assert await studio.standing() == (1000, 0, 0)

    async def test_is_given_back_by_an_upload_that_fails(self, studio: Studio):
        assert (await studio.upload(b"\xff\xff\xff\x00")).status_code == 400
        assert await studio.standing() == (0, 0, ROOMY)


class TestBody:
    @asynccontextmanager
    async def begun(self, studio: Studio, *headers: str) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        """Begin to send a form, over a connection of our own: no client stops sending when it is answered early."""
        url = studio.http[0].base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = [
            "POST /studio/v1/datasets HTTP/1.1",
            f"Host: {url.host}",
            f"Authorization: {studio.http[0].headers['authorization']}",
            "Content-Type: multipart/form-data; boundary=x",
            *headers,
        ]
        writer.write("\r\n".join([*head, "", ""]).encode())
        async with asyncio.timeout(WITHIN_S):
            yield reader, writer
        writer.close()

    async def test_that_says_it_is_too_large_is_refused_before_it_comes(self, studio: Studio):
        await studio.limit(1000)
        async with self.begun(studio, f"Content-Length: {1000 + FORM_BYTES + 1}") as (reader, _):
            assert b" 429 " in await reader.readline()

    async def test_that_does_not_say_is_cut_off_when_it_grows_too_large(self, studio: Studio):
        await studio.limit(1000)
        async with self.begun(studio, "Transfer-Encoding: chunked") as (reader, writer):
            part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="rows.csv"\r\n\r\n'
            for piece in (part, b"row\n" * (FORM_BYTES // 4), b"row\n" * 250, b"one too many"):
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert b" 429 " in await reader.readline()  # though there is no end of it
            assert b"storage_bytes" in await reader.readuntil(b"}")


class TestGateway:
    def desk(self, studio: Studio) -> tuple[Quotas, Storage]:
        """Return another gateway's part in it, which keeps nothing by itself."""
        parts = studio.parts
        quotas = Quotas(parts.database, parts.generation, lease_s=SHORT_S)
        stores = [store_of(parts.tuning), store_of(parts.generation)]
        return quotas, Storage(parts.database, quotas, Holdings(parts.database), stores)

    async def test_that_dies_with_an_upload_loses_its_room_with_its_lease(self, studio: Studio):
        quotas, storage = self.desk(studio)
        await studio.limit(100)

        async def send(room: int | None) -> None:
            assert room == 100
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await storage.keep(studio.principal, 60, send)
        assert await studio.standing() == (0, 100, 0)
        with pytest.raises(HunminError) as refused:
            await storage.keep(studio.principal, 60, send)
        assert (refused.value.code, refused.value.details["retry_after_s"]) == (ErrorCode.QUOTA_EXCEEDED, 1)
        await asyncio.sleep(2 * SHORT_S)
        await quotas.sweep()
        assert await studio.standing() == (0, 0, 100)

    async def test_without_a_limit_reserves_nothing(self, studio: Studio):
        _, storage = self.desk(studio)
        async with studio.parts.database.session() as session:
            (listed,) = await Limits(session).list(studio.principal.account_id)
            await Limits(session).remove(listed.quota.id)

        async def send(room: int | None) -> int | None:
            return room

        assert await storage.keep(studio.principal, 10**15, send) is None
        assert (await studio.upload(csv(3))).status_code == 201


class TestOperator:
    async def test_limits_an_account_as_a_whole(self, studio: Studio):
        for scope, param in (({"model": "starter"}, "model"), ({"purpose": Purpose.TUNING}, "purpose")):
            with pytest.raises(HunminError, match=f"Leave the {param} out") as refused:
                await studio.limit(1, **scope)
            assert refused.value.details["param"] == param

    async def test_sees_what_is_used(self, studio: Studio):
        await studio.upload(csv(50))
        used, _, _ = await studio.standing()
        async with studio.parts.database.session() as session:
            ring = KeyRing(session, pepper=studio.parts.pepper)
            key, _ = await ring.create(f"account {new_key()}", "test", kind=KeyKind.OPERATOR, role=Role.OWNER)
        path = f"/studio/v1/operator/accounts/{studio.principal.account_id}/limits"
        headers = {"Authorization": f"Bearer {key}"}
        (listed,) = (await studio.http[0].get(path, headers=headers)).json()["data"]
        body = {"name": "storage_bytes", "value": 10}
        changed = (await studio.http[0].put(path, headers=headers, json=body)).json()
        assert (listed["used"], listed["remaining"]) == (used, ROOMY - used)
        assert (changed["used"], changed["value"], changed["remaining"]) == (used, 10, 0)
