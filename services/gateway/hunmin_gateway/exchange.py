"""One request on its way through the pipeline, and the meter that counts what it uses. Pure: no I/O."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hunmin_contracts.generation import ChunkEvent, GenerateRequest, PromptEvent, UsageEvent
from hunmin_contracts.ids import RequestId

from hunmin_gateway.keys.caller import Caller

Event = PromptEvent | ChunkEvent | UsageEvent


class Meter:
    """Counts tokens as the events come, so that the count is right wherever the stream is cut."""

    def __init__(self) -> None:
        self._prompt: dict[int, int] = {}
        self._completion: dict[tuple[int, int], int] = {}
        self._final: dict[int, int] = {}

    def count(self, number: int, event: Event) -> None:
        """Take note of an event of prompt `number`."""
        match event:
            case PromptEvent():
                self._prompt[number] = event.prompt_tokens
            case ChunkEvent():
                self._completion[number, event.index] = event.completion_tokens
            case UsageEvent():
                self._prompt[number] = event.prompt_tokens
                self._final[number] = event.completion_tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts that were accepted."""
        return sum(self._prompt.values())

    @property
    def completion_tokens(self) -> int:
        """Tokens of all completions, as the engine metered them, or so far."""
        running = (tokens for (number, _), tokens in self._completion.items() if number not in self._final)
        return sum(self._final.values()) + sum(running)


@dataclass(frozen=True)
class Exchange:
    """What a dialect hands to the pipeline: who asks for what, through which path."""

    request_id: RequestId
    caller: Caller
    endpoint: str
    model: str
    prompts: list[GenerateRequest]
    id: str = field(default_factory=lambda: f"use_{secrets.token_hex(12)}")
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    meter: Meter = field(default_factory=Meter)
