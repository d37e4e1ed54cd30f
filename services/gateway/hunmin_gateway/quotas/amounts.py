"""What a call takes of each kind of limit: at most, before it is made, and in truth, once it is over. Pure: no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from hunmin_contracts.quotas import LimitName

Unit = Literal["requests", "tokens", "backward_tokens", "jobs", "stored_bytes"]
Span = Literal["minute", "month"]


@dataclass(frozen=True)
class Kind:
    """What a limit counts, and over which span of the calendar; None: at a time."""

    unit: Unit
    span: Span | None


KINDS: Mapping[LimitName, Kind] = MappingProxyType(
    {
        LimitName.REQUESTS_PER_MINUTE: Kind("requests", "minute"),
        LimitName.CONCURRENT_REQUESTS: Kind("requests", None),
        LimitName.TOKENS_PER_MINUTE: Kind("tokens", "minute"),
        LimitName.TOKENS_PER_MONTH: Kind("tokens", "month"),
        LimitName.BACKWARD_TOKENS_PER_MINUTE: Kind("backward_tokens", "minute"),
        LimitName.BACKWARD_TOKENS_PER_MONTH: Kind("backward_tokens", "month"),
        LimitName.RUNNING_JOBS: Kind("jobs", None),
        LimitName.STORAGE_BYTES: Kind("stored_bytes", None),
    }
)


@dataclass(frozen=True)
class Amounts:
    """What a call takes of each unit; or a job, or an upload."""

    requests: int = 0
    tokens: int = 0
    backward_tokens: int = 0
    jobs: int = 0
    stored_bytes: int = 0

    def reserved(self) -> dict[LimitName, int]:
        """Return what is reserved under each name, where it is anything."""
        return {name: amount for name, kind in KINDS.items() if (amount := self._of(kind))}

    def used(self) -> dict[LimitName, int]:
        """Return what stays taken under each name once the call is over: nothing of what runs at a time."""
        return {name: self._of(kind) for name, kind in KINDS.items() if kind.span is not None}

    def halved(self) -> "Amounts":
        """Return what a line of a batch takes: half of the tokens, rounded up, and the whole request."""
        return Amounts(self.requests, _half(self.tokens), _half(self.backward_tokens))

    def _of(self, kind: Kind) -> int:
        amount: int = getattr(self, kind.unit)
        return amount


def _half(tokens: int) -> int:
    return (tokens + 1) // 2
