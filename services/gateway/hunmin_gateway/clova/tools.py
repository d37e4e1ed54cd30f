"""CLOVA Studio's API tools, as far as a model here can do them: embed a text, count tokens, shorten a chat."""

from collections.abc import Sequence

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import (
    EMBED,
    MEASURE,
    MODELS,
    EmbedRequest,
    GenerateRequest,
    Message,
    ModelInfo,
)
from hunmin_contracts.schema import Empty
from hunmin_contracts.tenancy import Scope
from hunmin_contracts.tokenization import COUNT, TOKENIZERS, CountRequest
from hunmin_kit.web import current_request_id
from pydantic import Field

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.clova.envelope import TEXT_EMPTY, Camel, Envelope, clova_error
from hunmin_gateway.clova.messages import PartedMessages, Role, TextMessages, chat_of
from hunmin_gateway.clova.parameters import CamelSchema
from hunmin_gateway.clova.router import ModelPath, clova_router
from hunmin_gateway.clova.window import Window
from hunmin_gateway.exchange import Exchange, Tokens
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.principal import Principal
from hunmin_gateway.studio.soft_prompts import find

router = clova_router()
_TOO_LONG = (ErrorCode.PROMPT_TOO_LONG, ErrorCode.TOO_LARGE)


class EmbeddingBody(CamelSchema):
    """The body of `POST /v1/api-tools/embedding/{model}`."""

    text: str


class EmbeddingResult(Camel):
    """The text's vector, of length 1, and how many tokens the text has."""

    embedding: list[float]
    input_tokens: int


class CountBody(CamelSchema):
    """The body of `POST /v1/api-tools/chat-tokenize/{model}`."""

    messages: TextMessages


class ThirdCountBody(CamelSchema):
    """The body of `POST /v3/api-tools/chat-tokenize/{model}`."""

    messages: PartedMessages


class CountedMessage(Camel):
    """A message, and how many tokens its content has."""

    role: Role
    content: str
    count: int


class CountResult(Camel):
    """The messages, counted."""

    messages: list[CountedMessage]


class CountedPart(Camel):
    """A part of a message, and how many tokens it has."""

    type: str = "text"
    text: str
    count: int


class ThirdCountedMessage(Camel):
    """A message, its parts counted."""

    role: Role
    content: list[CountedPart]


class ThirdCountResult(Camel):
    """The messages, counted part by part."""

    messages: list[ThirdCountedMessage]


class WindowBody(CamelSchema):
    """The body of `POST /v1/api-tools/sliding/chat-messages/{model}`."""

    messages: TextMessages
    max_tokens: int = Field(gt=0, le=4096, description="How many tokens are to be generated after the messages.")


class KeptMessage(Camel):
    """A message that is left."""

    role: Role
    content: str


class WindowResult(Camel):
    """What is left of the chat."""

    messages: list[KeptMessage]


@router.post("/v1/api-tools/embedding/{model:path}", summary="Embed a text", dependencies=[requires(Scope.GENERATE)])
async def embed(
    model: ModelPath, body: EmbeddingBody, principal: PrincipalDep, parts: PartsDep
) -> Envelope[EmbeddingResult]:
    """Return a text's vector: texts that mean alike point alike."""
    if not body.text:
        raise clova_error(ErrorCode.INVALID_PARAMETER, TEXT_EMPTY, "Parameter text: is empty. Send some.", param="text")
    request = EmbedRequest(account_id=principal.account_id, model=model, inputs=[body.text])
    exchange = Exchange(current_request_id(), principal, "/v1/api-tools/embedding", model, [request])
    async with parts.pipeline.metered(exchange) as meter:
        response = await parts.generation.call(EMBED, exchange.requests[0])
        (embedding,) = response.embeddings
        meter.record(Tokens(prompt=embedding.tokens))
    return Envelope(result=EmbeddingResult(embedding=embedding.vector, input_tokens=embedding.tokens))


