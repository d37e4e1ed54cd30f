"""How a limit stands, and what that means to a caller: the headers of an answer, or the error. Pure: no I/O."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.quotas import ANY, LimitName

from hunmin_gateway.quotas.amounts import KINDS

_RETRY_S = {  # nobody knows when what runs ends: most requests do soon, and no job does
    LimitName.CONCURRENT_REQUESTS: 1,
    LimitName.RUNNING_JOBS: 60,
    LimitName.STORAGE_BYTES: 1,  # uploads
}


@dataclass(frozen=True)
class LimitState:
    """A limit, and what is taken of it, at `read_at`. `resets_at` is None for what runs at a time."""

    name: LimitName
    model: str
    purpose: str
    value: int
    used: int
    reserved: int
    resets_at: datetime | None
    read_at: datetime

    @property
    def remaining(self) -> int:
        """What a request may still take; 0 also where the limit was lowered below what is taken."""
        return max(0, self.value - self.used - self.reserved)

    @property
    def reset_s(self) -> float:
        """Seconds until its minute or month is over; 0 for what runs at a time."""
        return 0.0 if self.resets_at is None else (self.resets_at - self.read_at).total_seconds()


@dataclass(frozen=True)
class Asked:
    """A limit, as it stands before `amount` is taken of it."""

    state: LimitState
    amount: int

    @property
    def has_room(self) -> bool:
        """Whether it does not stand in the way."""
        return self.state.used + self.state.reserved + self.amount <= self.state.value

    @property
    def is_hopeless(self) -> bool:
        """Whether it will not have room in its next minute or month either."""
        return self.amount > self.state.value


def refusal(refused: Sequence[Asked]) -> HunminError:
    """Return the error that tells of the one limit that is in the way for longest: after it all of them have room."""
    worst = max(refused, key=lambda one: (one.is_hopeless, one.state.reset_s))
    state = worst.state
    details = {
        "limit": state.name,
        "model": state.model,
        "purpose": state.purpose,
        "value": state.value,
        "used": state.used,
        "reserved": state.reserved,
        "requested": worst.amount,
        "resets_at": state.resets_at.isoformat() if state.resets_at is not None else None,
    }
    if worst.is_hopeless:
        return HunminError(
            ErrorCode.QUOTA_EXCEEDED,
            f"{_named(state)} is {state.value:,}, and this request may take {worst.amount:,}: it can never be served. "
            "Ask for less, or ask the operator for a higher limit.",
            **details,
        )
    if state.resets_at is None:
        return HunminError(
            ErrorCode.QUOTA_EXCEEDED,
            f"{_named(state)} is {state.value:,}, and {state.reserved:,} are running. Send it again when one ends.",
            **details,
            retry_after_s=_RETRY_S[state.name],
        )
    wait_s = max(1, math.ceil(state.reset_s))  # rounded up: who waits for so long must not come too early
    return HunminError(
        ErrorCode.QUOTA_EXCEEDED,
        f"{_named(state)} is {state.value:,}: {state.used:,} are used, {state.reserved:,} reserved for running "
        f"requests, and this one may take {worst.amount:,}. Send it again in {wait_s} s, or ask for less.",
        **details,
        retry_after_s=wait_s,
    )


def _named(state: LimitState) -> str:
    model = "" if state.model == ANY else f" for the model {state.model}"
    purpose = "" if state.purpose == ANY else f" for the purpose {state.purpose}"
    return f"Your account's limit {state.name}{model}{purpose}"


def rate_limit_headers(states: Iterable[LimitState]) -> dict[str, str]:
    """Return OpenAI's `x-ratelimit-…` of the tightest limits: of requests a minute, and of tokens of either kind."""
    headers: dict[str, str] = {}
    windowed = [state for state in states if state.resets_at is not None]
    for unit, is_of in (("requests", True), ("tokens", False)):
        found = [state for state in windowed if (KINDS[state.name].unit == "requests") is is_of]
        if found:
            tightest = min(found, key=lambda state: (state.remaining, -state.reset_s))
            headers[f"x-ratelimit-limit-{unit}"] = str(tightest.value)
            headers[f"x-ratelimit-remaining-{unit}"] = str(tightest.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = duration(tightest.reset_s)
    return headers


def duration(seconds: float) -> str:
    """Return a time as OpenAI's headers write it, as Go does: `12s`, `6m0s`, `72h0m1s`; rounded up to a second."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
