"""The caller's account and its projects, and what the caller may do in them."""

from typing import Annotated

from fastapi import Query
from hunmin_contracts.tenancy import AccountInfo, Me, ProjectInfo, ProjectPage, Scope
from hunmin_kit.data import SessionDep

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.studio.changes import AuditDep, NameBody, ReachDep
from hunmin_gateway.studio.paging import SearchQuery, split
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tenancy.accounts import Accounts
from hunmin_gateway.tenancy.projects import Projects

router = studio_router()
_READ, _MANAGE = [requires(Scope.READ)], [requires(Scope.MANAGE)]


@router.get("/me", summary="What you may do", dependencies=_READ)
async def me(principal: PrincipalDep, reach: ReachDep, session: SessionDep) -> Me:
    """Say for whom this request acts, and with which rights."""
    return Me(
        account=await Accounts(session).get(principal.account_id),
        project=await Projects(session, reach).get(principal.project_id),
        key_id=principal.key_id,
        user_id=principal.user_id,
        role=principal.role,
        kind=principal.kind,
        scopes=[scope for scope in Scope if scope in principal.scopes],
        is_account_wide=principal.is_account_wide,
        is_operator=principal.is_operator,
    )


@router.get("/account", summary="Describe your account", dependencies=_READ)
async def account(principal: PrincipalDep, session: SessionDep) -> AccountInfo:
    """Describe the account that you act in."""
    return await Accounts(session).get(principal.account_id)


@router.patch("/account", summary="Rename your account", dependencies=[requires(Scope.ACCOUNT)])
async def rename_account(body: NameBody, principal: PrincipalDep, session: SessionDep, audit: AuditDep) -> AccountInfo:
    """Give your account another name. Who belongs to it by an organisation of the identity provider stays in it."""
    principal.require_account_wide()
    return await Accounts(session).rename(principal.account_id, body.name, audit)


class ProjectQuery(SearchQuery):
    """Which projects to list."""

    archived: bool | None = None


@router.get("/projects", summary="List the projects", dependencies=_READ)
async def projects(query: Annotated[ProjectQuery, Query()], reach: ReachDep, session: SessionDep) -> ProjectPage:
    """List the projects that you see, newest first: your own, or all of the account."""
    found = await Projects(session, reach).page(query.part, q=query.q, archived=query.archived)
    page, next_cursor = split(found, query)
    return ProjectPage(data=page, next_cursor=next_cursor)


@router.post("/projects", status_code=201, summary="Make a project", dependencies=_MANAGE)
async def create(
    body: NameBody, principal: PrincipalDep, reach: ReachDep, session: SessionDep, audit: AuditDep
) -> ProjectInfo:
    """Make a project of your account."""
    principal.require_account_wide()
    return await Projects(session, reach).create(body.name, audit)


@router.get("/projects/{project_id}", summary="Describe a project", dependencies=_READ)
async def project(project_id: str, reach: ReachDep, session: SessionDep) -> ProjectInfo:
    """Describe one project."""
    return await Projects(session, reach).get(project_id)


@router.patch("/projects/{project_id}", summary="Rename a project", dependencies=_MANAGE)
async def rename(project_id: str, body: NameBody, reach: ReachDep, session: SessionDep, audit: AuditDep) -> ProjectInfo:
    """Give a project another name."""
    return await Projects(session, reach).rename(project_id, body.name, audit)


@router.post("/projects/{project_id}/archive", summary="Archive a project", dependencies=_MANAGE)
async def archive(
    project_id: str, principal: PrincipalDep, reach: ReachDep, session: SessionDep, audit: AuditDep
) -> ProjectInfo:
    """Refuse a project's keys and members from now on. Its usage stays, and it can be restored."""
    projects = Projects(session, reach)
    await projects.get(project_id)  # a foreign one is not there, whatever the rights
    principal.require_account_wide()
    return await projects.archive(project_id, audit)


@router.post("/projects/{project_id}/restore", summary="Restore a project", dependencies=_MANAGE)
async def restore(
    project_id: str, principal: PrincipalDep, reach: ReachDep, session: SessionDep, audit: AuditDep
) -> ProjectInfo:
    """Take a project out of the archive: its keys and members are let in again."""
    projects = Projects(session, reach)
    await projects.get(project_id)
    principal.require_account_wide()
    return await projects.restore(project_id, audit)
