"""What jobs told, each entry once and numbered without a gap. It writes within its caller's transaction.

The caller holds the job's row locked, so entries are committed in the order of their numbers, and no reader misses one.
"""

from collections.abc import Sequence
from typing import Any

from hunmin_contracts.tuning import JobMetrics
from hunmin_contracts.tuning_jobs import (
    JobError,
    JobEvent,
    JobHistory,
    JobHistoryRequest,
    JobMetricsPage,
    JobMetricsRequest,
)
from pydantic import TypeAdapter
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_tuning.jobs.states import Standing
from hunmin_tuning.jobs.tables import Job, JournalEntry

METRICS: TypeAdapter[JobMetrics] = TypeAdapter(JobMetrics)
_METRICS_KINDS = ("step", "validation")


async def add_state(session: AsyncSession, job: Job, standing: Standing, error: JobError | None) -> None:
    """Tell how the job stands."""
    content = {
        "state": standing.state,
        "attempt": standing.attempt,
        "is_cancel_wanted": standing.is_cancel_wanted,
        "error": error and error.model_dump(mode="json"),
    }
    await _add(session, job, [{"kind": "state", "content": content}])


async def add_output(session: AsyncSession, job: Job, metrics: Sequence[JobMetrics], lines: Sequence[str]) -> None:
    """Tell these metrics, those that are new, and these lines of the log."""
    told: set[tuple[str, int]] = set()
    if metrics:
        steps = {entry.step for entry in metrics}
        known = select(JournalEntry.kind, JournalEntry.step).where(
            JournalEntry.job_id == job.id, JournalEntry.step.in_(steps)
        )
        told = {(kind, step) for kind, step in (await session.execute(known)).tuples() if step is not None}
    entries: list[dict[str, Any]] = []
    for entry in metrics:
        if (entry.kind, entry.step) not in told:
            told.add((entry.kind, entry.step))
            entries.append({"kind": entry.kind, "step": entry.step, "content": entry.model_dump(mode="json")})
    entries += [{"kind": "log", "content": {"line": line}} for line in lines]
    await _add(session, job, entries)


async def read(session: AsyncSession, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """Return at most `limit` entries behind number `after`."""
    wanted = select(JournalEntry).where(JournalEntry.job_id == job_id, JournalEntry.sequence > after)
    rows = await session.scalars(wanted.order_by(JournalEntry.sequence).limit(limit))
    return [_event(row) for row in rows]


async def read_back(session: AsyncSession, request: JobHistoryRequest) -> JobHistory:
    """Return a page of entries, newest first."""
    wanted = select(JournalEntry).where(JournalEntry.job_id == request.job_id)
    if request.before is not None:
        wanted = wanted.where(JournalEntry.sequence < request.before)
    rows = (await session.scalars(wanted.order_by(JournalEntry.sequence.desc()).limit(request.limit))).all()
    return JobHistory(data=[_event(row) for row in rows], has_more=bool(rows) and rows[-1].sequence > 1)


async def trained_tokens(session: AsyncSession, job_id: str) -> int:
    """Return how many tokens went through the model in the steps."""
    tokens = func.sum(JournalEntry.content["tokens"].as_integer())
    told = select(tokens).where(JournalEntry.job_id == job_id, JournalEntry.kind == "step")
    return (await session.scalar(told)) or 0


async def read_metrics(session: AsyncSession, request: JobMetricsRequest) -> JobMetricsPage:
    """Return a page of metrics alone."""
    kinds = _METRICS_KINDS if request.kind is None else (request.kind,)
    wanted = select(JournalEntry).where(
        JournalEntry.job_id == request.job_id, JournalEntry.kind.in_(kinds), JournalEntry.sequence > request.after
    )
    rows = (await session.scalars(wanted.order_by(JournalEntry.sequence).limit(request.limit + 1))).all()
    page = rows[: request.limit]
    return JobMetricsPage(
        data=[METRICS.validate_python(row.content) for row in page],
        last=page[-1].sequence if page else request.after,
        has_more=len(rows) > request.limit,
    )


async def _add(session: AsyncSession, job: Job, entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    counted = update(Job).where(Job.id == job.id).values(last_sequence=Job.last_sequence + len(entries))
    counted = counted.returning(Job.last_sequence).execution_options(synchronize_session=False)
    last = (await session.execute(counted)).scalar_one()
    first = last - len(entries) + 1
    rows = [
        {"step": None, **entry, "job_id": job.id, "sequence": sequence}
        for sequence, entry in enumerate(entries, start=first)
    ]
    await session.execute(insert(JournalEntry), rows)


def _event(row: JournalEntry) -> JobEvent:
    head = {"sequence": row.sequence, "at": row.at}
    if row.kind in _METRICS_KINDS:
        return JobEvent.model_validate({**head, "type": "metrics", "metrics": row.content})
    return JobEvent.model_validate({**head, "type": row.kind, **row.content})
