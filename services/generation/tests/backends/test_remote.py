"""What a remote server may do wrong, and what the operator may: each ends in the error that tells whose fault it is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import torch
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GENERATE, MODELS, ChunkEvent, GenerateRequest, Sampling, UsageEvent
from hunmin_contracts.schema import Empty
from hunmin_generation.backends.server import RemoteServer
from hunmin_generation.backends.tgi import TgiModel
from hunmin_generation.backends.vllm import VllmModel
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.service import SERVICE
from hunmin_kit.run.errors import StartError
from hunmin_kit.testing import running
from hunmin_modeling.soft_prompt import SoftPromptRows

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "영화는"


@asynccontextmanager
async def canned(*, status: str = "200 OK", body: str = "", is_cut: bool = False) -> AsyncIterator[str]:
    """A server that answers everything alike; yields its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        content = body.encode()
        length = len(content) + (99 if is_cut else 0)
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n".encode() + content)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def remote(kind: str, url: str, model: Any) -> TgiModel | VllmModel:
    server = RemoteServer("big", url, api_key=None)
    given = ("big", model.folder, model.tokenizer, server)
    if kind == "tgi":
        return TgiModel(*given, on_first_token=lambda seconds: None)
    return VllmModel(*given, served_as="big", on_first_token=lambda seconds: None)


async def outcome(kind: str, url: str, model: Any) -> HunminError | list[Any]:
    """The error of a request, or its events."""
    backend = remote(kind, url, model)
    request = EngineRequest(model.tokenizer.encode(PROMPT), sampling=Sampling(temperature=0), max_tokens=2)
    try:
        async with aclosing(backend.generate(request, text=PROMPT)) as events:
            return [event async for event in events]
    except HunminError as error:
        return error
    finally:
        await backend.close()


async def failure(kind: str, url: str, model: Any) -> HunminError:
    found = await outcome(kind, url, model)
    assert isinstance(found, HunminError)
    return found


def sse(*events: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)


def token_event(kind: str, token: int, *, ends: bool = False, prompt_tokens: int | None = None) -> dict[str, Any]:
    if kind == "tgi":
        details = {"input_length": prompt_tokens, "finish_reason": "length", "generated_tokens": 2}
        event = {"index": 1, "token": {"id": token, "text": "\u2028", "logprob": -1.0, "special": False}}
        return event | {"generated_text": "\u2028" if ends else None, "details": details if prompt_tokens else None}
    choice = {"index": 0, "text": "\u2028", "token_ids": [token], "finish_reason": "length" if ends else None}
    return {"choices": [choice], "usage": {"prompt_tokens": prompt_tokens} if prompt_tokens else None}


@pytest.mark.parametrize("kind", ["tgi", "vllm"])
class TestServer:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            ("400 Bad Request", ErrorCode.INVALID_PARAMETER),
            ("422 Unprocessable Entity", ErrorCode.INVALID_PARAMETER),
            ("413 Content Too Large", ErrorCode.TOO_LARGE),
            ("429 Too Many Requests", ErrorCode.OVERLOADED),
            ("401 Unauthorized", ErrorCode.UNAVAILABLE),  # our key, not the caller's
            ("424 Failed Dependency", ErrorCode.UNAVAILABLE),
            ("500 Internal Server Error", ErrorCode.UNAVAILABLE),
            ("503 Service Unavailable", ErrorCode.UNAVAILABLE),
        ],
    )
    @pytest.mark.parametrize("body", ['{"error": "no luck", "error_type": "x"}', '{"error": {"message": "no luck"}}'])
    async def test_its_status_tells_whose_fault_it_is(
        self, kind: str, status: str, code: ErrorCode, body: str, model: Any
    ) -> None:
        async with canned(status=status, body=body) as url:
            error = await failure(kind, url, model)
        assert error.code is code
        assert "big" in error.message
        assert "no luck" in error.message
        if code in (ErrorCode.OVERLOADED, ErrorCode.UNAVAILABLE):
            assert error.details["retry_after_s"] >= 1

    @pytest.mark.parametrize(
        ("events", "code"),
        [
            (({"error": "too long", "error_type": "validation"},), ErrorCode.INVALID_PARAMETER),
            (({"error": "full", "error_type": "overloaded"},), ErrorCode.OVERLOADED),
            (({"error": "crashed", "error_type": "generation"},), ErrorCode.UNAVAILABLE),
            (({"error": {"message": "out of vocabulary", "code": 400}},), ErrorCode.INVALID_PARAMETER),
            (({"error": {"message": "crashed", "code": 500}},), ErrorCode.UNAVAILABLE),
        ],
    )
    async def test_an_error_within_the_stream(
        self, kind: str, events: tuple[dict[str, Any], ...], code: ErrorCode, model: Any
    ) -> None:
        is_of_vllm = isinstance(events[0]["error"], dict)
        if is_of_vllm != (kind == "vllm"):
            events = ({"error": events[0]["error"]},)
            code = ErrorCode.UNAVAILABLE  # an error of a shape that it never has
        async with canned(body=sse(*events)) as url:
            assert (await failure(kind, url, model)).code is code

    @pytest.mark.parametrize("body", ["", "data: {\n\n", "data: 7\n\n", sse({"nothing": 1}), "<html>"])
    async def test_an_answer_that_is_none(self, kind: str, body: str, model: Any) -> None:
        async with canned(body=body) as url:
            assert (await failure(kind, url, model)).code is ErrorCode.UNAVAILABLE

    async def test_a_stream_that_breaks_off(self, kind: str, model: Any) -> None:
        for is_cut in (True, False):
            async with canned(body=sse(token_event(kind, 40)), is_cut=is_cut) as url:
                assert (await failure(kind, url, model)).code is ErrorCode.UNAVAILABLE

    async def test_nobody_listens(self, kind: str, model: Any) -> None:
        async with canned() as url:
            pass
        assert (await failure(kind, url, model)).code is ErrorCode.UNAVAILABLE
        backend = remote(kind, url, model)
        with pytest.raises(HunminError, match="cannot be reached") as error:
            await backend.check_ready()
        assert error.value.code is ErrorCode.UNAVAILABLE
        await backend.close()

    async def test_a_line_separator_in_json_is_no_end_of_line(self, kind: str, model: Any) -> None:
        async with canned(body=sse(token_event(kind, 40), token_event(kind, 41, ends=True))) as url:
            found = await outcome(kind, url, model)
        assert isinstance(found, list)
        prompt = model.tokenizer.encode(PROMPT)
        assert found[-1] == UsageEvent(prompt_tokens=len(prompt), completion_tokens=2)
        assert "".join(event.text for event in found if isinstance(event, ChunkEvent)) == model.tokenizer.decode(
            [40, 41]
        )


