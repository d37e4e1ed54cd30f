"""The caller's own limits. They are set by an operator: `hunmin quotas`."""

from hunmin_contracts.ids import AccountId
from hunmin_contracts.quotas import QuotaList
from hunmin_contracts.tenancy import Scope

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.parts import Parts, PartsDep
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.studio.router import studio_router

router = studio_router()


@router.get("/quotas", summary="List your limits", dependencies=[requires(Scope.READ)])
async def quotas(principal: PrincipalDep, parts: PartsDep) -> QuotaList:
    """List every limit of your account: what is used, what running requests have reserved, and when it resets."""
    return await limits_of(principal.account_id, parts)


async def limits_of(account_id: AccountId, parts: Parts) -> QuotaList:
    """Return every limit of an account, those of storage with what is kept."""
    async with parts.database.session() as session:
        quotas = [listed.quota for listed in await Limits(session).list(account_id)]
    return QuotaList(data=await parts.storage.shown(account_id, quotas))
