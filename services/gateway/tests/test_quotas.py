"""Limits as an account meets them: what each call takes, what a refusal and every answer say, who sets them."""

import asyncio
import json
import time

import httpx
import openai
import pytest
from hunmin_contracts.errors import HunminError
from hunmin_contracts.quotas import LimitName, Purpose
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import Account
from hunmin_kit.testing import running
from hunmin_kit.testing.postgres import fresh_database
from sqlalchemy import select

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "team/parrot"
WITHIN_S = 15
MINUTE_S = 60
NEEDED_S = 10  # of a minute, for a test that counts within one


async def limit(studio, name: LimitName, value: int, **scope: str) -> None:
    async with studio.parts.database.session() as session:
        account = await session.scalar(select(Account.name).where(Account.id == studio.account_id))
        await Limits(session).set(account, name, value, **scope)


async def standing(studio, name: LimitName) -> dict:
    """Return how the account's limit of that name stands."""
    (quota,) = [quota for quota in (await studio.http.get("/studio/v1/quotas")).json()["data"] if quota["name"] == name]
    return quota


async def taken(studio, name: LimitName) -> tuple[int, int]:
    quota = await standing(studio, name)
    return quota["used"], quota["reserved"]


async def one_minute() -> None:
    """Wait for the next minute if this one is nearly over."""
    left_s = MINUTE_S - time.time() % MINUTE_S
    if left_s < NEEDED_S:
        await asyncio.sleep(left_s)


async def complete(studio, prompt: str | list[str] = "가나다", **fields: object) -> httpx.Response:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 5} | fields
    return await studio.http.post("/v1/completions", json=body)


class TestTokens:
    async def test_are_reserved_at_most_and_settled_as_metered(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 100)
        stream = await studio.client.completions.create(model=MODEL, prompt="!slow", max_tokens=80, stream=True)
        await anext(stream)
        assert await taken(studio, LimitName.TOKENS_PER_MONTH) == (0, 85)
        await stream.close()
        deadline = time.monotonic() + WITHIN_S
        while (now := await taken(studio, LimitName.TOKENS_PER_MONTH))[1]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        rows = await studio.usage()
        assert {row["status"] for row in rows} == {"cancelled"}
        assert now == (sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows), 0)
        assert 6 <= now[0] < 85

    async def test_are_those_of_every_prompt_and_choice(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 32)
        refused = await complete(studio, ["가나", "다"], n=3)
        assert refused.status_code == 429
        assert "may take 33" in refused.json()["error"]["message"]
        await limit(studio, LimitName.TOKENS_PER_MONTH, 33)
        assert (await complete(studio, ["가나", "다"], n=3)).status_code == 200
        assert await taken(studio, LimitName.TOKENS_PER_MONTH) == (33, 0)

    async def test_of_a_chat_without_max_tokens_are_as_many_as_fit(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 64)
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "안녕"}]}
        assert (await studio.http.post("/v1/chat/completions", json=chat)).status_code == 200
        assert await taken(studio, LimitName.TOKENS_PER_MONTH) == (64, 0)

    async def test_are_asked_for_only_where_there_are_limits(self, studio):
        assert (await complete(studio)).status_code == 200
        assert studio.parrot.measured == []
        await limit(studio, LimitName.BACKWARD_TOKENS_PER_MONTH, 0)
        assert (await complete(studio)).status_code == 200
        assert len(studio.parrot.measured) == 1

    async def test_of_gradients_are_counted_with_the_file_that_is_computed(self, studio):
        await limit(studio, LimitName.BACKWARD_TOKENS_PER_MONTH, 20)
        batch = {"model": MODEL, "examples": [{"target": "가"}, {"target": "나"}]}
        file = bytes(range(256)) * 2**13
        form = {"data": {"request": json.dumps(batch)}, "files": {"soft_prompt": ("x", file)}}
        assert (await studio.http.post("/studio/v1/gradients", **form)).status_code == 200
        assert studio.parrot.soft_prompts == [file, file]
        assert await taken(studio, LimitName.BACKWARD_TOKENS_PER_MONTH) == (20, 0)
        assert (await studio.http.post("/studio/v1/gradients", **form)).status_code == 429

    async def test_of_what_is_generated_are_those_of_what_was_measured(self, studio):
        """A soft prompt that is promoted in between must not change what is used."""
        await limit(studio, LimitName.TOKENS_PER_MONTH, 100)
        assert (await complete(studio, model="poet")).status_code == 200
        assert [request.model for request in studio.parrot.requests] == ["poet@1"]
        assert (await studio.usage())[0]["model"] == "poet"


