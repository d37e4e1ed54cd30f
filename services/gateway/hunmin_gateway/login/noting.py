"""Takes note of what becomes of the studio's own users, as the audit does of every change."""

from datetime import datetime

from hunmin_contracts.audit import Action, ActorKind
from hunmin_contracts.schema import Schema
from hunmin_kit.events import Events
from hunmin_kit.identity.local import LocalChange, LocalUser
from hunmin_kit.web import current_request_id
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Actor, Audit

_ACTIONS = {
    LocalChange.REGISTERED: Action.USER_REGISTERED,
    LocalChange.PASSWORD_CHANGED: Action.USER_PASSWORD_CHANGED,
}


class LocalUserInfo(Schema):
    """What may be shown of one. Without `subject` they were invited, and have not registered."""

    subject: str | None
    email: str | None
    name: str | None
    organizations: list[str]
    roles: list[str]
    disabled_at: datetime | None

    @classmethod
    def of(cls, user: LocalUser) -> "LocalUserInfo":
        """Describe a user."""
        return cls(
            subject=user.subject,
            email=user.email,
            name=user.name,
            organizations=sorted(user.organizations),
            roles=sorted(user.roles),
            disabled_at=user.disabled_at,
        )


class OwnChanges:
    """What users do themselves: they register, and choose another password."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def __call__(self, session: AsyncSession, change: LocalChange, user: LocalUser) -> None:
        """Take note of it in its transaction."""
        audit = Audit(session, self._events, Actor(ActorKind.USER, user.subject, current_request_id()))
        await audit.note(_ACTIONS[change], user.subject, account_id=None, after=LocalUserInfo.of(user))
