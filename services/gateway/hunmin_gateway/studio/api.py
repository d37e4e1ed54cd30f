"""The routes of the Studio dialect for models and tokenizers."""

from hunmin_contracts.generation import MODELS, ModelList
from hunmin_contracts.schema import Empty, Schema
from hunmin_contracts.tenancy import Scope
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

from hunmin_gateway.authentication import requires
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.studio.router import studio_router

router = studio_router()


class TextBody(Schema):
    """One text."""

    text: str


class TextsBody(Schema):
    """Several texts."""

    texts: list[str]


class IdsBody(Schema):
    """Token ids."""

    ids: list[TokenId]


@router.get("/models", summary="List the models", dependencies=[requires(Scope.READ)])
async def models(parts: PartsDep) -> ModelList:
    """List every model with its shape and digests."""
    return await parts.generation.call(MODELS, Empty())


@router.get("/tokenizers", summary="List the tokenizers", dependencies=[requires(Scope.READ)])
async def tokenizers(parts: PartsDep) -> TokenizerList:
    """List every tokenizer with its method, size and digest."""
    return await parts.tokenizer.call(TOKENIZERS, Empty())


@router.post("/tokenizers/{name}/encode", summary="Text to token ids", dependencies=[requires(Scope.READ)])
async def encode(name: str, body: TextBody, parts: PartsDep) -> EncodeResponse:
    """Encode a text; each id comes with the span of characters that it covers."""
    return await parts.tokenizer.call(ENCODE, EncodeRequest(tokenizer=name, text=body.text))


@router.post("/tokenizers/{name}/decode", summary="Token ids to text", dependencies=[requires(Scope.READ)])
async def decode(name: str, body: IdsBody, parts: PartsDep) -> DecodeResponse:
    """Decode token ids, exactly as they were encoded."""
    return await parts.tokenizer.call(DECODE, DecodeRequest(tokenizer=name, ids=body.ids))


@router.post("/tokenizers/{name}/count", summary="Count the tokens of texts", dependencies=[requires(Scope.READ)])
async def count(name: str, body: TextsBody, parts: PartsDep) -> CountResponse:
    """Count the tokens of each text."""
    return await parts.tokenizer.call(COUNT, CountRequest(tokenizer=name, texts=body.texts))


@router.post("/tokenizers/{name}/morphemes", summary="Tokens with their morphemes", dependencies=[requires(Scope.READ)])
async def morphemes(name: str, body: TextBody, parts: PartsDep) -> MorphemesResponse:
    """Show each token of a text with the morpheme it lies in and its part of speech."""
    return await parts.tokenizer.call(MORPHEMES, MorphemesRequest(tokenizer=name, text=body.text))