class TestRequests:
    async def test_are_let_in_until_the_minute_is_full(self, studio):
        await one_minute()
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 2)
        statuses = [(await complete(studio)).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        assert len(await studio.usage()) == 2  # one that is refused leaves no row
        assert await taken(studio, LimitName.REQUESTS_PER_MINUTE) == (2, 0)

    @pytest.mark.parametrize("prompt", ["!break", "!overloaded", "!crash", "가" * 70])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_that_fail_cost_nothing(self, studio, prompt, stream):
        for name in (LimitName.REQUESTS_PER_MINUTE, LimitName.TOKENS_PER_MONTH, LimitName.CONCURRENT_REQUESTS):
            await limit(studio, name, 100)
        response = await complete(studio, prompt, stream=stream)
        assert response.status_code >= 400 or "error" in response.text
        for name in (LimitName.REQUESTS_PER_MINUTE, LimitName.TOKENS_PER_MONTH, LimitName.CONCURRENT_REQUESTS):
            assert await taken(studio, name) == (0, 0)

    async def test_at_a_time_are_let_in_again_when_one_ends(self, studio):
        await limit(studio, LimitName.CONCURRENT_REQUESTS, 1)
        stream = await studio.client.completions.create(model=MODEL, prompt="!slow", max_tokens=1000, stream=True)
        await anext(stream)
        refused = await complete(studio)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "concurrent_requests is 1, and 1 are running" in refused.json()["error"]["message"]
        await stream.close()
        deadline = time.monotonic() + WITHIN_S
        while (await taken(studio, LimitName.CONCURRENT_REQUESTS))[1]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert (await complete(studio)).status_code == 200
        assert await taken(studio, LimitName.CONCURRENT_REQUESTS) == (0, 0)


PURPOSES = {
    Purpose.COMPLETION: ("/v1/completions", {"prompt": "가나다", "max_tokens": 5}, LimitName.TOKENS_PER_MONTH, 8),
    Purpose.EMBEDDING: ("/v1/embeddings", {"input": ["가나", "다"]}, LimitName.TOKENS_PER_MONTH, 3),
    Purpose.SCORE: (
        "/studio/v1/score",
        {"prompt": "가나", "continuations": ["다", "라마"]},
        LimitName.TOKENS_PER_MONTH,
        5,
    ),
    Purpose.GRADIENT: (
        "/studio/v1/gradients",
        {"examples": [{"target": "가"}] * 2},
        LimitName.BACKWARD_TOKENS_PER_MONTH,
        20,
    ),
}


@pytest.mark.parametrize("purpose", PURPOSES)
class TestPurpose:
    async def test_takes_what_it_counts(self, studio, purpose):
        path, body, name, amount = PURPOSES[purpose]
        await limit(studio, name, amount * 2)
        await limit(studio, name, amount * 2 - 1, purpose=purpose)
        first = await studio.http.post(path, json=body | {"model": MODEL})
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == str(amount * 2 - 1)
        assert first.headers["x-ratelimit-remaining-tokens"] == str(amount - 1)
        assert (await studio.http.post(path, json=body | {"model": MODEL})).status_code == 429
        found = (await studio.http.get("/studio/v1/quotas")).json()["data"]
        assert [(quota["used"], quota["reserved"]) for quota in found] == [(amount, 0)] * 2

    async def test_is_not_held_up_by_the_limits_of_another(self, studio, purpose):
        path, body, name, _ = PURPOSES[purpose]
        for other in PURPOSES:
            if other is not purpose:
                await limit(studio, name, 0, purpose=other)
        assert (await studio.http.post(path, json=body | {"model": MODEL})).status_code == 200


class TestModel:
    async def test_limit_counts_its_soft_prompts(self, studio):
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 100, model=MODEL)
        assert (await complete(studio, model="poet@1")).status_code == 200
        assert await taken(studio, LimitName.REQUESTS_PER_MINUTE) == (1, 0)

    async def test_limit_of_another_is_not_in_the_way(self, studio):
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 0, model="another")
        assert (await complete(studio)).status_code == 200


