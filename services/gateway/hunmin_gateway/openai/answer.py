"""Sends what a writer makes of an exchange: whole, or as OpenAI's server-sent events."""

from collections.abc import AsyncGenerator, Iterator
from typing import Generic, Protocol, TypeVar

from hunmin_contracts.generation import GenerateRequest
from hunmin_kit.web import EventStream
from pydantic import BaseModel
from starlette.responses import Response

from hunmin_gateway.exchange import Event, Exchange
from hunmin_gateway.openai.errors import error_event
from hunmin_gateway.openai.head import Usage
from hunmin_gateway.pipeline import Pipeline

PieceT = TypeVar("PieceT")


class Writer(Protocol, Generic[PieceT]):
    """One kind of completion, written piece by piece."""

    def pieces(self, number: int, event: Event) -> Iterator[PieceT]:
        """Yield what an event of prompt `number` adds."""

    def chunk(self, choices: list[PieceT], usage: Usage | None = None) -> BaseModel:
        """Return a chunk of a stream."""

    def whole(self, pieces: list[PieceT], usage: Usage) -> BaseModel:
        """Return the answer that all pieces make together."""


async def answer_whole(pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer[PieceT]) -> Response:
    """Return the answer in one body, once all of it is there."""
    async with pipeline.run(exchange) as events:
        pieces = [piece async for number, event in events for piece in writer.pieces(number, event)]
    return Response(writer.whole(pieces, _usage(exchange)).model_dump_json(), media_type="application/json")


def answer_streamed(
    pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer[PieceT], *, include_usage: bool
) -> Response:
    """Return the answer as a stream. A prompt that is refused is still an error status; a later failure is an event."""
    return EventStream(_frames(pipeline, exchange, writer, include_usage), on_error=error_event)


async def _frames(
    pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer[PieceT], include_usage: bool
) -> AsyncGenerator[bytes, None]:
    async with pipeline.run(exchange) as events:
        await events.accepted()
        async for number, event in events:
            for piece in writer.pieces(number, event):
                yield _frame(writer.chunk([piece]))
    # Behind the context the usage is settled: whoever has seen the end of a stream finds its row.
    if include_usage:
        yield _frame(writer.chunk([], _usage(exchange)))
    yield b"data: [DONE]\n\n"


def _frame(chunk: BaseModel) -> bytes:
    return b"data: " + chunk.model_dump_json().encode() + b"\n\n"


def _usage(exchange: Exchange[GenerateRequest]) -> Usage:
    meter = exchange.meter
    return Usage.of(prompt_tokens=meter.prompt_tokens, completion_tokens=meter.completion_tokens)
