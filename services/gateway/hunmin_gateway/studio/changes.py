"""What routes that change something share: who makes the change, and the names that they may give."""

from typing import Annotated

from fastapi import Depends
from hunmin_contracts.ids import ProjectId
from hunmin_kit.data import SessionDep
from hunmin_kit.web import current_request_id
from pydantic import StringConstraints

from hunmin_gateway.audit.audit import Actor, Audit
from hunmin_gateway.authentication import PrincipalDep
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.public_schema import NAME, PublicSchema
from hunmin_gateway.tenancy.reach import Reach

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=NAME)]


def _audit(principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> Audit:
    return Audit(session, parts.events, Actor.of(principal, current_request_id()))


def _operator_s_audit(principal: PrincipalDep, session: SessionDep, parts: PartsDep) -> Audit:
    return Audit(session, parts.events, Actor.of(principal, current_request_id(), as_operator=True))


def _reach(principal: PrincipalDep) -> Reach:
    return Reach.by(principal)


AuditDep = Annotated[Audit, Depends(_audit)]
OperatorAuditDep = Annotated[Audit, Depends(_operator_s_audit)]
ReachDep = Annotated[Reach, Depends(_reach)]


class NameBody(PublicSchema):
    """A name."""

    name: Name


class InProject(PublicSchema):
    """Where something is: in a project, or if it is left out in the caller's own."""

    project_id: ProjectId | None = None
