"""How long what handles events waits, for what."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """In seconds, but for `max_attempts`."""

    poll_s: float = 0.25  # between two looks into an outbox for what other processes wrote
    look_s: float = 2.0  # between two looks for what a notice tells of, which may have been lost, or nothing does
    lease_s: float = 15.0  # after which another process takes over from one that died
    retry_s: float = 0.5  # before what failed is tried again; then doubled
    max_retry_s: float = 10.0
    handler_s: float = 30.0  # that a handler may take: it is a transaction, and others wait for what it locks
    batch_s: float = 60.0  # after which a reader is asked again: Kafka takes one that stays away for dead, after 300
    max_attempts: int = 5  # then it is a dead letter
    keep_s: float = 7 * 86400.0  # how long a bus has what was relayed, for consumers that come late
    processed_s: float = 30 * 86400.0  # how long an event that comes again is known; longer than a bus has it
    sample_s: float = 5.0  # between two looks at how far behind we are


class Backoff:
    """Waits longer each time, until it is reset."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def reset(self) -> None:
        """Begin anew."""
        self._next_s = self._first_s

    async def sleep(self) -> None:
        """Wait, and the next time twice as long."""
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        await asyncio.sleep(wait_s)
