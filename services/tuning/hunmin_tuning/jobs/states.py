"""What may become of a job: a pure machine. It knows no clock, no database and no process.

Two facts decide what a cancel may do. A job whose lease was lost may have left a process behind (`is_orphaned`), so it
is not cancelled before someone looked. A job that publishes (`is_publishing`) may have a soft prompt already, so it
is not cancelled any more: no job is both cancelled and published.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning_jobs import JobState

ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})
CLAIMED: frozenset[JobState] = frozenset({"preparing", "running"})


class Event(StrEnum):
    """What can happen to a job. All but CANCEL and LAPSE come from the holder of its lease."""

    CLAIM = "claim"  # a runner takes it
    START = "start"  # it has no process, and is about to get one; or its process has ended by itself
    ADOPT = "adopt"  # a process is there from before
    PUBLISH = "publish"  # its process has ended well; from here on it cannot be cancelled
    SUCCEED = "succeed"  # its soft prompt is published
    FAIL = "fail"  # it is wrong or overdue; its process is gone
    BREAK = "break"  # something failed that may go well the next time; its process is gone
    RELEASE = "release"  # its runner ends in good order, or waits for another service; its process is gone
    STOP = "stop"  # its process is gone, as a cancel wanted it
    LAPSE = "lapse"  # its lease ran out; nobody knows of its process
    CANCEL = "cancel"  # its owner does not want it any more


@dataclass(frozen=True)
class Standing:
    """Where a job stands. `attempt` counts from 1."""

    state: JobState = "queued"
    attempt: int = 1
    is_cancel_wanted: bool = False
    is_publishing: bool = False
    is_orphaned: bool = False

    @property
    def is_ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state in ENDED


class IllegalEvent(Exception):
    """This event cannot happen to a job that stands so: a fault in the caller."""


def after(standing: Standing, event: Event, *, max_attempts: int) -> Standing:
    """Return how a job stands after `event`; raise IllegalEvent, or for a CANCEL that comes too late `conflict`."""
    if event is Event.CANCEL:
        return _cancelled(standing)
    if standing.state == "queued" and event is Event.CLAIM:
        return replace(standing, state="preparing")
    if standing.state not in CLAIMED:
        raise IllegalEvent(f"{event} of a job that is {standing.state}")
    if event is Event.LAPSE:
        return replace(standing, state="queued", attempt=standing.attempt + 1, is_orphaned=True)
    if standing.state == "preparing" and event in (Event.START, Event.ADOPT):
        return _running(standing, event)
    if standing.state == "running" and event is Event.PUBLISH:
        return _ended(standing, "cancelled") if standing.is_cancel_wanted else replace(standing, is_publishing=True)
    if standing.state == "running" and event is Event.SUCCEED and standing.is_publishing:
        return _ended(standing, "succeeded")
    if event is Event.STOP and standing.is_cancel_wanted:
        return _ended(standing, "cancelled")
    if event in (Event.FAIL, Event.BREAK, Event.RELEASE):
        return _broken_off(standing, event, max_attempts)
    raise IllegalEvent(f"{event} of a job that is {standing}")


def _cancelled(standing: Standing) -> Standing:
    if standing.state == "cancelled":
        return standing
    if standing.is_ended:
        raise HunminError(ErrorCode.CONFLICT, f"The job has {standing.state} already and cannot be cancelled.")
    if standing.is_publishing:
        raise HunminError(
            ErrorCode.CONFLICT,
            "The job is trained and its soft prompt is being published, so it cannot be cancelled any more. "
            "Delete the soft prompt instead.",
        )
    wanted = replace(standing, is_cancel_wanted=True)
    return _ended(wanted, "cancelled") if standing.state == "queued" and not standing.is_orphaned else wanted


def _running(standing: Standing, event: Event) -> Standing:
    if event is Event.START:
        if standing.is_cancel_wanted:
            return _ended(standing, "cancelled")
        return replace(standing, state="running", is_orphaned=False)
    # The lapse took an attempt, but the process went on as if nothing had happened.
    attempt = standing.attempt - 1 if standing.is_orphaned else standing.attempt
    return replace(standing, state="running", attempt=attempt, is_orphaned=False)


def _broken_off(standing: Standing, event: Event, max_attempts: int) -> Standing:
    if standing.is_cancel_wanted:
        return _ended(standing, "cancelled")
    if event is Event.FAIL or (event is Event.BREAK and standing.attempt >= max_attempts):
        return _ended(standing, "failed")
    attempt = standing.attempt + 1 if event is Event.BREAK else standing.attempt
    return replace(standing, state="queued", attempt=attempt, is_orphaned=False)


def _ended(standing: Standing, state: JobState) -> Standing:
    return replace(standing, state=state, is_orphaned=False)
