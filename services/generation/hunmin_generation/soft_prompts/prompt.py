"""From a request's prompt to token ids, by the template of a soft prompt."""

from collections.abc import Mapping, Sequence

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import Message
from hunmin_contracts.soft_prompts import SoftPromptInfo
from hunmin_text.chat import encode_chat
from hunmin_text.prompt_template import encode_template, template_fields, template_length
from hunmin_text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Sequence[Message] | Mapping[str, str]


def encode_prompt(prompt: Prompt, soft_prompt: SoftPromptInfo, tokenizer: Tokenizer) -> list[int]:
    """Return the ids of `prompt` in the template, -1 - k for row k: values by field, or one that fills the only field.

    Ids and chat messages go in as ids; where there is no template they follow the rows.
    """
    template, slots = soft_prompt.manifest.template, soft_prompt.manifest.slots or [soft_prompt.n_virtual]
    if isinstance(prompt, Mapping):
        return encode_template(template, prompt, slots, tokenizer)
    names = template_fields(template)
    if len(names) != 1:
        wanted = ", ".join(map(repr, names)) or "no field: send an empty object"
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"The template of {soft_prompt.name}@{soft_prompt.version} has {wanted}. Send `prompt` as an object with a "
            "text for each field.",
            param="prompt",
        )
    return encode_template(template, {names[0]: _value(prompt, tokenizer, template)}, slots, tokenizer)


def count_characters(prompt: Prompt) -> int:
    """Return how many characters are to be encoded."""
    if isinstance(prompt, str):
        return len(prompt)
    if isinstance(prompt, Mapping):
        return sum(map(len, prompt.values()))
    return sum(len(message.content) for message in prompt if isinstance(message, Message))


def filled_length(prompt: Prompt, soft_prompt: SoftPromptInfo) -> int:
    """Return how many characters and ids the template comes to: a value counts wherever the template has its field."""
    template = soft_prompt.manifest.template
    if isinstance(prompt, Mapping):
        return template_length(template, {name: len(value) for name, value in prompt.items()})
    ids = sum(isinstance(token, int) for token in prompt)
    return template_length(template, dict.fromkeys(template_fields(template), count_characters(prompt) + ids))


def _value(
    prompt: str | Sequence[int] | Sequence[Message], tokenizer: Tokenizer, template: str | None
) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt
    messages = [message.model_dump() for message in prompt if isinstance(message, Message)]
    if not messages:
        return [token for token in prompt if isinstance(token, int)]
    ids = encode_chat(tokenizer, messages)
    prefix = tokenizer.prefix_ids
    # A template begins with the prefix, and the chat does so too.
    return ids[len(prefix) :] if template is not None and ids[: len(prefix)] == prefix else ids
