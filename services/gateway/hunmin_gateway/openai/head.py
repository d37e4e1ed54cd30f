"""What every answer of the OpenAI dialect begins and ends with: id, time, model; usage."""

from dataclasses import dataclass
from typing import TypedDict

from hunmin_contracts.ids import RequestId
from pydantic import BaseModel


class HeadFields(TypedDict):
    """The first fields of an answer, by their names in it."""

    id: str
    created: int
    model: str


@dataclass(frozen=True)
class Head:
    """The fields that an answer and all chunks of a stream share."""

    id: str
    created: int
    model: str

    @classmethod
    def of(cls, prefix: str, request_id: RequestId, *, created: int, model: str) -> "Head":
        """Name the answer after the request (`cmpl-…`), so that either id finds the other in a log."""
        return cls(id=f"{prefix}-{request_id.removeprefix('req_')}", created=created, model=model)

    def fields(self) -> HeadFields:
        """The fields by name."""
        return {"id": self.id, "created": self.created, "model": self.model}


class Usage(BaseModel):
    """Exact counts of tokens, over all prompts and choices; a prompt counts once however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, *, prompt_tokens: int, completion_tokens: int) -> "Usage":
        """Return the counts with their sum."""
        total = prompt_tokens + completion_tokens
        return cls(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total)
