"""Conversations as rows, in OpenAI's form for fine-tuning: a line is `{"messages": [{"role": …, "content": …}, …]}`.

A row's prompt is what chatting renders of the turns before the last, and its completion the last one, the assistant's.
"""

from collections.abc import Mapping
from typing import Any

from hunmin_contracts.datasets import COMPLETION, PROMPT
from hunmin_text.chat import render_chat

from hunmin_tuning.datasets.row import Pairs

MESSAGES = "messages"
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_UNTAUGHT = ("tools", "functions", "tool_calls", "function_call", "audio", "refusal")
_WANTED = 'Write {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}.'


def has_chat(value: Any) -> bool:
    """Say whether what stands in a line is meant as a conversation."""
    return isinstance(value, Pairs) and isinstance(dict(value).get(MESSAGES), list)


def row_of_chat(value: Any) -> dict[str, str]:
    """Return the row of a line; ValueError says what is wrong with it."""
    if not has_chat(value):
        raise ValueError(f"The line has no list of messages, and the first line has one. {_WANTED}")
    line = dict(value)
    _refuse_untaught(line, "The line")
    messages = [_message(number, each) for number, each in enumerate(line[MESSAGES])]
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(f"The last message is to be the assistant's, behind another one. {_WANTED}")
    if dict(line[MESSAGES][-1]).get("weight") == "0":
        raise ValueError("The last message has the weight 0, and it is the one that is taught. Leave such lines out.")
    return {PROMPT: render_chat(messages[:-1], None), COMPLETION: messages[-1]["content"]}


def _message(number: int, value: Any) -> dict[str, str]:
    name = f"messages[{number}]"
    if not isinstance(value, Pairs):
        raise ValueError(f"{name} is no object. {_WANTED}")
    message = dict(value)
    _refuse_untaught(message, name)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{name} has none of the roles {', '.join(_ROLES)}.")
    return {"role": _ROLES[role], "content": _content(name, message.get("content"))}


def _content(name: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [dict(part) for part in content if isinstance(part, Pairs)] if isinstance(content, list) else []
    texts = [part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]
    if not texts or len(texts) != len(content):
        raise ValueError(
            f'{name} has content that is no text. Write a string, or parts {{"type": "text", "text": "…"}}.'
        )
    return "".join(texts)


def _refuse_untaught(value: Mapping[str, Any], name: str) -> None:
    told = next((field for field in _UNTAUGHT if value.get(field)), None)
    if told is not None:
        raise ValueError(f"{name} has {told}, which is not taught here. Leave such lines out.")
