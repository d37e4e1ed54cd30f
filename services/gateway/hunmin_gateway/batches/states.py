"""The states of a batch, OpenAI's, and from which of them which follow. Pure: no I/O."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Status(StrEnum):
    """How a batch stands."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return not FOLLOWERS[self]


# One that expires or is cancelled is still to have its files written. Its `ends_as` says what it will be then.
FOLLOWERS: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.VALIDATING: frozenset({Status.IN_PROGRESS, Status.FAILED, Status.CANCELLING, Status.FINALIZING}),
        Status.IN_PROGRESS: frozenset({Status.FINALIZING, Status.CANCELLING}),
        Status.FINALIZING: frozenset({Status.COMPLETED, Status.EXPIRED}),
        Status.CANCELLING: frozenset({Status.CANCELLED}),
        Status.FAILED: frozenset(),
        Status.COMPLETED: frozenset(),
        Status.EXPIRED: frozenset(),
        Status.CANCELLED: frozenset(),
    }
)


def sources(status: Status) -> list[Status]:
    """Return the states that `status` may follow, in order."""
    return [before for before in Status if status in FOLLOWERS[before]]
