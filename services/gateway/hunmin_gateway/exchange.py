"""One request on its way through the pipeline, and the meter that counts what it uses. Pure: no I/O."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from hunmin_contracts.generation import (
    ChunkEvent,
    EmbedRequest,
    GenerateRequest,
    PromptEvent,
    ScoreRequest,
    UsageEvent,
)
from hunmin_contracts.gradients import GradientRequest
from hunmin_contracts.ids import RequestId, UsageId, new_usage_id
from hunmin_contracts.quotas import Purpose
from hunmin_contracts.usage import CallOrigin
from hunmin_kit.observe.tracing import current_trace_id

from hunmin_gateway.principal import Principal

Event = PromptEvent | ChunkEvent | UsageEvent
AnyRequest = GenerateRequest | ScoreRequest | EmbedRequest | GradientRequest
RequestT = TypeVar("RequestT", GenerateRequest, ScoreRequest, EmbedRequest, GradientRequest)
_PURPOSES: dict[type[AnyRequest], Purpose] = {
    GenerateRequest: Purpose.COMPLETION,
    ScoreRequest: Purpose.SCORE,
    EmbedRequest: Purpose.EMBEDDING,
    GradientRequest: Purpose.GRADIENT,
}


@dataclass(frozen=True)
class Tokens:
    """What a call has used so far."""

    prompt: int = 0
    completion: int = 0
    backward: int = 0  # positions that a backward pass went through


class Meter:
    """Counts tokens as they are reported, so that the count is right wherever a call is cut."""

    def __init__(self) -> None:
        self.is_running = False  # whether there may be calls to count: there is room for them
        self._calls: dict[int, Tokens] = {}
        self._prompt: dict[int, int] = {}
        self._completion: dict[tuple[int, int], int] = {}
        self._final: dict[int, int] = {}

    def record(self, tokens: Tokens, *, call: int = 0) -> None:
        """Take note of all that call number `call` of the exchange has used; what it told before is replaced."""
        self._calls[call] = tokens

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
        return sum(self._prompt.values()) + sum(tokens.prompt for tokens in self._calls.values())

    @property
    def completion_tokens(self) -> int:
        """Tokens of all completions, as the engine metered them, or so far."""
        running = (tokens for (number, _), tokens in self._completion.items() if number not in self._final)
        told = (tokens.completion for tokens in self._calls.values())
        return sum(self._final.values()) + sum(running) + sum(told)

    @property
    def backward_tokens(self) -> int:
        """Positions that backward passes went through."""
        return sum(tokens.backward for tokens in self._calls.values())


FileReader = Callable[[], AsyncIterator[bytes]]  # reads a file from its beginning, each time that it is called


async def no_file() -> AsyncIterator[bytes]:
    """Read an empty file."""
    return
    yield b""


@dataclass(frozen=True)
class Exchange(Generic[RequestT]):
    """What a dialect hands to the pipeline: who asks for what, through which path.

    `requests` are what is to be asked of the generation service, one at least, all of one model. Inside the pipeline
    they name what was measured, so make the calls of these. `file` goes with them, where calls take one.
    """

    request_id: RequestId
    principal: Principal
    endpoint: str
    model: str
    requests: list[RequestT]
    file: FileReader = no_file
    id: UsageId = field(default_factory=new_usage_id)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    meter: Meter = field(default_factory=Meter)
    _reserved: list[str] = field(default_factory=list)
    trace_id: str | None = field(default_factory=current_trace_id)

    @property
    def purpose(self) -> Purpose:
        """What its calls are made for."""
        return _PURPOSES[type(self.requests[0])]

    def __post_init__(self) -> None:
        """Let every request say where it comes from, so that it is settled also if this gateway is lost."""
        batch_id = self.principal.batch_id
        origin = CallOrigin(
            usage_id=self.id,
            key_id=self.principal.key_id,
            endpoint=self.endpoint,
            started_at=self.started_at,
            batch_id=batch_id,
            calls=len(self.requests),
        )
        self._change(origin=origin)
        if batch_id is not None:
            self._change(priority="batch")

    @property
    def reserved_model(self) -> str | None:
        """The base model that room was reserved for; None: for none."""
        return next(iter(self._reserved), None)

    def note_reserved(self, model: str) -> None:
        """Take note that room was reserved, for this base model."""
        self._reserved.append(model)

    def pin(self, reference: str) -> None:
        """Let every request name exactly this model, or this version of a soft prompt."""
        self._change(model=reference)

    def _change(self, **values: object) -> None:
        self.requests[:] = [request.model_copy(update=values) for request in self.requests]
