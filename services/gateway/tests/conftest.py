"""A gateway on a real port and a real database, before a small generation service and a small tokenizer service.

The two are services on the same contracts as the real ones. The model is a parrot: it answers with the characters of
its prompt, one a token, and a prompt, or a chat, that starts with `!` makes it fail as named.
"""

import argparse
import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import httpx
import openai
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from hunmin_contracts import datasets, tokenization
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import (
    EMBED,
    GENERATE,
    MEASURE,
    MEASURE_EMBED,
    MEASURE_SCORE,
    MODELS,
    SCORE,
    ChunkEvent,
    ContinuationScore,
    Embedding,
    EmbedRequest,
    EmbedResponse,
    GenerateEvent,
    GenerateRequest,
    Measurement,
    ModelList,
    PromptEvent,
    ScoreRequest,
    ScoreResponse,
    TokenLogprob,
    TopToken,
    UsageEvent,
)
from hunmin_contracts.gradients import (
    GRADIENTS,
    MEASURE_GRADIENTS,
    ExampleGradient,
    GradientEvent,
    GradientProgress,
    GradientRequest,
    GradientResponse,
    GradientResult,
    GradientUsage,
    TargetToken,
)
from hunmin_contracts.ids import AccountId, DatasetId
from hunmin_contracts.schema import Empty
from hunmin_contracts.soft_prompts import IMPORT
from hunmin_contracts.tenancy import Role
from hunmin_contracts.usage import CallOrigin
from hunmin_gateway.commands import accounts, keys, quotas
from hunmin_gateway.commands.command import answer
from hunmin_gateway.keys.ring import KeyRing
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.parts import Parts, parts_of_app
from hunmin_gateway.service import SERVICE
from hunmin_gateway.tables import ApiKey
from hunmin_generation.usage import UsageEvents
from hunmin_kit.run import Platform, Service, Settings
from hunmin_kit.testing import Running, running
from hunmin_kit.web import current_request_id, serve
from pydantic import Field
from sqlalchemy import select

from .shelf import CONTEXT, MODEL, POET, Shelf


class ServiceSettings(Settings):
    """A port is all that it needs."""

    port: int = Field(default=0)


