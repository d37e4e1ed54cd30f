"""People and machines that an identity provider has told of. The only statements on `users`."""

from datetime import timedelta

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import UserId, new_user_id
from hunmin_contracts.tenancy import UserInfo
from hunmin_kit.identity import Identity
from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.paging import Part, paged
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

    async def page(self, part: Part, *, q: str | None = None) -> list[UserInfo]:
        """Return users whose name or email holds `q`, newest first; one more than the part has."""
        statement = select(User)
        if q:
            statement = statement.where(
                or_(User.name.icontains(q, autoescape=True), User.email.icontains(q, autoescape=True))
            )
        rows = await self._session.scalars(paged(statement, part, by=(User.created_at.expression, User.id.expression)))
        return [UserInfo.model_validate(row, from_attributes=True) for row in rows]

    async def get(self, user_id: str) -> UserInfo:
        """Return a user; NOT_FOUND if there is none of that id."""
        row = await self._session.scalar(
            select(User).where(User.id == user_id).execution_options(populate_existing=True)
        )
        if row is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no user {user_id[:60]}. List the users to find the id.")
        return UserInfo.model_validate(row, from_attributes=True)

    async def disable(self, user_id: str, audit: Audit) -> UserInfo:
        """Refuse a user from now on. Twice is no error."""
        before = await self.get(user_id)
        if before.disabled_at is not None:
            return before
        return await self._change(before, Action.USER_DISABLED, audit, disabled_at=func.now())

    async def enable(self, user_id: str, audit: Audit) -> UserInfo:
        """Let a disabled user in again. Twice is no error."""
        before = await self.get(user_id)
        if before.disabled_at is None:
            return before
        return await self._change(before, Action.USER_ENABLED, audit, disabled_at=None)

    async def _change(self, before: UserInfo, action: Action, audit: Audit, **values: object) -> UserInfo:
        await self._session.execute(update(User).where(User.id == before.id).values(**values))
        after = await self.get(before.id)
        await audit.note(action, before.id, account_id=None, before=before, after=after)
        return after


def _lower(email: str | None) -> str | None:
    return None if email is None else email.strip().lower()
