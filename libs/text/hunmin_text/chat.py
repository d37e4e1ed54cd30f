"""Turns a conversation into a prompt: by the chat template a model brings, or as plain questions and answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from hunmin_contracts.errors import ErrorCode, HunminError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hunmin_text.tokenizer import Tokenizer

_PLAIN_LINES = {"system": "{}\n", "user": "질문: {}\n", "assistant": "답변: {}\n"}
# What Jinja passes through when an expression in a template fails.
_TEMPLATE_FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def render_chat(
    messages: Sequence[Mapping[str, Any]],
    template: str | None,
    *,
    bos_token: str = "",
    eos_token: str = "",
    special_tokens: Collection[str] = (),
) -> str:
    """Render messages (`role`, `content`) as a prompt that the assistant continues.

    Without a template: `질문: …` and `답변: …` lines, for base models; encode that with `encode`. With one: as
    transformers does; encode that with `encode_marked`, and name the `special_tokens`, which a content must not hold,
    or a user could forge a turn. Refusals and broken templates are an `invalid_request`.
    """
    if not messages:
        raise HunminError(ErrorCode.INVALID_REQUEST, "A conversation needs at least one message.", param="messages")
    if template is None:
        return _render_plain(messages)
    for number, message in enumerate(messages):
        forged = next((token for token in special_tokens if token in str(message.get("content"))), None)
        if forged is not None:
            raise HunminError(
                ErrorCode.INVALID_REQUEST,
                f"messages[{number}] holds {forged!r}, which this model reserves to mark turns. Take it out.",
                param="messages",
            )
    try:
        return _compiled(template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            bos_token=bos_token,
            eos_token=eos_token,
        )
    except _TEMPLATE_FAILURES as error:
        raise HunminError(
            ErrorCode.INVALID_REQUEST, f"The model's chat template refuses the messages: {error}", param="messages"
        ) from error


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Encode messages as a prompt, by the tokenizer's own chat template if it has one."""
    vocabulary = tokenizer.vocabulary
    if tokenizer.chat_template is None:
        return tokenizer.prefix_ids + tokenizer.encode(render_chat(messages, None))
    prompt = render_chat(
        messages,
        tokenizer.chat_template,
        bos_token="" if vocabulary.bos_id is None else vocabulary.texts[vocabulary.bos_id],
        eos_token=vocabulary.texts[vocabulary.eos_id],
        special_tokens=[vocabulary.texts[token_id] for token_id in vocabulary.special_ids],
    )
    return tokenizer.encode_marked(prompt)


def _render_plain(messages: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for number, message in enumerate(messages):
        line = _PLAIN_LINES.get(message["role"])
        if line is None:
            raise HunminError(
                ErrorCode.INVALID_REQUEST,
                f"messages[{number}] has the role {message['role']!r}: this model knows {', '.join(_PLAIN_LINES)}.",
                param="messages",
            )
        lines.append(line.format(message["content"]))
    return "".join(lines) + "답변:"


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter escapes for HTML and turns Hangul into numbers."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
