"""The keys of every account, for who runs the server: authenticated, made, listed, revoked."""

from dataclasses import dataclass
from datetime import timedelta

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ApiKeyId, ProjectId
from hunmin_contracts.tenancy import SCOPES, ApiKeyInfo, KeyKind, NewApiKey, Role, Scope, least_role
from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.keys.keys import Keys, Wanted, key_info
from hunmin_gateway.keys.text import digest, is_well_formed, new_key, visible_prefix
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import Account, ApiKey, Project, QuotaLimit
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.projects import check_place
from hunmin_gateway.tenancy.reach import Reach

DEFAULT_ACCOUNT = "default"
LAST_USED_RESOLUTION = timedelta(minutes=1)  # a write per request would cost more than the look-up


@dataclass(frozen=True)
class OwnedKey:
    """A key with the name of its account."""

    account: str
    info: ApiKeyInfo


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
        audit: Audit | None = None,
    ) -> tuple[str, ApiKeyId]:
        """Make a key for the default project of the account of that name, which is made too if it is new.

        It has the scopes of the role, an owner's in the whole account. The key is returned this once.
        """
        made = await self._store(new_key(), account, name, lifetime=lifetime, kind=kind, role=role, audit=audit)
        return made.key, made.info.id

    async def ensure(self, key: str, account: str, name: str, *, audit: Audit | None = None) -> bool:
        """Store an owner's key chosen elsewhere unless it is there (also if revoked since); tell whether it was new."""
        known = await self._session.scalar(select(ApiKey.id).where(ApiKey.digest == digest(key, pepper=self._pepper)))
        if known is None:
            await self._store(key, account, name, lifetime=None, kind=KeyKind.SERVICE, role=Role.OWNER, audit=audit)
        return known is None

    async def list(self) -> list[OwnedKey]:
        """Every key that somebody can send, oldest first."""
        rows = await self._session.execute(
            select(ApiKey, Account.name)
            .join(Account, Account.id == ApiKey.account_id)
            .where(ApiKey.kind != KeyKind.CONSOLE)
            .order_by(ApiKey.created_at, ApiKey.id)
        )
        return [OwnedKey(account, key_info(key)) for key, account in rows]

    async def revoke(self, key_id: ApiKeyId, *, audit: Audit | None = None) -> None:
        """Refuse the key from now on; raise NOT_FOUND if there is none of that id. Twice is no error."""
        keys = await self._beside(key_id)
        await keys.revoke(key_id, audit, by=None)

    async def rotate(self, key_id: ApiKeyId, *, overlap: timedelta, audit: Audit | None = None) -> NewApiKey:
        """Make a key with the same rights, and refuse this one after `overlap`; as `Keys.rotate`."""
        keys = await self._beside(key_id)
        return await keys.rotate(key_id, audit, by=None, overlap=overlap)

    async def _beside(self, key_id: ApiKeyId) -> Keys:
        account_id = await self._session.scalar(select(ApiKey.account_id).where(ApiKey.id == key_id))
        if account_id is None:
            raise HunminError(ErrorCode.NOT_FOUND, f"There is no key {key_id}. List the keys to find its id.")
        return Keys(self._session, Reach(AccountId(account_id), None), pepper=self._pepper)

    async def _store(
        self,
        key: str,
        account: str,
        name: str,
        *,
        lifetime: timedelta | None,
        kind: KeyKind,
        role: Role,
        audit: Audit | None,
    ) -> NewApiKey:
        place = await Accounts(self._session).ensure(account, audit=audit)
        now = await self._session.scalar(select(func.now()))
        wanted = Wanted(
            account_id=place.account_id,
            project_id=place.project_id,
            name=name,
            kind=kind,
            scopes=SCOPES[role],
            is_account_wide=role is Role.OWNER,
            created_by=None,
            expires_at=None if lifetime is None or now is None else now + lifetime,
        )
        keys = Keys(self._session, Reach(place.account_id, None), pepper=self._pepper)
        return await keys.create(wanted, audit, key=key)


async def keys_exist(session: AsyncSession) -> bool:
    """Tell whether any key that somebody can send was ever made."""
    return await session.scalar(select(ApiKey.id).where(ApiKey.kind != KeyKind.CONSOLE).limit(1)) is not None


def _refused(message: str) -> HunminError:
    return HunminError(ErrorCode.UNAUTHENTICATED, message)
