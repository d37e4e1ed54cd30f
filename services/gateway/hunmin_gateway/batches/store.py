"""The batches of projects: made, found, listed, cancelled. Beside statements.py the only statements on `batches`.

Whoever opened the session commits. Every change of state is told by an event, in its transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import BATCH, BatchChanged
from hunmin_contracts.ids import AccountId, ApiKeyId, BatchId, DatasetId, FileId, ProjectId, new_batch_id
from hunmin_contracts.tenancy import KeyKind, Scope, least_role
from hunmin_kit.events import Events
from sqlalchemy import ColumnElement, delete, func, insert, literal, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.batches.batch import WINDOW_S, ClaimedBatch, ClaimedLine, Line, LineError, LineResult
from hunmin_gateway.batches.statements import APPLY_LINE, EXPIRE
from hunmin_gateway.batches.states import Status, sources
from hunmin_gateway.files.store import Files
from hunmin_gateway.principal import Principal
from hunmin_gateway.tables import Batch, BatchLine
from hunmin_gateway.tenancy.reach import Reach

_NOW = func.statement_timestamp()
_FRESH = {"populate_existing": True, "synchronize_session": False}


class Batches:
    """Works in the session it is given."""

    def __init__(self, session: AsyncSession, events: Events) -> None:
        self._session = session
        self._events = events

    async def add(
        self,
        principal: Principal,
        *,
        endpoint: str,
        input_file_id: str,
        attributes: Mapping[str, str],
        dataset_id: DatasetId | None = None,
    ) -> Batch:
        """Make a batch of a file of the account; INVALID_PARAMETER if that cannot be one of a batch."""
        try:
            file = await Files(self._session).find(principal, input_file_id)
        except HunminError as error:
            raise _no_input(error.message + " Upload it with the purpose batch, and send its id.") from None
        if file.purpose != "batch":
            raise _no_input(f"The file {file.id} was not uploaded with the purpose batch. Upload it with that.")
        adding = insert(Batch).values(
            id=new_batch_id(),
            account_id=principal.account_id,
            project_id=principal.project_id,
            key_id=principal.key_id,
            key_kind=principal.kind,
            endpoint=endpoint,
            input_file_id=input_file_id,
            dataset_id=dataset_id,
            attributes=dict(attributes),
            status=Status.VALIDATING,
            expires_at=func.clock_timestamp() + text(f"interval '{WINDOW_S} seconds'"),
        )
        batch = (await self._session.scalars(adding.returning(Batch))).one()
        await self._tell(batch)
        return batch

    async def find(self, principal: Principal, batch_id: str) -> Batch:
        """Return a batch that the principal sees; NOT_FOUND if there is none of that id."""
        query = select(Batch).where(Reach.by(principal).of(Batch), Batch.id == batch_id)
        found = (await self._session.scalars(query, execution_options=_FRESH)).one_or_none()
        if found is None:
            raise HunminError(
                ErrorCode.NOT_FOUND, f"There is no batch {batch_id[:60]!r} in this account.", param="batch_id"
            )
        return found

    async def list(self, principal: Principal, *, limit: int, after: str | None) -> tuple[Sequence[Batch], bool]:
        """Return at most `limit` batches, newest first, behind the one with the id `after`; and whether more follow."""
        query = select(Batch).where(Reach.by(principal).of(Batch))
        if after is not None:
            try:
                last = await self.find(principal, after)
            except HunminError as error:
                raise HunminError(
                    ErrorCode.INVALID_PARAMETER,
                    f"Parameter after: {error.message} Send the last id of the page before.",
                    param="after",
                ) from None
            query = query.where(tuple_(Batch.created_at, Batch.id) < tuple_(literal(last.created_at), literal(last.id)))
        newest = query.order_by(Batch.created_at.desc(), Batch.id.desc()).limit(limit + 1)
        found = (await self._session.scalars(newest)).all()
        return found[:limit], len(found) > limit

    async def cancel(self, principal: Principal, batch_id: str) -> Batch:
        """Run no more of a batch; CONFLICT if it has ended, or is about to. Twice is no error."""
        batch = await self.find(principal, batch_id)
        values = {"ends_as": Status.CANCELLED, "cancelling_at": _NOW, "due_at": _NOW, "claim": None, "attempts": 0}
        if (cancelled := await self._change(batch.id, Status.CANCELLING, values)) is not None:
            return cancelled
        batch = await self.find(principal, batch_id)
        if batch.status not in (Status.CANCELLING, Status.CANCELLED):
            raise HunminError(
                ErrorCode.CONFLICT, f"The batch is {batch.status}: there is nothing of it left to cancel."
            )
        return batch

    async def make_due(self, batch_id: str) -> None:
        """Let any gateway validate a batch that was made."""
        is_new = (Batch.id == batch_id, Batch.status == Status.VALIDATING, Batch.due_at.is_(None))
        await self._session.execute(update(Batch).where(*is_new).values(due_at=_NOW))

    async def check(self, held: ClaimedBatch) -> bool:
        """Tell whether the claim holds; if so, nobody takes it before this transaction ends."""
        query = select(Batch.id).where(Batch.id == held.id, Batch.claim == held.claim).with_for_update()
        return await self._session.scalar(query) is not None

    async def add_lines(self, held: ClaimedBatch, lines: Sequence[Line]) -> bool:
        """Make rows of lines; false if the claim is lost."""
        if not await self.check(held):
            return False
        if lines:
            await self._session.execute(insert(BatchLine), [asdict(line) | {"batch_id": held.id} for line in lines])
        return True

    async def close_lines(self, held: ClaimedBatch) -> bool:
        """Take the lines from whoever may still run one and has lost its claim; false if the batch's claim is lost."""
        if not await self.check(held):
            return False
        claimed = (BatchLine.batch_id == held.id, BatchLine.claim.is_not(None))
        await self._session.execute(update(BatchLine).where(*claimed).values(claim=None))
        return True

    async def forget_lines(self, held: ClaimedBatch) -> bool:
        """Delete the rows of its lines; false if the claim is lost."""
        if not await self.check(held):
            return False
        await self._session.execute(delete(BatchLine).where(BatchLine.batch_id == held.id))
        return True

    async def start(self, held: ClaimedBatch, total: int) -> None:
        """Let its lines be run, unless the claim is lost."""
        values = {"total": total, "in_progress_at": _NOW, "claim": None, "due_at": _NOW}
        await self._change(held.id, Status.IN_PROGRESS, values, held)

    async def fail(self, held: ClaimedBatch, errors: Sequence[LineError]) -> None:
        """End it for what is wrong with its file, unless the claim is lost."""
        if await self.forget_lines(held):
            values = {"errors": [asdict(error) for error in errors], "failed_at": _NOW, "claim": None, "due_at": None}
            await self._change(held.id, Status.FAILED, values, held)

    async def end(self, held: ClaimedBatch, *, output_file_id: FileId | None, error_file_id: FileId | None) -> bool:
        """End it, its files being written; false if the claim is lost."""
        if not await self.forget_lines(held):
            return False
        status = Status(held.ends_as)
        values: dict[str, Any] = {
            "output_file_id": output_file_id,
            "error_file_id": error_file_id,
            f"{status}_at": _NOW,
        }
        values |= {"claim": None, "due_at": None}
        return await self._change(held.id, status, values, held) is not None

    async def apply(self, line: ClaimedLine, result: LineResult) -> bool:
        """Write what came of a line; false if the claim is lost."""
        values = asdict(result) | {"batch_id": line.batch_id, "number": line.number, "claim": line.claim}
        is_last = (await self._session.execute(APPLY_LINE, values)).scalar_one_or_none()
        if is_last:
            await self._tell(await self._read(line.batch_id))
        return is_last is not None

    async def expire(self) -> int:
        """End the running of those whose time is over; return how many they were."""
        expired = (await self._session.scalars(EXPIRE)).all()
        for batch_id in expired:
            await self._tell(await self._read(batch_id))
        return len(expired)

    async def lines(self, batch_id: BatchId, *, after: int, limit: int) -> Sequence[BatchLine]:
        """Return lines in their order, behind number `after`."""
        query = select(BatchLine).where(BatchLine.batch_id == batch_id, BatchLine.number > after)
        return (await self._session.scalars(query.order_by(BatchLine.number).limit(limit))).all()

    async def _change(
        self, batch_id: str, status: Status, values: Mapping[str, Any], held: ClaimedBatch | None = None
    ) -> Batch | None:
        """Bring it to `status` if it may come to that from where it stands, and tell so; None if it may not."""
        guards: list[ColumnElement[bool]] = [Batch.id == batch_id, Batch.status.in_(sources(status))]
        if held is not None:
            guards.append(Batch.claim == held.claim)
        changing = update(Batch).where(*guards).values(status=status, **values).returning(Batch)
        batch = (await self._session.scalars(changing, execution_options=_FRESH)).one_or_none()
        if batch is not None:
            await self._tell(batch)
        return batch

    async def _read(self, batch_id: str) -> Batch:
        return (await self._session.scalars(select(Batch).where(Batch.id == batch_id), execution_options=_FRESH)).one()

    async def _tell(self, batch: Batch) -> None:
        told = BatchChanged(
            batch_id=BatchId(batch.id),
            account_id=AccountId(batch.account_id),
            status=batch.status,
            total=batch.total,
            completed=batch.completed,
            failed=batch.failed,
        )
        await self._events.tell(self._session, BATCH, told, key=batch.id)


def principal_of(row: Any, batch_id: BatchId) -> Principal:
    """Return whom the lines of a batch act for: what it was made by, with the one right that they need."""
    scopes = frozenset({Scope.GENERATE})
    return Principal(
        account_id=AccountId(row.account_id),
        project_id=ProjectId(row.project_id),
        key_id=ApiKeyId(row.key_id),
        user_id=None,
        role=least_role(scopes),
        kind=KeyKind(row.key_kind),
        scopes=scopes,
        is_account_wide=False,
        is_operator=False,
        has_limits=row.has_limits,
        batch_id=batch_id,
    )


def _no_input(message: str) -> HunminError:
    return HunminError(ErrorCode.INVALID_PARAMETER, message, param="input_file_id")
