"""Takes note of changes as they are made. The only statements on `audit_entries`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hunmin_contracts.audit import Action, ActorKind, AuditEntry
from hunmin_contracts.events import AUDIT, AuditRecorded
from hunmin_contracts.ids import AccountId, ProjectId, RequestId, new_audit_entry_id
from hunmin_contracts.schema import Schema
from hunmin_kit.events import Events
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.paging import Part, paged
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import AuditEntry as AuditRow
from hunmin_gateway.tenancy.reach import Reach


@dataclass(frozen=True)
class Actor:
    """Who makes changes, and the request by which they do."""

    kind: ActorKind
    id: str | None
    request_id: RequestId | None

    @classmethod
    def of(cls, principal: Principal, request_id: RequestId, *, as_operator: bool = False) -> "Actor":
        """Return the person, or where there is none the key."""
        own = ActorKind.KEY if principal.user_id is None else ActorKind.USER
        return cls(ActorKind.OPERATOR if as_operator else own, principal.user_id or principal.key_id, request_id)


STARTING = Actor(ActorKind.CLI, "start", None)  # a gateway that makes its first key


class Audit:
    """What one actor does in one transaction: noted there, or not at all, and told when it is committed."""

    def __init__(self, session: AsyncSession, events: Events, actor: Actor) -> None:
        self._session = session
        self._events = events
        self.actor = actor

    async def note(
        self,
        action: Action,
        subject_id: str,
        *,
        account_id: AccountId | None,
        project_id: ProjectId | None = None,
        before: Schema | None = None,
        after: Schema | None = None,
    ) -> None:
        """Take note of a change. `before` and `after` are what may be shown of the subject: no secret is in them."""
        entry = AuditEntry(
            id=new_audit_entry_id(),
            at=datetime.now(UTC),
            account_id=account_id,
            project_id=project_id,
            actor_kind=self.actor.kind,
            actor_id=self.actor.id,
            action=action,
            subject_id=subject_id,
            before=_shown(before),
            after=_shown(after),
            request_id=self.actor.request_id,
        )
        await self._session.execute(insert(AuditRow).values(**dict(entry)))
        await self._events.tell(self._session, AUDIT, AuditRecorded(**dict(entry)), key=account_id or subject_id)


def _shown(subject: Schema | None) -> dict[str, Any] | None:
    return None if subject is None else subject.model_dump(mode="json")


@dataclass(frozen=True)
class AuditFilter:
    """Which changes to list, all of them where nothing is said; `[since, until)`."""

    actor_id: str | None = None
    action: str | None = None
    subject_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def audit_page(session: AsyncSession, reach: Reach | None, only: AuditFilter, part: Part) -> list[AuditEntry]:
    """Return changes within reach, with None of all accounts and what is above them; one more than the part has."""
    statement = select(AuditRow)
    if reach is not None:
        statement = statement.where(reach.of(AuditRow))
    for column, value in (
        (AuditRow.actor_id, only.actor_id),
        (AuditRow.action, only.action),
        (AuditRow.subject_id, only.subject_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if only.since is not None:
        statement = statement.where(AuditRow.at >= only.since)
    if only.until is not None:
        statement = statement.where(AuditRow.at < only.until)
    rows = await session.scalars(paged(statement, part, by=(AuditRow.at.expression, AuditRow.id.expression)))
    return [AuditEntry.model_validate(row, from_attributes=True) for row in rows]