@pytest.mark.parametrize("kind", ["tgi", "vllm"])
class TestAnotherModelThanTheFolder:
    async def test_counts_another_prompt(self, kind: str, model: Any) -> None:
        async with canned(body=sse(token_event(kind, 40, prompt_tokens=999))) as url:
            assert "counts 999 tokens" in (await failure(kind, url, model)).message

    async def test_knows_other_tokens(self, kind: str, model: Any) -> None:
        async with canned(body=sse(token_event(kind, 70_000))) as url:
            assert "generated token 70000" in (await failure(kind, url, model)).message

    async def test_ends_on_other_tokens(self, kind: str, model: Any) -> None:
        async with canned(body=sse(token_event(kind, 40, ends=True))) as url:
            assert "before its end" in (await failure(kind, url, model)).message


async def test_a_vllm_server_of_another_model_is_not_ready(model: Any) -> None:
    async with canned(body='{"data": [{"id": "other"}]}') as url:
        backend = remote("vllm", url, model)
        with pytest.raises(HunminError, match="does not serve big, but other"):
            await backend.check_ready()
        await backend.close()


async def test_each_soft_prompt_of_each_account_has_a_part_of_vllms_cache(model: Any) -> None:
    backend = remote("vllm", "http://127.0.0.1:1", model)
    assert isinstance(backend, VllmModel)
    rows = torch.zeros(2, 128)

    def salt(account: str, key: str | None) -> str:
        soft_prompt = None if key is None else SoftPromptRows(key, rows)
        return str(backend._body(EngineRequest([5], salt=account, soft_prompt=soft_prompt), 2).get("cache_salt"))

    salts = [salt(account, key) for account in ("", "acct_1", "acct_2") for key in (None, "sp_1", "sp_2")]
    assert len(set(salts)) == 9
    assert salt("acct_1", "sp_1") in salts
    await backend.close()


class TestSettings:
    def environ(self, model: Any, backends: Any) -> dict[str, str]:
        models = json.dumps({"tiny": str(model.folder)})
        return {"HUNMIN_GENERATION_MODELS": models, "HUNMIN_GENERATION_BACKENDS": json.dumps(backends)}

    @pytest.mark.parametrize(
        ("backends", "reason"),
        [
            ({"other": {"kind": "vllm", "url": "http://localhost:1"}}, "other"),
            ({"tiny": {"kind": "ollama", "url": "http://localhost:1"}}, "vllm"),
            ({"tiny": {"kind": "vllm"}}, "required"),
            ({"tiny": {"kind": "vllm", "url": "localhost"}}, "URL"),
            ({"tiny": {"kind": "tgi", "url": "http://localhost:1", "served_as": "x"}}, "served_as is for vLLM"),
            ({"tiny": {"kind": "tgi", "url": "http://localhost:1", "model": "x"}}, "not permitted"),
        ],
    )
    async def test_what_is_inconsistent_stops_the_start(self, model: Any, backends: Any, reason: str) -> None:
        with pytest.raises(StartError, match=f"(?i){reason}"):
            async with running(SERVICE, env=self.environ(model, backends)):
                pass

    async def test_a_model_answers_from_elsewhere_as_it_would_here(self, model: Any, tgi_url: tuple[str, str]) -> None:
        url, key = tgi_url
        request = GenerateRequest(
            account_id="acct_1", model="tiny", prompt=PROMPT, max_tokens=9, sampling=Sampling(temperature=0), logprobs=1
        )
        texts, infos = [], []
        for backends in ({}, {"tiny": {"kind": "tgi", "url": url, "api_key": key}}):
            async with running(SERVICE, env=self.environ(model, backends)) as service:
                assert (await service.http("generation").get("/readyz")).status_code == 200
                async with service.client("generation").stream(GENERATE, request) as stream:
                    found = [event.root async for event in stream]
                infos.append(await service.client("generation").call(MODELS, Empty()))
                texts.append("".join(event.text for event in found if isinstance(event, ChunkEvent)))
                assert found[-1] == UsageEvent(prompt_tokens=len(model.tokenizer.encode(PROMPT)), completion_tokens=9)
        assert texts[0] == texts[1]
        assert infos[0] == infos[1]

    async def test_it_is_not_ready_while_the_server_is_not(self, model: Any) -> None:
        async with canned(status="503 Service Unavailable") as url:
            backends = {"tiny": {"kind": "tgi", "url": url}}
            async with running(SERVICE, env=self.environ(model, backends)) as service:
                response = await service.http("generation").get("/readyz")
        assert response.status_code == 503
        assert "tiny" in response.json()["detail"]
