"""The tables of jobs. Rows are handled by registry.py, claims.py and journal.py, and nowhere else."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from hunmin_tuning.tables import Table


class Job(Table):
    """One job: what it was asked for, where it stands (states.Standing), and who holds it.

    `number` orders jobs as they came. `token` is that of the claim that holds it until `lease_expires_at`.
    `log_offset` bytes of its log are in the journal, whose last entry is `last_sequence`.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("number"),
        Index("ix_jobs_account_id_number", "account_id", "number"),
        Index("ix_jobs_open", "state", "number", postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    account_id: Mapped[str]
    request: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempt: Mapped[int]
    is_cancel_wanted: Mapped[bool]
    is_publishing: Mapped[bool]
    is_orphaned: Mapped[bool]
    token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    step: Mapped[int] = mapped_column(server_default="0")
    total_steps: Mapped[int | None]
    log_offset: Mapped[int] = mapped_column(BigInteger, server_default="0")
    last_sequence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    soft_prompt: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class JournalEntry(Table):
    """Something that a job told: a change of its state, a line of its log, or the metrics of a step.

    `step` is null but for metrics, so that (job, kind, step) is there once, however often it is written.
    """

    __tablename__ = "journal_entries"
    __table_args__ = (UniqueConstraint("job_id", "kind", "step"),)

    job_id: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str]  # state, log, step, validation
    step: Mapped[int | None]
    content: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
