"""API keys of the caller's account and projects."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Query, Response
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import ProjectId
from hunmin_contracts.tenancy import SCOPES, ApiKeyInfo, ApiKeyPage, KeyKind, NewApiKey, Role, Scope
from hunmin_kit.data import SessionDep
from pydantic import Field
from sqlalchemy import func, select

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.keys.keys import KeyFilter, Keys, Wanted
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.public_schema import PublicSchema
from hunmin_gateway.studio.changes import AuditDep, Name, ReachDep
from hunmin_gateway.studio.paging import SearchQuery, split
from hunmin_gateway.studio.router import studio_router
from hunmin_gateway.tenancy.projects import Projects, narrowed

router = studio_router()
_READ, _MANAGE = [requires(Scope.READ)], [requires(Scope.MANAGE)]
_MAX_LIFETIME_S = 100 * 365 * 86_400
_MAX_OVERLAP_S = 90 * 86_400
_NOT_KEPT = {"Cache-Control": "no-store"}  # an answer with a secret, not with its Idempotency-Key either


class KeyQuery(SearchQuery):
    """Which keys to list."""

    project: str | None = None
    kind: KeyKind | None = None
    created_by: str | None = None
    valid: bool | None = None


class CreateKeyBody(PublicSchema):
    """A key to make. Without scopes it has a developer's, as far as its maker has them."""

    name: Name
    project_id: ProjectId | None = Field(default=None, description="Where it is; left out, the caller's own.")
    kind: Literal["test", "service"] = "service"
    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], Field(min_length=1)] | None = None
    is_account_wide: bool = False
    lifetime_s: int | None = Field(default=None, ge=1, le=_MAX_LIFETIME_S, description="Valid until revoked, if null.")


class RotateBody(PublicSchema):
    """How long the old key is still valid."""

    overlap_s: int = Field(default=0, ge=0, le=_MAX_OVERLAP_S)


@router.get("/keys", summary="List the keys", dependencies=_READ)
async def keys(
    query: Annotated[KeyQuery, Query()], reach: ReachDep, session: SessionDep, parts: PartsDep
) -> ApiKeyPage:
    """List the keys that you see, newest first. People's own, kind `console`, can be sent by nobody."""
    only = KeyFilter(query.q, query.kind, query.created_by, query.valid)
    found = await Keys(session, await narrowed(session, reach, query.project), pepper=parts.pepper).page(
        query.part, only
    )
    page, next_cursor = split(found, query)
    return ApiKeyPage(data=page, next_cursor=next_cursor)


@router.post("/keys", status_code=201, summary="Make a key", dependencies=_MANAGE)
async def create(
    body: CreateKeyBody,
    principal: PrincipalDep,
    reach: ReachDep,
    session: SessionDep,
    parts: PartsDep,
    audit: AuditDep,
    response: Response,
) -> NewApiKey:
    """Make a key, which is shown this once. It has no right that you have not."""
    response.headers.update(_NOT_KEPT)
    project = await Projects(session, reach).get(body.project_id or principal.project_id)
    if project.archived_at is not None:
        raise HunminError(ErrorCode.CONFLICT, f"The project {project.name!r} is archived. Restore it before.")
    scopes = SCOPES[Role.DEVELOPER] & principal.scopes if body.scopes is None else frozenset(body.scopes)
    if not scopes:
        raise HunminError(ErrorCode.INVALID_PARAMETER, "Parameter scopes: name those of yours.", param="scopes")
    for scope in sorted(scopes):
        principal.require(scope)
    if body.is_account_wide:
        principal.require_account_wide()
    now = await session.scalar(select(func.now()))
    wanted = Wanted(
        account_id=project.account_id,
        project_id=project.id,
        name=body.name,
        kind=KeyKind(body.kind),
        scopes=scopes,
        is_account_wide=body.is_account_wide,
        created_by=principal.user_id or principal.key_id,
        expires_at=None if body.lifetime_s is None or now is None else now + timedelta(seconds=body.lifetime_s),
    )
    return await Keys(session, reach, pepper=parts.pepper).create(wanted, audit)


@router.get("/keys/{key_id}", summary="Describe a key", dependencies=_READ)
async def key(key_id: str, reach: ReachDep, session: SessionDep, parts: PartsDep) -> ApiKeyInfo:
    """Describe one key. It cannot be shown again."""
    return await Keys(session, reach, pepper=parts.pepper).get(key_id)


@router.post("/keys/{key_id}/revoke", summary="Revoke a key", dependencies=_MANAGE)
async def revoke(
    key_id: str, principal: PrincipalDep, reach: ReachDep, session: SessionDep, parts: PartsDep, audit: AuditDep
) -> ApiKeyInfo:
    """Refuse a key from the next request on, at every gateway. You need all of its rights."""
    return await Keys(session, reach, pepper=parts.pepper).revoke(key_id, audit, by=principal)


@router.post("/keys/{key_id}/rotate", status_code=201, summary="Rotate a key", dependencies=_MANAGE)
async def rotate(
    key_id: str,
    body: RotateBody,
    principal: PrincipalDep,
    reach: ReachDep,
    session: SessionDep,
    parts: PartsDep,
    audit: AuditDep,
    response: Response,
) -> NewApiKey:
    """Make a key with the same rights, and refuse the old one after `overlap_s`. You need all of its rights."""
    response.headers.update(_NOT_KEPT)
    keys = Keys(session, reach, pepper=parts.pepper)
    return await keys.rotate(key_id, audit, by=principal, overlap=timedelta(seconds=body.overlap_s))
