"""The keys within reach, as their account manages them: made, listed, revoked, rotated; each change is noted."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hunmin_contracts.audit import Action
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ProjectId, new_api_key_id
from hunmin_contracts.tenancy import ApiKeyInfo, KeyKind, NewApiKey, Scope
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.keys.text import digest, new_key, visible_prefix
from hunmin_gateway.paging import Part, paged
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import ApiKey
from hunmin_gateway.tenancy.reach import Reach


@dataclass(frozen=True)
class KeyFilter:
    """Which keys to list: all of them where nothing is said."""

    q: str | None = None
    kind: KeyKind | None = None
    created_by: str | None = None
    is_valid: bool | None = None


@dataclass(frozen=True)
class Wanted:
    """A key to make."""

    account_id: AccountId
    project_id: ProjectId
    name: str
    kind: KeyKind
    scopes: frozenset[Scope]
    is_account_wide: bool
    created_by: str | None
    expires_at: datetime | None


class Keys:
    """Works in the session it is given; whoever opened that commits. What is changed holds from the next request on.

    Where `audit` is None nobody takes note of it.
    """

    def __init__(self, session: AsyncSession, reach: Reach, *, pepper: bytes) -> None:
        self._session = session
        self._reach = reach
        self._pepper = pepper

    async def page(self, part: Part, only: KeyFilter) -> list[ApiKeyInfo]:
        """Return keys, newest first; one more than the part has."""
        statement = select(ApiKey).where(self._reach.of(ApiKey))
        if only.q:
            statement = statement.where(ApiKey.name.icontains(only.q, autoescape=True))
        for column, value in (
            (ApiKey.kind, only.kind),
            (ApiKey.created_by, only.created_by),
        ):
            if value is not None:
                statement = statement.where(column == value)
        if only.is_valid is not None:
            is_over = func.coalesce(ApiKey.expires_at <= func.now(), False)
            statement = statement.where((ApiKey.revoked_at.is_(None) & ~is_over) == only.is_valid)
        rows = await self._session.scalars(
            paged(statement, part, by=(ApiKey.created_at.expression, ApiKey.id.expression))
        )
        return [key_info(row) for row in rows]

    async def get(self, key_id: str) -> ApiKeyInfo:
        """Return a key; NOT_FOUND if there is none of that id within reach."""
        return key_info(await self._find(key_id))

    async def create(self, wanted: Wanted, audit: Audit | None, *, key: str | None = None) -> NewApiKey:
        """Make a key and return it, this once. `key` is one that was chosen elsewhere."""
        made = await self._store(wanted, key or new_key())
        await self._note(audit, Action.KEY_CREATED, None, made.info)
        return made

    async def revoke(self, key_id: str, audit: Audit | None, *, by: Principal | None) -> ApiKeyInfo:
        """Refuse a key from now on. Twice is no error. `by` needs all of its rights; None is the command line."""
        before = key_info(await self._find(key_id, lock=True))
        _check_rights(before, by)
        if before.revoked_at is not None:
            return before
        await self._change(key_id, revoked_at=func.now())
        after = await self.get(key_id)
        await self._note(audit, Action.KEY_REVOKED, before, after)
        return after

    async def rotate(self, key_id: str, audit: Audit | None, *, by: Principal | None, overlap: timedelta) -> NewApiKey:
        """Make a key with the same rights and return it, this once; the old one is refused after `overlap`.

        The new one is valid for as long as the old one was meant to be. `by` needs all of its rights; None is the
        command line. CONFLICT for one that is not valid any more, or was rotated before.
        """
        old = await self._find(key_id, lock=True)
        before = key_info(old)
        _check_rights(before, by)
        now = await self._session.scalar(select(func.now()))
        is_over = now is None or (old.expires_at is not None and old.expires_at <= now)
        if now is None or is_over or old.revoked_at is not None or old.replaced_by is not None:
            why = f"was rotated to {old.replaced_by}" if old.replaced_by else "is not valid any more"
            raise HunminError(ErrorCode.CONFLICT, f"The key {key_id} {why}. Make a new one.")
        made = await self._store(
            Wanted(
                account_id=AccountId(old.account_id),
                project_id=before.project_id,
                name=before.name,
                kind=before.kind,
                scopes=frozenset(before.scopes),
                is_account_wide=before.is_account_wide,
                created_by=before.created_by if by is None else by.user_id or by.key_id,
                expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
            ),
            new_key(),
        )
        ends_at = now + overlap if old.expires_at is None else min(old.expires_at, now + overlap)
        await self._change(key_id, expires_at=ends_at, replaced_by=made.info.id)
        await self._note(audit, Action.KEY_ROTATED, before, await self.get(key_id))
        await self._note(audit, Action.KEY_CREATED, None, made.info)
        return made

    async def _find(self, key_id: str, *, lock: bool = False) -> ApiKey:
        statement = select(ApiKey).where(self._reach.of(ApiKey), ApiKey.id == key_id)
        statement = statement.execution_options(populate_existing=True)
        row = await self._session.scalar(statement.with_for_update() if lock else statement)
        if row is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no key {key_id[:60]}. List the keys to find its id.")
        return row

    async def _change(self, key_id: str, **values: object) -> None:
        await self._session.execute(update(ApiKey).where(self._reach.of(ApiKey), ApiKey.id == key_id).values(**values))

    async def _store(self, wanted: Wanted, key: str) -> NewApiKey:
        key_id = new_api_key_id()
        await self._session.execute(
            insert(ApiKey).values(
                id=key_id,
                account_id=wanted.account_id,
                project_id=wanted.project_id,
                name=wanted.name,
                kind=wanted.kind,
                scopes=sorted(wanted.scopes),
                is_account_wide=wanted.is_account_wide,
                prefix=visible_prefix(key),
                digest=digest(key, pepper=self._pepper),
                created_by=wanted.created_by,
                expires_at=wanted.expires_at,
            )
        )
        return NewApiKey(key=key, info=await self.get(key_id))

    async def _note(self, audit: Audit | None, action: Action, before: ApiKeyInfo | None, after: ApiKeyInfo) -> None:
        if audit is not None:
            account_id, project_id = self._reach.account_id, after.project_id
            await audit.note(action, after.id, account_id=account_id, project_id=project_id, before=before, after=after)


def key_info(row: ApiKey) -> ApiKeyInfo:
    """Return what may be shown of a row."""
    known = [scope for scope in Scope if scope in row.scopes]  # a newer release may know others
    fields = {name: getattr(row, name) for name in ApiKeyInfo.model_fields if name != "scopes"}
    return ApiKeyInfo(scopes=known, **fields)


def _check_rights(key: ApiKeyInfo, by: Principal | None) -> None:
    """Refuse what would give or take more than `by` has."""
    if key.kind is KeyKind.CONSOLE:
        raise HunminError(ErrorCode.CONFLICT, "This is a person's key, which nobody can send. Remove that member.")
    if by is None:
        return
    for scope in key.scopes:
        by.require(scope)
    if key.is_account_wide:
        by.require_account_wide()
    if key.kind is KeyKind.OPERATOR:
        by.require_operator()
