"""For operators of this server: all accounts, their limits, all users, the audit of everything."""

from typing import Annotated

from fastapi import Query
from hunmin_contracts.audit import AuditPage
from hunmin_contracts.ids import AccountId, QuotaId
from hunmin_contracts.quotas import ANY, LimitName, Purpose, Quota, QuotaList
from hunmin_contracts.tenancy import AccountInfo, AccountPage, UserInfo, UserPage
from hunmin_kit.data import SessionDep
from pydantic import Field

from hunmin_gateway.audit.audit import audit_page
from hunmin_gateway.authentication import requires_operator
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.public_schema import NAME, PublicSchema
from hunmin_gateway.quotas.limits import LARGEST, Limits
from hunmin_gateway.quotas.storage import with_stored
from hunmin_gateway.studio.audit import AuditQuery
from hunmin_gateway.studio.changes import Name, NameBody, OperatorAuditDep
from hunmin_gateway.studio.paging import SearchQuery, split
from hunmin_gateway.studio.quotas import limits_of
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.users import Users

router = studio_router()
_OPERATOR = [requires_operator()]


class LimitBody(PublicSchema):
    """A limit; of all models or purposes together where it is `*`."""

    name: LimitName = Field(strict=False)
    value: int = Field(ge=0, le=LARGEST)
    model: str = Field(default=ANY, min_length=1, max_length=200, pattern=NAME)
    purpose: Purpose | None = Field(default=None, strict=False, description="Null: all of them together.")


class AccountChange(PublicSchema):
    """What to change of an account. What is left out stays."""

    name: Name | None = None
    organization: Name | None = Field(
        default=None, description="Of the identity provider, whose people belong to the account. Null: of none."
    )


@router.get("/operator/accounts", summary="List all accounts", dependencies=_OPERATOR)
async def accounts(query: Annotated[SearchQuery, Query()], session: SessionDep) -> AccountPage:
    """List every account, newest first."""
    page, next_cursor = split(await Accounts(session).page(query.part, q=query.q), query)
    return AccountPage(data=page, next_cursor=next_cursor)


@router.post("/operator/accounts", status_code=201, summary="Make an account", dependencies=_OPERATOR)
async def create(body: NameBody, session: SessionDep, audit: OperatorAuditDep) -> AccountInfo:
    """Make an account with its default project."""
    return await Accounts(session).create(body.name, audit)


@router.get("/operator/accounts/{account_id}", summary="Describe any account", dependencies=_OPERATOR)
async def account(account_id: AccountId, session: SessionDep) -> AccountInfo:
    """Describe one account."""
    return await Accounts(session).get(account_id)


@router.patch("/operator/accounts/{account_id}", summary="Change any account", dependencies=_OPERATOR)
async def change(
    account_id: AccountId, body: AccountChange, session: SessionDep, audit: OperatorAuditDep
) -> AccountInfo:
    """Give an account another name, or another organisation of the identity provider."""
    all_accounts = Accounts(session)
    if body.name is not None:
        await all_accounts.rename(account_id, body.name, audit)
    if "organization" in body.model_fields_set:
        await all_accounts.set_organization(account_id, body.organization, audit)
    return await all_accounts.get(account_id)


@router.post("/operator/accounts/{account_id}/suspend", summary="Suspend an account", dependencies=_OPERATOR)
async def suspend(account_id: AccountId, session: SessionDep, audit: OperatorAuditDep) -> AccountInfo:
    """Refuse everything to an account from the next request on, at every gateway."""
    return await Accounts(session).suspend(account_id, audit)


@router.post("/operator/accounts/{account_id}/resume", summary="Resume an account", dependencies=_OPERATOR)
async def resume(account_id: AccountId, session: SessionDep, audit: OperatorAuditDep) -> AccountInfo:
    """Let a suspended account in again."""
    return await Accounts(session).resume(account_id, audit)


@router.get("/operator/accounts/{account_id}/limits", summary="List an account's limits", dependencies=_OPERATOR)
async def limits(account_id: AccountId, parts: PartsDep) -> QuotaList:
    """List every limit of an account, with what is taken of it now."""
    async with parts.database.session() as session:
        await Accounts(session).get(account_id)
    return await limits_of(account_id, parts)


@router.put("/operator/accounts/{account_id}/limits", summary="Set a limit of an account", dependencies=_OPERATOR)
async def set_limit(
    account_id: AccountId, body: LimitBody, session: SessionDep, audit: OperatorAuditDep, parts: PartsDep
) -> Quota:
    """Set a limit, or change its value; what is taken of it stays taken."""
    # Before the transaction begins: no call inside it.
    stored = await parts.storage.stored_bytes(account_id) if body.name is LimitName.STORAGE_BYTES else None
    found = await Accounts(session).get(account_id)
    all_limits = Limits(session)
    limit_id = await all_limits.set(
        found.name, body.name, body.value, model=body.model, purpose=body.purpose or ANY, audit=audit
    )
    (quota,) = [one.quota for one in await all_limits.list(account_id) if one.quota.id == limit_id]
    return quota if stored is None else with_stored(quota, stored)


@router.delete(
    "/operator/accounts/{account_id}/limits/{limit_id}",
    status_code=204,
    summary="Remove a limit of an account",
    dependencies=_OPERATOR,
)
async def remove_limit(account_id: AccountId, limit_id: QuotaId, session: SessionDep, audit: OperatorAuditDep) -> None:
    """Limit it no more."""
    await Limits(session).remove(limit_id, account_id=account_id, audit=audit)


@router.get("/operator/users", summary="List all users", dependencies=_OPERATOR)
async def users(query: Annotated[SearchQuery, Query()], session: SessionDep) -> UserPage:
    """List everybody who ever came, newest first. `q` is looked for in names and emails."""
    page, next_cursor = split(await Users(session).page(query.part, q=query.q), query)
    return UserPage(data=page, next_cursor=next_cursor)


@router.get("/operator/users/{user_id}", summary="Describe a user", dependencies=_OPERATOR)
async def user(user_id: str, session: SessionDep) -> UserInfo:
    """Describe one user."""
    return await Users(session).get(user_id)


@router.post("/operator/users/{user_id}/disable", summary="Disable a user", dependencies=_OPERATOR)
async def disable(user_id: str, session: SessionDep, audit: OperatorAuditDep) -> UserInfo:
    """Refuse a user from the next request on, whatever they are a member of. Keys that they made stay."""
    return await Users(session).disable(user_id, audit)


@router.post("/operator/users/{user_id}/enable", summary="Enable a user", dependencies=_OPERATOR)
async def enable(user_id: str, session: SessionDep, audit: OperatorAuditDep) -> UserInfo:
    """Let a disabled user in again."""
    return await Users(session).enable(user_id, audit)


@router.get("/operator/audit", summary="List all changes", dependencies=_OPERATOR)
async def changes(query: Annotated[AuditQuery, Query()], session: SessionDep) -> AuditPage:
    """List the changes to every account, and to what is above accounts, newest first."""
    page, next_cursor = split(await audit_page(session, None, query.only, query.part), query, at="at")
    return AuditPage(data=page, next_cursor=next_cursor)
