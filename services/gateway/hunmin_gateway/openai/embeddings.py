"""Embeddings of the OpenAI dialect: the mean of the last layer's hidden states, of length 1."""

import base64
import struct
from typing import Annotated, Literal

from hunmin_contracts.generation import EMBED, EmbedRequest, EmbedResponse
from hunmin_kit.web import current_request_id
from pydantic import BaseModel, Field

from hunmin_gateway.authentication import PrincipalDep
from hunmin_gateway.exchange import Exchange, Tokens
from hunmin_gateway.openai.parameters import Ignored
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.public_schema import NAME, PublicSchema, only, said

MAX_INPUTS = 2048  # OpenAI's

_Text = Annotated[str, Field(min_length=1)]
_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_Input = Annotated[
    _Text
    | _TokenIds
    | Annotated[list[_Text], Field(min_length=1, max_length=MAX_INPUTS)]
    | Annotated[list[_TokenIds], Field(min_length=1, max_length=MAX_INPUTS)],
    said(f"a text, a list of token ids, or a list of 1 to {MAX_INPUTS} texts or lists of token ids, none empty"),
]


class EmbeddingsBody(PublicSchema):
    """The body of `POST /v1/embeddings`."""

    model: str = Field(min_length=1, max_length=200, pattern=NAME, description="A name from `GET /v1/models`.")
    input: _Input
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Numbers, or base64 of little-endian float32."
    )
    dimensions: Annotated[None, only()] = None
    user: Ignored = None

    def inputs(self) -> list[str | list[int]]:
        """The inputs one by one, in order."""
        if isinstance(self.input, str):
            return [self.input]
        ids = [token for token in self.input if isinstance(token, int)]
        return [ids] if ids else [one for one in self.input if not isinstance(one, int)]


class EmbeddingObject(BaseModel):
    """The embedding of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Exact counts of tokens, over all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingPage(BaseModel):
    """All embeddings, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingsUsage


async def embed(body: EmbeddingsBody, principal: PrincipalDep, parts: PartsDep) -> EmbeddingPage:
    """Embed each input: texts that mean alike point alike. Compare them by their inner product."""
    request = EmbedRequest(account_id=principal.account_id, model=body.model, inputs=body.inputs())
    exchange = Exchange(current_request_id(), principal, "/v1/embeddings", body.model, [request])
    async with parts.pipeline.metered(exchange) as meter:
        response = await parts.generation.call(EMBED, exchange.requests[0])
        meter.record(Tokens(prompt=sum(embedding.tokens for embedding in response.embeddings)))
    return _page(body, response, exchange.meter.prompt_tokens)


def _page(body: EmbeddingsBody, response: EmbedResponse, tokens: int) -> EmbeddingPage:
    vectors = [embedding.vector for embedding in response.embeddings]
    return EmbeddingPage(
        data=[
            EmbeddingObject(index=index, embedding=_packed(vector) if body.encoding_format == "base64" else vector)
            for index, vector in enumerate(vectors)
        ],
        model=body.model,
        usage=EmbeddingsUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
