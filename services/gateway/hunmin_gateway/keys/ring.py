"""The keys of every account, for who runs the server: made, listed, revoked."""

from dataclasses import dataclass
from datetime import timedelta

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ApiKeyId
from hunmin_contracts.tenancy import SCOPES, ApiKeyInfo, KeyKind, NewApiKey, Role
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import Audit
from hunmin_gateway.keys.keys import Keys, Wanted, key_info
from hunmin_gateway.keys.text import digest, new_key
from hunmin_gateway.tables import Account, ApiKey
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.reach import Reach

DEFAULT_ACCOUNT = "default"


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
