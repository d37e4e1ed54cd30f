"""Members of the caller's account and projects."""

from typing import Annotated

from fastapi import Query
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import ProjectId
from hunmin_contracts.tenancy import MemberInfo, MemberPage, Role, Scope
from hunmin_kit.data import SessionDep
from pydantic import AfterValidator, Field, StringConstraints

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.public_schema import PublicSchema
from hunmin_gateway.studio.changes import AuditDep, ReachDep
from hunmin_gateway.studio.paging import SearchQuery, split
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tenancy.members import Invited, Members
from hunmin_gateway.tenancy.projects import narrowed

router = studio_router()
_MANAGE = [requires(Scope.MANAGE)]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=320, pattern=r"^[^\s@\x00-\x1f]+@[^\s@\x00-\x1f]+$"),
    AfterValidator(str.lower),
]


class MemberQuery(SearchQuery):
    """Which members to list. `q` is looked for in names and emails."""

    role: Role | None = None
    project: str | None = None


class AddMemberBody(PublicSchema):
    """Whom to add, by one of the two, and as what. Without a project: to all that the caller sees."""

    email: Email | None = None
    user_id: str | None = None
    role: Role = Field(strict=False)
    project_id: ProjectId | None = None


class RoleBody(PublicSchema):
    """A role."""

    role: Role = Field(strict=False)


@router.get("/members", summary="List the members", dependencies=[requires(Scope.READ)])
async def members(query: Annotated[MemberQuery, Query()], reach: ReachDep, session: SessionDep) -> MemberPage:
    """List the members that you see, newest first, also those who were invited and never came."""
    where = await narrowed(session, reach, query.project)
    found = await Members(session, where).page(query.part, q=query.q, role=query.role)
    page, next_cursor = split(found, query)
    return MemberPage(data=page, next_cursor=next_cursor)


@router.post("/members", status_code=201, summary="Add a member", dependencies=_MANAGE)
async def add(
    body: AddMemberBody, principal: PrincipalDep, reach: ReachDep, session: SessionDep, audit: AuditDep
) -> MemberInfo:
    """Add a user, or whoever first comes with that email. Only owners add owners and admins."""
    if (body.email is None) == (body.user_id is None):
        raise HunminError(
            ErrorCode.INVALID_PARAMETER, "Send one of email and user_id: who is to be a member.", param="email"
        )
    where = await narrowed(session, reach, body.project_id)
    return await Members(session, where).add(Invited(body.user_id, body.email), body.role, principal, audit)


@router.get("/members/{member_id}", summary="Describe a member", dependencies=[requires(Scope.READ)])
async def member(member_id: str, reach: ReachDep, session: SessionDep) -> MemberInfo:
    """Describe one member."""
    return await Members(session, reach).get(member_id)


@router.patch("/members/{member_id}", summary="Change a member's role", dependencies=_MANAGE)
async def change(
    member_id: str, body: RoleBody, principal: PrincipalDep, reach: ReachDep, session: SessionDep, audit: AuditDep
) -> MemberInfo:
    """Give a member another role. Only owners make owners and admins, or change them; the last owner stays one."""
    return await Members(session, reach).change(member_id, body.role, principal, audit)


@router.delete("/members/{member_id}", status_code=204, summary="Remove a member", dependencies=_MANAGE)
async def remove(
    member_id: str, principal: PrincipalDep, reach: ReachDep, session: SessionDep, audit: AuditDep
) -> None:
    """Remove a member. Keys that they made stay: list them with `created_by`, and revoke them."""
    await Members(session, reach).remove(member_id, principal, audit)
