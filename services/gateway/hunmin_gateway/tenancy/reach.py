"""How far a caller sees. Every statement on what belongs to accounts is scoped here, and nowhere else."""

from dataclasses import dataclass
from typing import Any

from hunmin_contracts.ids import AccountId, ProjectId
from sqlalchemy import ColumnElement, and_

from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import ApiKey, AuditEntry, Batch, Member, Project, StoredFile, Usage

Scoped = type[Project] | type[Member] | type[ApiKey] | type[AuditEntry] | type[Usage] | type[Batch] | type[StoredFile]


@dataclass(frozen=True)
class Reach:
    """An account, or one project of it alone."""

    account_id: AccountId
    project_id: ProjectId | None

    @classmethod
    def by(cls, principal: Principal) -> "Reach":
        """Return how far `principal` sees."""
        return cls(principal.account_id, principal.visible_project_id)

    def of(self, table: Scoped) -> ColumnElement[bool]:
        """Return the condition under which a row is within reach. What is of the whole account is in no project."""
        project: Any = Project.id if table is Project else table.project_id  # type: ignore[union-attr]
        in_account: ColumnElement[bool] = table.account_id == self.account_id
        return in_account if self.project_id is None else and_(in_account, project == self.project_id)
