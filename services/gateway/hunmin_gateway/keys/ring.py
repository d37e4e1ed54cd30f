"""The keys of every account: made, found, listed, revoked. The statements on `api_keys`, but for consoles'."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ApiKeyId, ProjectId, new_api_key_id
from hunmin_contracts.tenancy import SCOPES, KeyKind, Role, Scope, least_role
from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.keys.text import digest, is_well_formed, new_key, visible_prefix
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import Account, ApiKey, Project, QuotaLimit
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.projects import check_place

DEFAULT_ACCOUNT = "default"
LAST_USED_RESOLUTION = timedelta(minutes=1)  # a write per request would cost more than the look-up


@dataclass(frozen=True)
class KeyInfo:
    """What may be shown of a key."""

    id: ApiKeyId
    account: str
    name: str
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None


class KeyRing:
    """Works in the session it is given; whoever opened that commits."""

    def __init__(self, session: AsyncSession, *, pepper: bytes) -> None:
        self._session = session
        self._pepper = pepper

    async def authenticate(self, key: str) -> Principal:
        """Return whom `key` speaks for; raise UNAUTHENTICATED with the reason why it is refused."""
        if not is_well_formed(key):
            raise _refused("This is not an API key of this server, or it was mistyped. Check that it was copied whole.")
        is_expired = ApiKey.expires_at.is_not(None) & (ApiKey.expires_at <= func.now())
        is_stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - LAST_USED_RESOLUTION)
        has_limits = select(QuotaLimit.id).where(QuotaLimit.account_id == ApiKey.account_id).exists()
        found = await self._session.execute(
            select(
                ApiKey.id,
                ApiKey.account_id,
                ApiKey.project_id,
                ApiKey.kind,
                ApiKey.scopes,
                ApiKey.is_account_wide,
                ApiKey.revoked_at,
                Account.suspended_at,
                Project.archived_at,
                is_expired.label("is_expired"),
                is_stale.label("is_stale"),
                has_limits.label("has_limits"),
            )
            .join(Account, Account.id == ApiKey.account_id)
            .join(Project, Project.id == ApiKey.project_id)
            .where(ApiKey.digest == digest(key, pepper=self._pepper))
        )
        row = found.one_or_none()
        if row is None:
            raise _refused(f"The API key {visible_prefix(key)}… is unknown here. Ask this server's operator for one.")
        if row.revoked_at is not None:
            raise _refused(f"The API key {visible_prefix(key)}… was revoked. Use another one.")
        if row.is_expired:
            raise _refused(f"The API key {visible_prefix(key)}… has expired. Use another one.")
        check_place(row.suspended_at, row.archived_at)
        if row.is_stale:
            # The condition again: of several requests at the same moment one writes.
            await self._session.execute(
                update(ApiKey).where(ApiKey.id == row.id, is_stale).values(last_used_at=func.now())
            )
        scopes = frozenset(scope for scope in Scope if scope in row.scopes)  # a newer release may know others
        return Principal(
            account_id=AccountId(row.account_id),
            project_id=ProjectId(row.project_id),
            key_id=ApiKeyId(row.id),
            user_id=None,
            role=least_role(scopes),
            kind=KeyKind(row.kind),
            scopes=scopes,
            is_account_wide=row.is_account_wide,
            is_operator=row.kind == KeyKind.OPERATOR,
            has_limits=row.has_limits,
        )

    async def create(
        self,
        account: str,
        name: str,
        *,
        lifetime: timedelta | None = None,
        kind: KeyKind = KeyKind.SERVICE,
        role: Role = Role.DEVELOPER,
    ) -> tuple[str, ApiKeyId]:
        """Make a key for the default project of the account of that name, which is made too if it is new.

        It has the scopes of the role, an owner's in the whole account. The key is returned this once.
        """
        key = new_key()
        return key, await self._store(key, account, name, lifetime=lifetime, kind=kind, role=role)

    async def ensure(self, key: str, account: str, name: str) -> bool:
        """Store a key chosen by the operator unless it is there (also if revoked since); tell whether it was new."""
        known = await self._session.scalar(select(ApiKey.id).where(ApiKey.digest == digest(key, pepper=self._pepper)))
        if known is None:
            await self._store(key, account, name, lifetime=None, kind=KeyKind.SERVICE, role=Role.OWNER)
        return known is None

    async def list(self) -> list[KeyInfo]:
        """Every key, oldest first."""
        rows = await self._session.execute(
            select(ApiKey, Account.name)
            .join(Account, Account.id == ApiKey.account_id)
            .order_by(ApiKey.created_at, ApiKey.id)
        )
        return [
            KeyInfo(
                id=ApiKeyId(key.id),
                account=account,
                name=key.name,
                prefix=key.prefix,
                created_at=key.created_at,
                last_used_at=key.last_used_at,
                revoked_at=key.revoked_at,
                expires_at=key.expires_at,
            )
            for key, account in rows
        ]

    async def revoke(self, key_id: ApiKeyId) -> None:
        """Refuse the key from now on; raise NOT_FOUND if there is none of that id. Twice is no error."""
        known = await self._session.scalar(select(ApiKey.id).where(ApiKey.id == key_id))
        if known is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no key {key_id}. List the keys to find its id.")
        await self._session.execute(
            update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
        )

    async def _store(
        self, key: str, account: str, name: str, *, lifetime: timedelta | None, kind: KeyKind, role: Role
    ) -> ApiKeyId:
        place = await Accounts(self._session).ensure(account)
        key_id = new_api_key_id()
        await self._session.execute(
            insert(ApiKey).values(
                id=key_id,
                account_id=place.account_id,
                project_id=place.project_id,
                name=name,
                kind=kind,
                scopes=sorted(SCOPES[role]),
                is_account_wide=role is Role.OWNER,
                prefix=visible_prefix(key),
                digest=digest(key, pepper=self._pepper),
                expires_at=None if lifetime is None else func.now() + lifetime,
            )
        )
        return key_id


async def keys_exist(session: AsyncSession) -> bool:
    """Tell whether any key was ever made."""
    return await session.scalar(select(ApiKey.id).limit(1)) is not None


def _refused(message: str) -> HunminError:
    return HunminError(ErrorCode.UNAUTHENTICATED, message)
