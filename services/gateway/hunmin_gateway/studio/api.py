"""The routes of the Studio dialect: models, tokenizers, and the caller's own usage."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import MODELS, ModelList
from hunmin_contracts.schema import Empty, Schema
from hunmin_contracts.tokenization import (
    COUNT,
    DECODE,
    ENCODE,
    MORPHEMES,
    TOKENIZERS,
    CountRequest,
    CountResponse,
    DecodeRequest,
    DecodeResponse,
    EncodeRequest,
    EncodeResponse,
    MorphemesRequest,
    MorphemesResponse,
    TokenId,
    TokenizerList,
)
from hunmin_contracts.usage import UsagePage, UsageRow
from hunmin_kit.data import SessionDep
from pydantic import AfterValidator, AwareDatetime, TypeAdapter

from hunmin_gateway.authentication import CallerDep
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tables import Usage
from hunmin_gateway.usage.ledger import Position, usage_page

router = studio_router()

MAX_PAGE = 200


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies before the year 1 or after 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
_MOMENT = TypeAdapter[datetime](Moment)


class TextBody(Schema):
    """One text."""

    text: str


class TextsBody(Schema):
    """Several texts."""

    texts: list[str]


class IdsBody(Schema):
    """Token ids."""

    ids: list[TokenId]


@router.get("/models", summary="List the models")
async def models(parts: PartsDep) -> ModelList:
    """List every model with its shape and digests."""
    return await parts.generation.call(MODELS, Empty())


@router.get("/tokenizers", summary="List the tokenizers")
async def tokenizers(parts: PartsDep) -> TokenizerList:
    """List every tokenizer with its method, size and digest."""
    return await parts.tokenizer.call(TOKENIZERS, Empty())


@router.post("/tokenizers/{name}/encode", summary="Text to token ids")
async def encode(name: str, body: TextBody, parts: PartsDep) -> EncodeResponse:
    """Encode a text; each id comes with the span of characters that it covers."""
    return await parts.tokenizer.call(ENCODE, EncodeRequest(tokenizer=name, text=body.text))


@router.post("/tokenizers/{name}/decode", summary="Token ids to text")
async def decode(name: str, body: IdsBody, parts: PartsDep) -> DecodeResponse:
    """Decode token ids, exactly as they were encoded."""
    return await parts.tokenizer.call(DECODE, DecodeRequest(tokenizer=name, ids=body.ids))


@router.post("/tokenizers/{name}/count", summary="Count the tokens of texts")
async def count(name: str, body: TextsBody, parts: PartsDep) -> CountResponse:
    """Count the tokens of each text."""
    return await parts.tokenizer.call(COUNT, CountRequest(tokenizer=name, texts=body.texts))


@router.post("/tokenizers/{name}/morphemes", summary="Tokens with their morphemes")
async def morphemes(name: str, body: TextBody, parts: PartsDep) -> MorphemesResponse:
    """Show each token of a text with the morpheme it lies in and its part of speech."""
    return await parts.tokenizer.call(MORPHEMES, MorphemesRequest(tokenizer=name, text=body.text))


class UsageQuery(Schema):
    """Which rows of usage to list. Times have an offset, as in `2026-01-31T00:00:00Z`."""

    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50
    cursor: str | None = None
    since: Moment | None = None
    until: Moment | None = None


@router.get("/usage", summary="List your usage")
async def usage(query: Annotated[UsageQuery, Query()], caller: CallerDep, session: SessionDep) -> UsagePage:
    """List what the requests of your account used, newest first, started in `[since, until)`."""
    rows = await usage_page(
        session,
        caller.account_id,
        limit=query.limit + 1,
        after=None if query.cursor is None else _position(query.cursor),
        since=query.since,
        until=query.until,
    )
    page = rows[: query.limit]
    has_more = len(rows) > query.limit
    rows_shown = [UsageRow.model_validate(row, from_attributes=True) for row in page]
    return UsagePage(data=rows_shown, next_cursor=_cursor(page[-1]) if has_more else None)


def _cursor(row: Usage) -> str:
    return f"{row.started_at.isoformat()}_{row.id}"


def _position(cursor: str) -> Position:
    started_at, _, row_id = cursor.partition("_")
    try:
        return Position(_MOMENT.validate_python(started_at), row_id)
    except ValueError:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            "Parameter cursor: not a cursor of this list. Send next_cursor of the page before, as it came.",
            param="cursor",
        ) from None
