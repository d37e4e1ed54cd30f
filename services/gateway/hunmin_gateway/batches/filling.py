"""Makes the requests of a batch from a template and the rows of a dataset. Pure: no I/O."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final

from hunmin_contracts.errors import ErrorCode, HunminError

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"


@dataclass(frozen=True)
class Template:
    """A text with places for values: `{column}` each, and `{{` and `}}` for braces."""

    parts: tuple[tuple[str, str | None], ...]  # a text, and the column whose value follows it

    @classmethod
    def of(cls, text: str, columns: Collection[str]) -> "Template":
        """Read a template; INVALID_PARAMETER where it is none, or names what is no column."""
        parts = []
        try:
            for literal, field, form, conversion in Formatter().parse(text):
                if form or conversion:
                    raise _refused(f"{{{field}}} is followed by a format. Write the name of a column alone.")
                parts.append((literal, field))
        except ValueError as error:
            raise _refused(f"{error}. Write a column as {{name}}, and a brace as {{{{ or }}}}.") from None
        named = [field for _, field in parts if field is not None]
        unknown = [field for field in named if field not in columns]
        if unknown or not named:
            what = f"there is no column {unknown[0][:60]!r}" if unknown else "it names no column"
            raise _refused(f"{what}. There are: {', '.join(columns)}.")
        return cls(tuple(parts))

    def length(self, fields: Mapping[str, str]) -> int:
        """Return how many characters `fill` would return."""
        return sum(len(literal) + (0 if field is None else len(fields[field])) for literal, field in self.parts)

    def fill(self, fields: Mapping[str, str]) -> str:
        """Return the text with the values of a row."""
        return "".join(literal + ("" if field is None else fields[field]) for literal, field in self.parts)


@dataclass(frozen=True)
class Plan:
    """What is asked of every row. `system` is the first message of a chat; `parameters` are others of the request."""

    endpoint: str
    model: str
    template: Template
    system: str | None
    parameters: Mapping[str, Any]

    def body(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return the body of the request for a row."""
        text = self.template.fill(fields)
        if self.endpoint == COMPLETIONS:
            return {**self.parameters, "model": self.model, "prompt": text}
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {**self.parameters, "model": self.model, "messages": [*system, {"role": "user", "content": text}]}

    def line(self, number: int, fields: Mapping[str, str]) -> bytes:
        """Return the line of a batch's file for a row, the one at that line of its own file."""
        request = {"custom_id": custom_id(number), "method": "POST", "url": self.endpoint, "body": self.body(fields)}
        return json.dumps(request, ensure_ascii=False).encode() + b"\n"


def custom_id(number: int) -> str:
    """Return what names the row at that line."""
    return f"row-{number}"


def answer_of(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a line of a result file says to its row: the text, or what went wrong."""
    if result["error"] is not None:
        return "", str(result["error"]["message"])
    body = result["response"]["body"]
    if "error" in body:
        return "", str(body["error"]["message"])
    choice = body["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"]), ""


def _refused(message: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter template: {message}", param="template")
