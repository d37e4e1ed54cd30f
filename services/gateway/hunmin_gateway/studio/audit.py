"""The audit of the caller's account."""

from typing import Annotated

from fastapi import Query
from hunmin_contracts.audit import Action, AuditPage
from hunmin_contracts.tenancy import Scope
from hunmin_kit.data import SessionDep

from hunmin_gateway.audit.audit import AuditFilter, audit_page
from hunmin_gateway.authentication import requires
from hunmin_gateway.studio.changes import ReachDep
from hunmin_gateway.studio.paging import Moment, PageQuery, split
from hunmin_gateway.studio.router import studio_router

router = studio_router()


class AuditQuery(PageQuery):
    """Which changes to list: who made them, what was done to what, and when, in `[since, until)`."""

    actor: str | None = None
    action: Action | None = None
    subject: str | None = None
    since: Moment | None = None
    until: Moment | None = None

    @property
    def only(self) -> AuditFilter:
        """Those changes."""
        return AuditFilter(self.actor, self.action, self.subject, self.since, self.until)


@router.get("/audit", summary="List the changes", dependencies=[requires(Scope.MANAGE)])
async def changes(query: Annotated[AuditQuery, Query()], reach: ReachDep, session: SessionDep) -> AuditPage:
    """List the changes to what you see, newest first, with what was before and after."""
    page, next_cursor = split(await audit_page(session, reach, query.only, query.part), query, at="at")
    return AuditPage(data=page, next_cursor=next_cursor)
