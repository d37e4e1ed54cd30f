"""Whether a line that could not be run waits for better times, or has failed. Pure: no I/O."""

from dataclasses import dataclass

from hunmin_contracts.errors import ErrorCode, HunminError

MAX_ATTEMPTS = 14  # with the waits between them three quarters of an hour: longer than a restart takes
_MAX_PAUSE_S = 60.0  # after which a full limit is asked again: it may have been raised
_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 600.0
_AWAY_PAUSE_S = 2.0


@dataclass(frozen=True)
class Wait:
    """The line is taken again after `delay_s`, and other lines of its batch after `pause_s`.

    One that `is_free` is no attempt: nothing was wrong with the line.
    """

    delay_s: float = 0.0
    pause_s: float = 0.0
    is_free: bool = False


def patience(error: Exception, attempts: int) -> Wait | None:
    """Return how long a line waits that failed so at the last of its attempts; None: it has failed."""
    if not isinstance(error, HunminError):
        return None
    match error.code:
        case ErrorCode.QUOTA_EXCEEDED | ErrorCode.OVERLOADED:
            told = error.details.get("retry_after_s")
            if error.code is ErrorCode.QUOTA_EXCEEDED and told is None:  # it will never have room
                return None
            pause_s = float(told) if isinstance(told, int | float) else 1.0
            return Wait(pause_s=min(max(pause_s, 1.0), _MAX_PAUSE_S), is_free=True)
        case ErrorCode.UNAVAILABLE | ErrorCode.DEADLINE_EXCEEDED if attempts < MAX_ATTEMPTS:
            return Wait(delay_s=min(_FIRST_DELAY_S * 2 ** (attempts - 1), _MAX_DELAY_S), pause_s=_AWAY_PAUSE_S)
        case _:
            return None
