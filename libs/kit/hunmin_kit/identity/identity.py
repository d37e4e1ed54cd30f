"""What every provider tells of a person or a machine that it has authenticated."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Claims that were checked; nothing here has a default, so none is made without them.

    `subject` is unique within `issuer`, for good. `organizations` are the names of the accounts that it belongs to, and
    `roles` what it is in all of them, or `operator`, as the provider names them. `session_id` is the provider's
    session, which it may end (OpenID Connect's `sid`); a machine has none. At `expires_at` the claims are to be checked
    anew.
    """

    issuer: str
    subject: str
    email: str | None
    name: str | None
    organizations: frozenset[str]
    roles: frozenset[str]
    session_id: str | None
    expires_at: datetime