@dataclass
class Parrot:
    """The generation service of the tests: what it was asked, and how many sequences run. It tells of completions.

    `metered` is how many tokens of prompt and completions it has told of, by the id of the request.
    """

    shelf: Shelf = field(default_factory=Shelf)
    requests: list[GenerateRequest] = field(default_factory=list)
    measured: list[object] = field(default_factory=list)
    soft_prompts: list[bytes] = field(default_factory=list)  # the files that came with gradients, to be measured too
    metered: dict[str, int] = field(default_factory=dict)
    origins: list[CallOrigin | None] = field(default_factory=list)  # of all calls
    running: int = 0
    generated: int = 0
    refusals: int = 0  # how often it will still be full

    def service(self) -> Service[ServiceSettings]:
        """Return it as a service."""

        @asynccontextmanager
        async def build(platform: Platform, _: ServiceSettings) -> AsyncIterator[FastAPI]:
            events = platform.events()
            usage = UsageEvents(events, platform.database())
            app = platform.app(title="generation", upload_paths=[IMPORT.path])
            app.include_router(self._routes(usage))
            async with events.running():
                yield app
            await usage.finish()

        return Service(
            name="generation", settings=ServiceSettings, build=build, migrations="hunmin_generation.migrations"
        )

    def _routes(self, usage: UsageEvents) -> APIRouter:
        router = APIRouter()

        @serve(router, MODELS)
        async def models(_: Empty) -> ModelList:
            return ModelList(models=[MODEL])

        self.shelf.mount(router)

        @serve(router, GENERATE)
        async def generate(request: GenerateRequest) -> AsyncIterator[GenerateEvent]:
            self.requests.append(request)
            self.origins.append(request.origin)
            self.running += request.n
            try:
                async with usage.metered(request) as meter, aclosing(self._answer(request)) as events:
                    async for event in events:
                        meter.count(event)
                        yield GenerateEvent(event)
            finally:
                self.running -= request.n

        @serve(router, GRADIENTS)
        async def gradients(request: GradientRequest, file: BinaryIO) -> AsyncIterator[GradientEvent]:
            self.soft_prompts += [file.read()] if request.has_soft_prompt else []
            self.origins.append(request.origin)
            self.running += 1
            try:
                async for event in _differentiate(request):
                    yield GradientEvent(event)
            finally:
                self.running -= 1

        self._mount_measures(router)
        _mount_scores(router)
        return router

    def _mount_measures(self, router: APIRouter) -> None:
        def measured(request: object, **counts: int) -> Measurement:
            self.measured.append(request)
            reference = POET.name + "@1" if request.model.startswith(POET.name) else request.model
            return Measurement(model=MODEL.name, reference=reference, **counts)

        @serve(router, MEASURE)
        async def measure(request: GenerateRequest) -> Measurement:
            prompt = _admit(request)
            return measured(request, prompt_tokens=len(prompt), max_tokens=_wanted(prompt, request))

        @serve(router, MEASURE_SCORE)
        async def measure_score(request: ScoreRequest) -> Measurement:
            return measured(request, prompt_tokens=sum(map(len, [request.prompt, *request.continuations])))

        @serve(router, MEASURE_EMBED)
        async def measure_embed(request: EmbedRequest) -> Measurement:
            return measured(request, prompt_tokens=sum(map(len, request.inputs)))

        @serve(router, MEASURE_GRADIENTS)
        async def measure_gradients(request: GradientRequest, file: BinaryIO) -> Measurement:
            self.soft_prompts += [file.read()] if request.has_soft_prompt else []
            examples = len(request.examples)
            return measured(request, prompt_tokens=4 * examples, backward_tokens=10 * examples)

    async def _answer(self, request: GenerateRequest) -> AsyncIterator[PromptEvent | ChunkEvent | UsageEvent]:
        prompt = _admit(request)
        if self.refusals:
            self.refusals -= 1
            raise HunminError(ErrorCode.OVERLOADED, "The queue is full.", retry_after_s=1)
        order = prompt.removeprefix("user:")
        _fail(order)
        tokens = [_token(character, None if index == 0 else -1.0, request) for index, character in enumerate(prompt)]
        wanted = _wanted(prompt, request)
        request_id = current_request_id()
        self.metered[request_id] = self.metered.get(request_id, 0) + len(prompt)
        with_logprobs = request.logprobs is not None
        yield PromptEvent(
            prompt_tokens=len(prompt),
            text=prompt if request.echo else None,
            tokens=tokens if request.echo and with_logprobs else [],
        )
        for step in range(wanted):
            for index in range(request.n):
                if order.startswith("!slow"):
                    await asyncio.sleep(0.01)
                if order.startswith("!break") and step == 2:
                    raise HunminError(ErrorCode.UNAVAILABLE, "The engine stopped.", retry_after_s=3)
                if order.startswith("!early") and step == 2:
                    return
                character = prompt[(step + index) % len(prompt)] if prompt else "가"
                self.generated += 1
                self.metered[request_id] += 1
                is_last = step == wanted - 1
                is_ended = is_last and order.startswith("!end")
                token = _token("" if is_ended else character, -0.5 / (1 + index), request)
                reported = [token] if with_logprobs else []
                yield ChunkEvent(
                    index=index,
                    text="" if is_ended else character,
                    completion_tokens=step + 1,
                    tokens=[] if is_ended else reported,
                    withheld=reported if is_ended else [],
                    finish_reason=None if not is_last else "stop" if request.stop or is_ended else "length",
                    stop=request.stop[0] if is_last and request.stop and not is_ended else None,
                )
        yield UsageEvent(prompt_tokens=len(prompt), completion_tokens=wanted * request.n)


async def _differentiate(request: GradientRequest) -> AsyncIterator[GradientProgress | GradientResult]:
    """Take an example a step: 10 positions each, 4 of them prompt. Templates make it fail in the way that is named."""
    for done, example in enumerate(request.examples, start=1):
        usage = GradientUsage(prompt_tokens=4 * done, backward_tokens=10 * done)
        yield GradientProgress(usage=usage)
        match example.template:
            case "!slow":
                await asyncio.Event().wait()
            case "!overloaded":
                raise HunminError(ErrorCode.OVERLOADED, "The queue is full.", retry_after_s=7)
            case "!early":
                return
    outcome = ExampleGradient(loss=2.0, target=[TargetToken(id=1, text="가", logprob=-2.0)])
    response = GradientResponse(loss=2.0, examples=[outcome] * len(request.examples), usage=usage)
    yield GradientResult(response=response)


def _text(request: GenerateRequest) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return "".join(chr(part) if isinstance(part, int) else f"{part.role}:{part.content}\n" for part in request.prompt)


def _mount_scores(router: APIRouter) -> None:
    @serve(router, SCORE)
    async def score(request: ScoreRequest) -> ScoreResponse:
        scores = [ContinuationScore(logprob=-1.0, mean_logprob=-1.0, tokens=[]) for _ in request.continuations]
        return ScoreResponse(
            scores=scores,
            prompt_tokens=len(request.prompt),
            continuation_tokens=sum(map(len, request.continuations)),
        )

    @serve(router, EMBED)
    async def embed(request: EmbedRequest) -> EmbedResponse:
        return EmbedResponse(embeddings=[Embedding(vector=[1.0], tokens=len(one)) for one in request.inputs])


