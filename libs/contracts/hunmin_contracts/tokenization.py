"""The tokenizer service: text to tokens and back, and the morphemes under each token."""

from typing import Annotated

from pydantic import Field, WithJsonSchema

from hunmin_contracts.endpoint import Endpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.schema import Empty, Schema

TokenId = Annotated[int, Field(ge=0, strict=True)]
# A list of two in JSON Schema: `prefixItems`, pydantic's word for a tuple, is what tools for OpenAPI stumble over.
Span = Annotated[
    tuple[int, int],
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
]


class EncodeRequest(Schema):
    """Text to encode with the tokenizer of that name."""

    tokenizer: str
    text: str


class EncodeResponse(Schema):
    """Token ids, with the half-open character span `[start, end)` in the request's text that each came from."""

    ids: list[int]
    offsets: list[Span]


class DecodeRequest(Schema):
    """Token ids to turn back into text."""

    tokenizer: str
    ids: list[TokenId]


class DecodeResponse(Schema):
    """The text; bytes that are not UTF-8 become U+FFFD."""

    text: str


class CountRequest(Schema):
    """Texts whose tokens are to be counted."""

    tokenizer: str
    texts: list[str]


class CountResponse(Schema):
    """One count per text, in order."""

    counts: list[int]


class MorphemesRequest(Schema):
    """Text to show token by token with its morphemes."""

    tokenizer: str
    text: str


class MorphemeToken(Schema):
    """A token, the text it covers, its span, and the morpheme it lies in; `pos` is a Sejong tag such as `NNG` or `JKS`.

    `morpheme`, `pos` and `morpheme_span` are null where no morpheme covers the token (spaces, foreign scripts).
    """

    id: int
    text: str
    span: Span
    morpheme: str | None = None
    pos: str | None = None
    morpheme_span: Span | None = None


class MorphemesResponse(Schema):
    """Tokens in the order of the text."""

    tokens: list[MorphemeToken]


class TokenizerInfo(Schema):
    """One tokenizer. `method` is `huggingface` if foreign; `digest` is the sha256 of its artefact."""

    name: str
    method: str
    vocab_size: int
    digest: str


class TokenizerList(Schema):
    """Every tokenizer, by name."""

    tokenizers: list[TokenizerInfo]


ENCODE = Endpoint("POST", "/v1/encode", EncodeRequest, EncodeResponse, errors=(ErrorCode.NOT_FOUND,))
DECODE = Endpoint("POST", "/v1/decode", DecodeRequest, DecodeResponse, errors=(ErrorCode.NOT_FOUND,))
COUNT = Endpoint("POST", "/v1/count", CountRequest, CountResponse, errors=(ErrorCode.NOT_FOUND,))
MORPHEMES = Endpoint("POST", "/v1/morphemes", MorphemesRequest, MorphemesResponse, errors=(ErrorCode.NOT_FOUND,))
TOKENIZERS = Endpoint("GET", "/v1/tokenizers", Empty, TokenizerList)
