"""The limit of tuning jobs at a time. A job takes its room when it is asked for, and gives it back when it has ended.

The gateway chooses the job's id, under which its room is held: first by a lease, and for good once the job is there,
which the answer says, or the job's first event if this gateway is gone by then. Its last event gives it back.
"""

from collections.abc import Awaitable, Callable

from hunmin_contracts.errors import HunminError
from hunmin_contracts.events import Envelope, JobChanged
from hunmin_contracts.ids import JobId, new_job_id
from hunmin_contracts.quotas import Purpose
from hunmin_contracts.tuning_jobs import JobInfo
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.principal import Principal
from hunmin_gateway.quotas.amounts import Amounts
from hunmin_gateway.quotas.holdings import Holdings, told_to_be_gone, told_to_be_there
from hunmin_gateway.quotas.quotas import Quotas


class RunningJobs:
    """Lets jobs in for one gateway. Several share a database, and never let in too many between them."""

    def __init__(self, quotas: Quotas, holdings: Holdings) -> None:
        self._quotas = quotas
        self._holdings = holdings

    async def create(self, principal: Principal, model: str, make: Callable[[JobId], Awaitable[JobInfo]]) -> JobInfo:
        """Return the job that `make` asks the tuning service for, with that id; QUOTA_EXCEEDED if there is no room."""
        job_id = new_job_id()
        if not principal.has_limits:
            return await make(job_id)
        holding = self._quotas.held(
            Amounts(jobs=1), account_id=principal.account_id, model=model, purpose=Purpose.TUNING, holder=job_id
        )
        async with holding:
            try:
                info = await make(job_id)
            except HunminError as error:
                await self._holdings.fail(job_id, error)
                raise
            await self._holdings.keep(job_id)
        return info

    async def note(self, session: AsyncSession, event: Envelope[JobChanged]) -> None:
        """Take note of a job that is there, or has ended."""
        if event.data.is_ended:
            await told_to_be_gone(session, event.data.job_id)
        else:
            await told_to_be_there(session, event.data.job_id)