def _wanted(prompt: str, request: GenerateRequest) -> int:
    return request.max_tokens if request.max_tokens is not None else CONTEXT - len(prompt)


def _admit(request: GenerateRequest) -> str:
    """Return the text of the prompt; refuse what can never be served."""
    if request.model not in (MODEL.name, POET.name, POET.name + "@1"):
        raise HunminError(ErrorCode.MODEL_NOT_FOUND, f"There is no model {request.model!r}.")
    prompt = _text(request)
    if len(prompt) + (request.max_tokens or 0) > CONTEXT and not prompt.startswith("!slow"):
        raise HunminError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The prompt has {len(prompt)} tokens and max_tokens is {request.max_tokens}; the model holds {CONTEXT}.",
            param="prompt",
        )
    return prompt


def _fail(prompt: str) -> None:
    if prompt.startswith("!overloaded"):
        raise HunminError(ErrorCode.OVERLOADED, "The queue is full. Retry after 7 s.", retry_after_s=7)
    if prompt.startswith("!crash"):
        raise RuntimeError("a bug, with the secret prompt in its message")


def _token(character: str, logprob: float | None, request: GenerateRequest) -> TokenLogprob:
    candidates = [
        TopToken(id=k, text="가", bytes=list("가".encode()), logprob=-2.0) for k in range(request.logprobs or 0)
    ]
    if not character:
        return TokenLogprob(id=0, text="<|end|>", bytes=[], logprob=logprob, top=candidates)
    return TokenLogprob(
        id=ord(character), text=character, bytes=list(character.encode()), logprob=logprob, top=candidates
    )


def _tokenizer() -> Service[ServiceSettings]:
    router = APIRouter()

    def known(name: str) -> None:
        if name != "letters":
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no tokenizer {name!r}. There is: letters.")

    @serve(router, tokenization.TOKENIZERS)
    async def tokenizers(_: Empty) -> tokenization.TokenizerList:
        info = tokenization.TokenizerInfo(name="letters", method="char", vocab_size=1, digest=MODEL.tokenizer_digest)
        return tokenization.TokenizerList(tokenizers=[info])

    @serve(router, tokenization.ENCODE)
    async def encode(request: tokenization.EncodeRequest) -> tokenization.EncodeResponse:
        known(request.tokenizer)
        offsets = [(place, place + 1) for place in range(len(request.text))]
        return tokenization.EncodeResponse(ids=list(map(ord, request.text)), offsets=offsets)

    @serve(router, tokenization.DECODE)
    async def decode(request: tokenization.DecodeRequest) -> tokenization.DecodeResponse:
        known(request.tokenizer)
        return tokenization.DecodeResponse(text="".join(map(chr, request.ids)))

    @serve(router, tokenization.COUNT)
    async def count(request: tokenization.CountRequest) -> tokenization.CountResponse:
        known(request.tokenizer)
        return tokenization.CountResponse(counts=list(map(len, request.texts)))

    @serve(router, tokenization.MORPHEMES)
    async def morphemes(request: tokenization.MorphemesRequest) -> tokenization.MorphemesResponse:
        known(request.tokenizer)
        token = tokenization.MorphemeToken(id=1, text=request.text, span=(0, len(request.text)), pos="NNG")
        return tokenization.MorphemesResponse(tokens=[token])

    return _service("tokenizer", router)


def _dataset(request: datasets.UploadRequest, size: int) -> datasets.DatasetInfo:
    return datasets.DatasetInfo(
        id=DatasetId(f"ds_{request.account_id}"),
        name=request.name,
        version=1,
        format=request.format or "csv",
        encoding="utf-8",
        columns=[str(request.filename)],
        rows=size,
        digest="3" * 64,
        size_bytes=size,
        findings=[],
        created_at=POET.created_at,
    )


