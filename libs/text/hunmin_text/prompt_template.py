"""Prompt templates: text with `{field}`s and the slots `<|VIRTUAL_PROMPT_0|>`, … of a soft prompt's rows.

`{{` and `}}` are braces. A field's value is never read as a template: what looks like a slot in it is text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from hunmin_contracts.errors import ErrorCode, HunminError

from hunmin_text.tokenizer import Tokenizer

PROMPT = "prompt"  # the only field where there is no template
_MARK = re.compile(r"<\|VIRTUAL_PROMPT_([^|<>]*)\|>|\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Field:
    """A place that a value is put into."""

    name: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that rows of a soft prompt are put into."""

    number: int


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template's parts in order; text, fields and slots."""

    parts: tuple[str | Field | Slot, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of its fields, each once, in order."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Field)))

    @property
    def slots(self) -> tuple[int, ...]:
        """The numbers of its slots, in order."""
        return tuple(part.number for part in self.parts if isinstance(part, Slot))


@lru_cache(maxsize=256)
def parse_template(template: str) -> PromptTemplate:
    """Parse a template. An `invalid_parameter` says where it is not one."""
    parts: list[str | Field | Slot] = []
    text = ""
    start = 0
    for mark in _MARK.finditer(template):
        text += template[start : mark.start()]
        start = mark.end()
        if mark[0] in ("{{", "}}"):
            text += mark[0][0]
            continue
        if text:
            parts.append(text)
            text = ""
        parts.append(_part(mark))
    text += template[start:]
    return PromptTemplate((*parts, text) if text else tuple(parts))


def template_fields(template: str | None) -> tuple[str, ...]:
    """Return the fields of a template; of none at all, the one field that follows the rows."""
    return (PROMPT,) if template is None else parse_template(template).fields


def template_length(template: str | None, lengths: Mapping[str, int]) -> int:
    """Return how long the template gets with values of these lengths: each counts at every place of its field."""
    if template is None:
        return lengths.get(PROMPT, 0)
    parts = (part for part in parse_template(template).parts if not isinstance(part, Slot))
    return sum(len(part) if isinstance(part, str) else lengths.get(part.name, 0) for part in parts)


def resolve_slots(template: str | None, slots: Sequence[int] | None, n_virtual: int) -> list[int]:
    """Return how many rows each slot takes, checked: slots 0, 1, … once each, their sizes adding up to `n_virtual`.

    Without sizes, the only slot takes all. Without a soft prompt, `n_virtual` 0, there are no slots.
    """
    if n_virtual == 0:
        if slots or (template is not None and parse_template(template).slots):
            raise _refused("There are slots, and no soft prompt whose rows they take. Send one.", "slots")
        return []
    if template is not None:
        used = parse_template(template).slots
        count = len(used) if slots is None else len(slots)
        if sorted(used) != list(range(count)) or not used:
            shown = ", ".join(map(_spelt, used[:8])) or "none"
            wanted = f"{_spelt(0)} to {_spelt(count - 1)}" if count > 1 else _spelt(0)
            raise _refused(f"The template has the slots {shown}: put each of {wanted} into it, once.", "template")
        if slots is None and count > 1:
            raise _refused(f"The template has {count} slots. Say in `slots` how many rows each of them takes.", "slots")
    sizes = [n_virtual] if slots is None else list(slots)
    if sum(sizes) != n_virtual or min(sizes) < 1:
        raise _refused(
            f"The slots take {sum(sizes)} rows, and the soft prompt has {n_virtual}. Correct `slots`.", "slots"
        )
    return sizes


def encode_template(
    template: str | None, fields: Mapping[str, str | list[int]], slots: Sequence[int], tokenizer: Tokenizer
) -> list[int]:
    """Return the prompt's ids, in which -1 - k stands for row k of the soft prompt; slot i takes the next `slots[i]`.

    The tokenizer's prefix comes first, then the template; text between slots, its fields filled in, is encoded as one.
    A field given as ids splits it. Without a template all rows come first, as PEFT puts them, then `prompt` as it would
    be without them: a text after the tokenizer's prefix, ids as they are. No slots: there is no soft prompt.
    """
    names = template_fields(template)
    _check_fields(names, fields)
    resolve_slots(template, slots, sum(slots))
    starts = [0, *accumulate(slots)]
    rows = [[-1 - row for row in range(start, start + size)] for start, size in zip(starts, slots, strict=False)]
    if template is None:
        value = fields[PROMPT]
        prompt = tokenizer.prefix_ids + tokenizer.encode(value) if isinstance(value, str) else value
        return [*range(-1, -1 - starts[-1], -1), *prompt]
    ids = list(tokenizer.prefix_ids)
    text = ""
    for part in parse_template(template).parts:
        value = fields[part.name] if isinstance(part, Field) else part if isinstance(part, str) else rows[part.number]
        if isinstance(value, str):
            text += value
            continue
        ids += tokenizer.encode(text) if text else []
        ids += value
        text = ""
    return ids + (tokenizer.encode(text) if text else [])


def _part(mark: re.Match[str]) -> Field | Slot:
    slot, field = mark[1], mark[2]
    if slot is not None:
        if _NUMBER.fullmatch(slot) is None:
            raise _refused(f"{mark[0][:60]!r} is not a slot: slots are {_spelt(0)}, {_spelt(1)}, …", "template")
        return Slot(int(slot))
    if field is None or not field.isidentifier():
        raise _refused(
            f"The template has {mark[0][:60]!r} at character {mark.start()}, which is no field. Write a field as "
            "{name}, and a brace as {{ or }}.",
            "template",
        )
    return Field(field)


def _check_fields(names: Sequence[str], fields: Mapping[str, str | list[int]]) -> None:
    missing = [name for name in names if name not in fields]
    unknown = [name for name in fields if name not in names]
    if not missing and not unknown:
        return
    faults = [
        f"{what} {', '.join(repr(name[:60]) for name in some[:8])}"
        for what, some in (("lacks", missing), ("has the unknown", unknown))
        if some
    ]
    known = ", ".join(map(repr, names)) or "no field at all"
    raise HunminError(
        ErrorCode.INVALID_REQUEST, f"The prompt {' and '.join(faults)}. Its template has {known}: send those fields."
    )


def _spelt(slot: int) -> str:
    return f"<|VIRTUAL_PROMPT_{slot}|>"


def _refused(message: str, param: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, message, param=param)