class TestRefusal:
    async def test_names_the_limit_and_when_to_come_again(self, studio):
        await one_minute()
        await limit(studio, LimitName.TOKENS_PER_MINUTE, 10)
        assert (await complete(studio)).status_code == 200
        response = await studio.http.post(
            "/studio/v1/score", json={"model": MODEL, "prompt": "가나", "continuations": ["다"]}
        )
        problem = response.json()
        assert (response.status_code, problem["code"]) == (429, "quota_exceeded")
        details = problem["details"]
        assert (details["limit"], details["model"], details["purpose"]) == ("tokens_per_minute", "*", "*")
        assert (details["value"], details["used"], details["reserved"], details["requested"]) == (10, 8, 0, 3)
        assert 1 <= int(response.headers["retry-after"]) == details["retry_after_s"] <= MINUTE_S
        assert "Your account's limit tokens_per_minute is 10: 8 are used" in problem["detail"]
        assert response.headers["x-ratelimit-remaining-tokens"] == "2"

    async def test_of_what_can_never_fit_says_so_and_when_to_come_again_not(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MINUTE, 7)
        response = await complete(studio)
        assert response.status_code == 429
        assert "retry-after" not in response.headers
        assert "can never be served. Ask for less" in response.json()["error"]["message"]

    async def test_by_several_limits_tells_of_the_one_that_is_in_the_way_for_longest(self, studio):
        await one_minute()
        for name in (LimitName.TOKENS_PER_MINUTE, LimitName.TOKENS_PER_MONTH, LimitName.CONCURRENT_REQUESTS):
            await limit(studio, name, 10)
        assert (await complete(studio)).status_code == 200
        assert "tokens_per_month" in (await complete(studio)).json()["error"]["message"]

    async def test_takes_nothing_of_the_limits_that_had_room(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 100)
        await limit(studio, LimitName.CONCURRENT_REQUESTS, 0)
        assert (await complete(studio)).status_code == 429
        assert await taken(studio, LimitName.TOKENS_PER_MONTH) == (0, 0)

    @pytest.mark.parametrize("stream", [False, True])
    async def test_is_openai_s_rate_limit_error(self, studio, stream):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 1)
        with pytest.raises(openai.RateLimitError) as refused:
            await studio.client.completions.create(model=MODEL, prompt="가", max_tokens=5, stream=stream)
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "rate_limit_error")

    @pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
    async def test_is_tgi_s_overload(self, studio, path):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 1)
        response = await studio.http.post(path, json={"inputs": "가나", "parameters": {"max_new_tokens": 5}})
        assert (response.status_code, response.json()["error_type"]) == (429, "overloaded")
        assert "tokens_per_month" in response.json()["error"]


class TestHeaders:
    async def test_are_those_of_the_tightest_limits(self, studio):
        await one_minute()
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 10)
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 5, model=MODEL)
        await limit(studio, LimitName.TOKENS_PER_MINUTE, 500)
        await limit(studio, LimitName.TOKENS_PER_MONTH, 50)
        headers = (await complete(studio)).headers
        assert headers["x-ratelimit-limit-requests"] == "5"
        assert headers["x-ratelimit-remaining-requests"] == "4"
        assert headers["x-ratelimit-reset-requests"] in ["1m0s", *(f"{left}s" for left in range(1, MINUTE_S))]
        assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == ("50", "42")
        assert headers["x-ratelimit-reset-tokens"].endswith("s")

    async def test_stand_on_streams_of_every_dialect(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 1000)
        for path, body in (
            ("/v1/completions", {"model": MODEL, "prompt": "가", "stream": True}),
            ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "가"}], "stream": True}),
            ("/generate_stream", {"inputs": "가", "parameters": {"max_new_tokens": 5}}),
            ("/generate", {"inputs": "가", "parameters": {"max_new_tokens": 5}}),
        ):
            response = await studio.http.post(path, json=body)
            assert response.status_code == 200
            assert response.headers["x-ratelimit-limit-tokens"] == "1000"
            assert "x-ratelimit-limit-requests" not in response.headers

    async def test_stand_on_refusals_of_every_limit_that_applies(self, studio):
        await limit(studio, LimitName.CONCURRENT_REQUESTS, 0)
        await limit(studio, LimitName.REQUESTS_PER_MINUTE, 5)
        await limit(studio, LimitName.TOKENS_PER_MONTH, 1000)
        refused = await studio.http.post("/v1/completions", json={"model": MODEL, "prompt": "가"})
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-remaining-requests"] == "5"
        assert refused.headers["x-ratelimit-remaining-tokens"] == "1000"

    async def test_are_not_there_without_limits(self, studio):
        response = await complete(studio)
        assert not [name for name in response.headers if name.startswith("x-ratelimit")]


