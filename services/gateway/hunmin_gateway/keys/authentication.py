"""Whom a key speaks for: one statement, since every request asks, and not more often than every two seconds."""

from datetime import timedelta

from cachetools import TTLCache
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import AccountId, ApiKeyId, ProjectId
from hunmin_contracts.tenancy import KeyKind, Scope, least_role
from hunmin_kit.data import Quick, QuickStatements
from sqlalchemy import bindparam, func, or_, select, update

from hunmin_gateway.keys.text import digest, is_well_formed, visible_prefix
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import Account, ApiKey, Project, QuotaLimit
from hunmin_gateway.tenancy.projects import check_place

LAST_USED_RESOLUTION = timedelta(minutes=1)  # a write per request would cost more than the look-up
REMEMBERED_S = 2.0  # a key that is revoked is to be refused everywhere within 5 s
_MOST_REMEMBERED = 10_000  # keys

_IS_STALE = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - LAST_USED_RESOLUTION)
_FIND = Quick(
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
        (ApiKey.expires_at.is_not(None) & (ApiKey.expires_at <= func.now())).label("is_expired"),
        _IS_STALE.label("is_stale"),
        select(QuotaLimit.id).where(QuotaLimit.account_id == ApiKey.account_id).exists().label("has_limits"),
    )
    .join(Account, Account.id == ApiKey.account_id)
    .join(Project, Project.id == ApiKey.project_id)
    .where(ApiKey.digest == bindparam("digest"))
)
# The condition again: of several requests at the same moment one writes.
_NOTE_USE = Quick(update(ApiKey).where(ApiKey.id == bindparam("key_id"), _IS_STALE).values(last_used_at=func.now()))


class Authentication:
    """Tells whom keys speak for, and remembers it: a key that is revoked elsewhere is refused after REMEMBERED_S.

    One of an account without limits is asked for each time, so that a first limit is obeyed at once.
    """

    def __init__(self, statements: QuickStatements, *, pepper: bytes) -> None:
        self._statements = statements
        self._pepper = pepper
        self._remembered: TTLCache[bytes, Principal] = TTLCache(_MOST_REMEMBERED, REMEMBERED_S)
        self._changes = 0

    async def principal_of(self, key: str) -> Principal:
        """Return whom `key` speaks for; raise UNAUTHENTICATED with the reason why it is refused."""
        known = digest(key, pepper=self._pepper)
        principal = self._remembered.get(known)
        if principal is None:
            changes = self._changes
            principal = await authenticate(self._statements, key, pepper=self._pepper)
            if principal.has_limits and changes == self._changes:  # or what was found may be of before a change
                self._remembered[known] = principal
        return principal

    def forget(self) -> None:
        """Look at every key again: one may have been changed here."""
        self._changes += 1
        self._remembered.clear()


async def authenticate(statements: QuickStatements, key: str, *, pepper: bytes) -> Principal:
    """Return whom `key` speaks for; raise UNAUTHENTICATED with the reason why it is refused."""
    if not is_well_formed(key):
        raise _refused("This is not an API key of this server, or it was mistyped. Check that it was copied whole.")
    found = await statements.fetch(_FIND, {"digest": digest(key, pepper=pepper)})
    if not found:
        raise _refused(f"The API key {visible_prefix(key)}… is unknown here. Ask this server's operator for one.")
    (row,) = found
    if row["revoked_at"] is not None:
        raise _refused(f"The API key {visible_prefix(key)}… was revoked. Use another one.")
    if row["is_expired"]:
        raise _refused(f"The API key {visible_prefix(key)}… has expired. Use another one.")
    check_place(row["suspended_at"], row["archived_at"])
    if row["is_stale"]:
        await statements.fetch(_NOTE_USE, {"key_id": row["id"]})
    scopes = frozenset(scope for scope in Scope if scope in row["scopes"])  # a newer release may know others
    return Principal(
        account_id=AccountId(row["account_id"]),
        project_id=ProjectId(row["project_id"]),
        key_id=ApiKeyId(row["id"]),
        user_id=None,
        role=least_role(scopes),
        kind=KeyKind(row["kind"]),
        scopes=scopes,
        is_account_wide=row["is_account_wide"],
        is_operator=row["kind"] == KeyKind.OPERATOR,
        has_limits=row["has_limits"],
    )


def _refused(message: str) -> HunminError:
    return HunminError(ErrorCode.UNAUTHENTICATED, message)
