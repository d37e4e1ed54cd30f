"""The caller's own limits. They are set by an operator: `hunmin quotas`."""

from hunmin_contracts.quotas import QuotaList
from hunmin_contracts.tenancy import Scope
from hunmin_kit.data import SessionDep

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.quotas.limits import Limits
from hunmin_gateway.studio.router import studio_router

router = studio_router()


@router.get("/quotas", summary="List your limits", dependencies=[requires(Scope.READ)])
async def quotas(principal: PrincipalDep, session: SessionDep) -> QuotaList:
    """List every limit of your account: what is used, what running requests have reserved, and when it resets."""
    return QuotaList(data=[listed.quota for listed in await Limits(session).list(principal.account_id)])