class TestList:
    async def test_shows_the_account_its_own_limits(self, studio):
        assert (await studio.http.get("/studio/v1/quotas")).json() == {"data": []}
        await limit(studio, LimitName.TOKENS_PER_MONTH, 100, purpose=Purpose.COMPLETION)
        await limit(studio, LimitName.CONCURRENT_REQUESTS, 3)
        await complete(studio)
        month = await standing(studio, LimitName.TOKENS_PER_MONTH)
        assert (month["value"], month["used"], month["reserved"], month["remaining"]) == (100, 8, 0, 92)
        assert (month["model"], month["purpose"]) == ("*", "completion")
        assert month["resets_at"].endswith("-01T00:00:00Z")
        assert (await standing(studio, LimitName.CONCURRENT_REQUESTS))["resets_at"] is None

    async def test_keeps_what_is_taken_when_a_limit_is_lowered(self, studio):
        await limit(studio, LimitName.TOKENS_PER_MONTH, 100)
        await complete(studio)
        await limit(studio, LimitName.TOKENS_PER_MONTH, 5)
        month = await standing(studio, LimitName.TOKENS_PER_MONTH)
        assert (month["value"], month["used"], month["remaining"]) == (5, 8, 0)


class TestCommand:
    async def test_sets_lists_and_removes_limits(self, neighbours, hunmin, tmp_path):
        async with fresh_database() as database:
            env = {"HUNMIN_DATABASE_URL": database, "HUNMIN_HOME": str(tmp_path)}
            async with running(SERVICE, *neighbours, env=env, network=True) as up:
                first, *_ = await up.announcements("gateway")
                key = first.split("shown this once: ")[1].split()[0]
                headers = {"Authorization": f"Bearer {key}"}
                async with httpx.AsyncClient(base_url=up.url("gateway"), headers=headers) as http:
                    body = {"model": MODEL, "prompt": "가", "max_tokens": 1}
                    setting = ["quotas", "set", "default", "tokens_per_month", "2", "--purpose", "completion"]
                    made = await hunmin(setting, env)
                    limit_id = made.split(":")[0]
                    assert (await http.post("/v1/completions", json=body)).status_code == 200
                    assert (await http.post("/v1/completions", json=body)).status_code == 429
                    listed = await hunmin(["quotas", "list"], env)
                    assert all(part in listed for part in (limit_id, "default", "tokens_per_month", "completion"))
                    setting[4] = "4"
                    assert (await hunmin(setting, env)).startswith(limit_id)
                    assert (await http.post("/v1/completions", json=body)).status_code == 200
                    await hunmin(["quotas", "remove", limit_id], env)
                    assert (await http.post("/v1/completions", json=body)).status_code == 200
                with pytest.raises(HunminError, match="no limit quota_none"):
                    await hunmin(["quotas", "remove", "quota_none"], env)
                with pytest.raises(HunminError, match="no account 'nobody'"):
                    await hunmin(["quotas", "set", "nobody", "tokens_per_month", "1"], env)

    @pytest.mark.parametrize(
        "arguments", [["default", "tokens", "1"], ["default", "tokens_per_month", "-1"], ["default"]]
    )
    async def test_refuses_what_is_no_limit(self, hunmin, arguments, capsys):
        with pytest.raises(SystemExit):
            await hunmin(["quotas", "set", *arguments], {})
        assert "usage:" in capsys.readouterr().err