def _tuning() -> Service[ServiceSettings]:
    """One dataset, `reviews`, which is whatever was sent last."""
    router = APIRouter()
    kept: list[datasets.DatasetInfo] = []

    def known(reference: str) -> datasets.DatasetInfo:
        if not kept or reference not in ("reviews", "reviews@1"):
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no dataset {reference!r}.")
        return kept[-1]

    @serve(router, datasets.UPLOAD)
    async def upload(request: datasets.UploadRequest, file: BinaryIO) -> datasets.DatasetInfo:
        content = file.read()
        if content.startswith(b"bad"):
            raise HunminError(ErrorCode.INVALID_REQUEST, "Line 7: no.", param="file", line=7)
        kept.append(_dataset(request, len(content)))
        return kept[-1]

    @serve(router, datasets.LIST)
    async def page(request: datasets.ListRequest) -> datasets.DatasetPage:
        return datasets.DatasetPage(
            data=kept[-1:] if request.after is None else [], has_more=bool(kept) and request.after is None
        )

    @serve(router, datasets.DESCRIBE)
    async def describe(request: datasets.DatasetRequest) -> datasets.DatasetInfo:
        return known(request.reference)

    @serve(router, datasets.REPORT)
    async def report(request: datasets.ReportRequest) -> datasets.DatasetReport:
        info = known(request.reference)
        return datasets.DatasetReport(
            dataset_id=info.id,
            name=info.name,
            version=1,
            passes=False,
            rows=request.seed,
            splits={},
            labels=request.template.verbalizers and dict.fromkeys(request.template.verbalizers, 1),
            tokens=datasets.TokenCounts(mean=0, longest=0, total=request.slots[0]),
            context_length=CONTEXT,
            findings=[],
        )

    @serve(router, datasets.ROWS)
    async def rows(request: datasets.RowsRequest) -> datasets.RowsResponse:
        known(request.reference)
        fields = {"limit": str(request.limit), "seed": str(request.seed)}
        return datasets.RowsResponse(rows=[datasets.DatasetRow(line=request.offset, fields=fields)])

    @serve(router, datasets.DELETE)
    async def delete(request: datasets.DatasetRequest) -> Empty:
        known(request.reference)
        kept.clear()
        return Empty()

    return _service("tuning", router, upload_paths=[datasets.UPLOAD.path])


def _service(name: str, router: APIRouter, *, upload_paths: Sequence[str] = ()) -> Service[ServiceSettings]:
    @asynccontextmanager
    async def build(platform: Platform, _: ServiceSettings) -> AsyncIterator[FastAPI]:
        app = platform.app(title=name, upload_paths=upload_paths)
        app.include_router(router)
        yield app

    return Service(name=name, settings=ServiceSettings, build=build)


@dataclass
class Studio:
    """A running gateway, as the account of one key sees it."""

    url: str
    key: str
    account_id: AccountId
    parts: Parts
    parrot: Parrot
    client: openai.AsyncOpenAI
    http: httpx.AsyncClient

    async def usage(self, **query: str) -> list[dict]:
        """Return the account's usage, newest first."""
        response = await self.http.get("/studio/v1/usage", params=query)
        response.raise_for_status()
        return response.json()["data"]


@pytest.fixture(scope="session")
def hunmin() -> Callable[[list[str], Mapping[str, str]], Awaitable[str]]:
    """What parses the arguments of an operator's command and does its work, on the database that variables name."""
    parser = argparse.ArgumentParser(prog="hunmin")
    parsers = parser.add_subparsers(required=True)
    for add in (keys.add, quotas.add, accounts.add):
        add(parsers)

    async def run(arguments: list[str], environ: Mapping[str, str]) -> str:
        return await answer(parser.parse_args(arguments), environ)

    return run


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """What clients have for TLS. Plain HTTP has no use for it, and each client would make its own in 40 ms."""
    return ssl.create_default_context()


@pytest.fixture(scope="session")
def parrot() -> Parrot:
    """The model."""
    return Parrot()


@pytest.fixture(scope="session")
def neighbours(parrot: Parrot) -> list[Service]:
    """The services that a gateway needs."""
    return [parrot.service(), _tokenizer(), _tuning()]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(neighbours: list[Service]) -> AsyncIterator[Running]:
    """The gateway that most tests share; each test has an account of its own in it."""
    async with running(SERVICE, *neighbours, network=True) as up:
        yield up


@pytest_asyncio.fixture(loop_scope="session")
async def studio(gateway: Running, parrot: Parrot, tls: ssl.SSLContext) -> AsyncIterator[Studio]:
    """The shared gateway, before a new account and a model that has counted nothing."""
    parts = parts_of_app(gateway.app("gateway"))
    async with parts.database.session() as session:
        ring = KeyRing(session, pepper=parts.pepper)
        key, key_id = await ring.create(f"account {new_key()}", "test", role=Role.OWNER)
        account_id = await session.scalar(select(ApiKey.account_id).where(ApiKey.id == key_id))
    parrot.requests.clear()
    parrot.measured.clear()
    parrot.soft_prompts.clear()
    parrot.origins.clear()
    parrot.generated = 0
    url = gateway.url("gateway")
    async with (
        openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            max_retries=0,
            timeout=10,
            http_client=openai.DefaultAsyncHttpxClient(verify=tls),
        ) as client,
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10, verify=tls) as http,
    ):
        yield Studio(url, key, account_id, parts, parrot, client, http)
    deadline = time.monotonic() + 1
    while parrot.running:
        assert time.monotonic() < deadline, "a sequence still runs 1 s after its client left"
        await asyncio.sleep(0.01)