@router.post(
    "/v1/api-tools/chat-tokenize/{model:path}",
    summary="Count the tokens of a chat",
    dependencies=[requires(Scope.READ)],
)
async def count(model: ModelPath, body: CountBody, principal: PrincipalDep, parts: PartsDep) -> Envelope[CountResult]:
    """Count the tokens of each message's content; what marks the turns is not counted. Nothing is metered."""
    chat = chat_of(body.messages)
    counts = await _counts([message.content for message in chat], model, principal, parts)
    counted = [
        CountedMessage(role=message.role, content=message.content, count=number)
        for message, number in zip(chat, counts, strict=True)
    ]
    return Envelope(result=CountResult(messages=counted))


@router.post(
    "/v3/api-tools/chat-tokenize/{model:path}",
    summary="Count the tokens of a chat (v3)",
    dependencies=[requires(Scope.READ)],
)
async def third_count(
    model: ModelPath, body: ThirdCountBody, principal: PrincipalDep, parts: PartsDep
) -> Envelope[ThirdCountResult]:
    """Count the tokens of each part of each message; what marks the turns is not counted. Nothing is metered."""
    chat_of(body.messages)
    texts = [message.texts(f"messages.{number}") for number, message in enumerate(body.messages)]
    counts = iter(await _counts([text for each in texts for text in each], model, principal, parts))
    counted = [
        ThirdCountedMessage(
            role=message.role, content=[CountedPart(text=text, count=next(counts)) for text in message_texts]
        )
        for message, message_texts in zip(body.messages, texts, strict=True)
    ]
    return Envelope(result=ThirdCountResult(messages=counted))


@router.post(
    "/v1/api-tools/sliding/chat-messages/{model:path}",
    summary="Shorten a chat until it fits",
    dependencies=[requires(Scope.READ)],
)
async def slide(model: ModelPath, body: WindowBody, principal: PrincipalDep, parts: PartsDep) -> Envelope[WindowResult]:
    """Leave out the oldest turns until the model holds the others and `maxTokens` more. Nothing is metered.

    A turn is a message of the user with what the assistant answered; the message of the system and the last turn stay.
    """
    window = Window(chat_of(body.messages))

    async def fits(left_out: int) -> bool:
        try:
            await _measure(window.without(left_out), model, body.max_tokens, principal, parts)
        except HunminError as error:
            if error.code not in _TOO_LONG or left_out == window.most:
                raise
            return False
        return True

    kept = window.without(await window.fewest(fits))
    messages = [KeptMessage(role=message.role, content=message.content) for message in kept]
    return Envelope(result=WindowResult(messages=messages))


async def _measure(
    messages: Sequence[Message], model: str, max_tokens: int, principal: Principal, parts: Parts
) -> None:
    """Raise what a call with these messages would raise."""
    asked = GenerateRequest(account_id=principal.account_id, model=model, prompt=list(messages), max_tokens=max_tokens)
    await parts.generation.call(MEASURE, asked)


async def _counts(texts: list[str], model: str, principal: Principal, parts: Parts) -> list[int]:
    digest = (await _base_model(model, principal, parts)).tokenizer_digest
    for tokenizer in (await parts.tokenizer.call(TOKENIZERS, Empty())).tokenizers:
        if tokenizer.digest == digest:
            return (await parts.tokenizer.call(COUNT, CountRequest(tokenizer=tokenizer.name, texts=texts))).counts
    raise HunminError(
        ErrorCode.NOT_FOUND,
        f"The tokenizer service lacks the tokenizer of {model}. Add it to HUNMIN_TOKENIZER_MODELS.",
    )


async def _base_model(name: str, principal: Principal, parts: Parts) -> ModelInfo:
    models = {info.name: info for info in (await parts.generation.call(MODELS, Empty())).models}
    if name not in models and (own := await find(name, principal, parts)) is not None:
        name = own.model
    if name not in models:
        raise HunminError(
            ErrorCode.MODEL_NOT_FOUND, f"There is no model {name!r} here. There is: {', '.join(models)}.", param="model"
        )
    return models[name]
