"""People and machines that an identity provider has told of. The only statements on `users`."""

from datetime import timedelta

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import UserId, new_user_id
from hunmin_kit.identity import Identity
from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.tables import User

LAST_SEEN_RESOLUTION = timedelta(minutes=1)  # a write per request would cost more than the look-up


class Users:
    """Works in the session it is given; whoever opened that commits."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def seen(self, identity: Identity) -> UserId:
        """Take note of somebody authenticated, maybe for the first time; raise FORBIDDEN if they are disabled."""
        is_stale = or_(User.last_seen_at.is_(None), User.last_seen_at < func.now() - LAST_SEEN_RESOLUTION)
        told = {"email": _lower(identity.email), "name": identity.name}
        found = await self._session.execute(
            select(User.id, User.disabled_at, User.email, User.name, is_stale.label("is_stale")).where(
                User.issuer == identity.issuer, User.subject == identity.subject
            )
        )
        row = found.one_or_none()
        if row is not None and row.disabled_at is not None:
            raise HunminError(
                ErrorCode.FORBIDDEN, "Your user was disabled here. Ask the operator of this server to enable it."
            )
        if row is not None and not row.is_stale and (row.email, row.name) == (told["email"], told["name"]):
            return UserId(row.id)
        noting = insert(User).values(
            id=new_user_id(), issuer=identity.issuer, subject=identity.subject, last_seen_at=func.now(), **told
        )
        user_id = await self._session.scalar(
            noting.on_conflict_do_update(
                index_elements=[User.issuer, User.subject], set_=told | {"last_seen_at": func.now()}
            ).returning(User.id)
        )
        return UserId(str(user_id))


def _lower(email: str | None) -> str | None:
    return None if email is None else email.strip().lower()
