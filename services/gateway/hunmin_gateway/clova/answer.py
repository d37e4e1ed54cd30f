"""Sends what a writer makes of an exchange: whole in the envelope, or as CLOVA Studio's server-sent events."""

from collections.abc import AsyncGenerator
from itertools import count
from typing import Any, Protocol

from fastapi import Request
from hunmin_contracts.errors import Problem
from hunmin_contracts.generation import GenerateRequest
from hunmin_kit.web import EventStream
from pydantic import BaseModel
from starlette.responses import Response

from hunmin_gateway.clova.envelope import Camel, Envelope, error_body
from hunmin_gateway.exchange import Event, Exchange
from hunmin_gateway.pipeline import Pipeline

_STREAM = "text/event-stream"


class Writer(Protocol):
    """One kind of answer, written piece by piece."""

    def take(self, event: Event) -> Camel | None:
        """Take note of an event; return the piece of text that it brings, if any."""

    def result(self) -> Camel:
        """Return the whole answer."""


class _Signal(BaseModel):
    data: str


def wants_stream(request: Request) -> bool:
    """Tell whether the header asks for a stream."""
    kinds = request.headers.get("accept", "").split(",")
    return any(kind.partition(";")[0].strip().lower() == _STREAM for kind in kinds)


async def answer_whole(pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer) -> Response:
    """Return the answer in one body, once all of it is there."""
    async with pipeline.run(exchange) as events:
        async for _, event in events:
            writer.take(event)
    body = Envelope[Any](result=writer.result())
    return Response(body.model_dump_json(by_alias=True), media_type="application/json")


def answer_streamed(pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer) -> Response:
    """Return the answer as a stream. A prompt that is refused is still an error status; a later failure is an event."""
    return EventStream(_frames(pipeline, exchange, writer), on_error=_error_event)


async def _frames(
    pipeline: Pipeline, exchange: Exchange[GenerateRequest], writer: Writer
) -> AsyncGenerator[bytes, None]:
    numbers = count(1)

    def frame(name: str, data: BaseModel) -> bytes:
        return _frame(f"{exchange.request_id}-{next(numbers)}", name, data)

    async with pipeline.run(exchange) as events:
        await events.accepted()
        async for _, event in events:
            piece = writer.take(event)
            if piece is not None:
                yield frame("token", piece)
    # Behind the context the usage is settled: whoever has seen the end of a stream finds its row.
    yield frame("result", writer.result())
    yield frame("signal", _Signal(data="[DONE]"))


def _error_event(problem: Problem) -> bytes:
    return _frame(f"{problem.request_id}-error", "error", error_body(problem))


def _frame(event_id: str, name: str, data: BaseModel) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {data.model_dump_json(by_alias=True)}\n\n".encode()
