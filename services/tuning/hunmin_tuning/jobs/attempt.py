"""What is done with a job in hand: prepare, start or find its process, follow it, publish what it leaves, end it.

Whatever happens ends in one outcome, and an outcome is told only after the job's process is gone. A lost lease is the
exception: then all is left as it is, for whoever has the job now. The folder of a job that ended is left to the runner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import TuningResult
from hunmin_contracts.tuning_jobs import JobError

from hunmin_tuning.jobs.backends.backend import Gone, JobBackend, Running
from hunmin_tuning.jobs.claims import Claim, Claims, LeaseLost
from hunmin_tuning.jobs.output import Output
from hunmin_tuning.jobs.states import Event
from hunmin_tuning.trainer.job import Failure, JobFolder

T = TypeVar("T")
Prepare = Callable[[Claim, Path], Awaitable[None]]
Publish = Callable[[Claim, Path], Awaitable[str]]

_WRONG = 2  # the trainer's exit code for a job that no attempt will mend
_INTERNAL = JobError(code=ErrorCode.INTERNAL, message="The job broke off by a fault of the service. See its log.")
_OVERDUE = JobError(
    code=ErrorCode.DEADLINE_EXCEEDED,
    message="The job took longer than its deadline_s. Allow more, or train for fewer epochs.",
)
_log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """What every attempt works with.

    `prepare` fills the job's folder for the trainer, and may be called again on the same folder, whose other files it
    leaves alone. `publish` returns the reference of the soft prompt, and may be called again for a job after a crash:
    it must then return the same one. Of their errors, those that the caller must mend fail the job at once.
    """

    claims: Claims
    backend: JobBackend
    prepare: Prepare
    publish: Publish
    poll_s: float = 0.5


@dataclass(frozen=True)
class _Outcome:
    event: Event
    error: JobError | None = None
    result: TuningResult | None = None
    soft_prompt: str = ""


class _Interrupted(Exception):
    def __init__(self, outcome: _Outcome) -> None:
        super().__init__(outcome.event)
        self.outcome = outcome


class _Over(Exception):
    """The job has ended already: its cancel came between two steps."""


class Attempt:
    """One claim of one job, from the claim to what becomes of it."""

    def __init__(self, parts: Parts, claim: Claim, folder: Path) -> None:
        self._parts = parts
        self._claim = claim
        self._folder = folder
        self._files = JobFolder(folder)
        self._output = Output(parts.claims, claim, folder)
        self._is_clear = False
        self._renewed_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Do all of it; cancelled, end the process in good order and give the job back."""
        log = _log.bind(job=self._claim.job_id, attempt=self._claim.standing.attempt)
        try:
            try:
                outcome = await self._outcome()
            except asyncio.CancelledError:
                await self._end(_Outcome(Event.RELEASE))
                raise
            except (LeaseLost, _Over):
                raise
            except HunminError as error:
                outcome = _refused(error)
            except Exception as error:  # the consumer's edge
                log.error("tuning.job.broken", exc_info=error)
                outcome = _Outcome(Event.BREAK, _INTERNAL)
            await self._end(outcome)
        except LeaseLost:
            log.info("tuning.job.lease_lost")
        except _Over:
            log.info("tuning.job.over")

    async def _outcome(self) -> _Outcome:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # its rows may be personal
        try:
            if self._claim.standing.is_cancel_wanted:
                return _Outcome(Event.STOP)
            await self._hold(self._bring_up)
            exit_code = await self._hold(self._follow)
        except _Interrupted as interrupted:
            return interrupted.outcome
        await self._clear()
        if not self._files.result.exists():
            return self._broken(exit_code)
        result = TuningResult.model_validate_json(self._files.result.read_bytes())
        await self._apply(Event.PUBLISH)
        soft_prompt = await self._hold(self._publish, is_heeded=False)
        return _Outcome(Event.SUCCEED, result=result, soft_prompt=soft_prompt)

    async def _bring_up(self) -> None:
        """Find the job's process, or start one, unless an earlier one has left all that it can."""
        claims, backend, claim = self._parts.claims, self._parts.backend, self._claim
        if isinstance(await backend.poll(claim.job_id, self._folder), Running):
            await self._apply(Event.ADOPT)
            return
        is_done = self._files.result.exists() or self._files.error.exists()
        if not is_done:
            if claim.standing.attempt > claims.limits.max_attempts:
                raise _Interrupted(_Outcome(Event.FAIL, self._broken(None).error))
            await backend.stop(claim.job_id, self._folder)  # its files are about to be written
            await self._parts.prepare(claim, self._folder)
        await self._apply(Event.START)
        if not is_done:
            await backend.start(claim.job_id, self._folder)

    async def _follow(self) -> int | None:
        """Record what the process tells until it is gone; return its exit code, if that is known."""
        while True:
            status = await self._parts.backend.poll(self._claim.job_id, self._folder)
            await self._output.record()
            if isinstance(status, Gone):
                return status.exit_code
            await asyncio.sleep(self._parts.poll_s)

    async def _publish(self) -> str:
        return await self._parts.publish(self._claim, self._folder)

    async def _apply(self, event: Event) -> None:
        if (await self._parts.claims.apply(self._claim, event)).is_ended:
            raise _Over

    async def _clear(self) -> None:
        """End whatever is left of the process, and record its last words."""
        if self._is_clear:
            return

        async def clear() -> None:
            await self._parts.backend.stop(self._claim.job_id, self._folder)
            await self._output.record(is_final=True)

        await self._hold(clear, is_heeded=False)
        self._is_clear = True

    async def _end(self, outcome: _Outcome) -> None:
        await self._clear()
        claims = self._parts.claims
        if outcome.result is not None:
            standing = await claims.succeed(self._claim, outcome.result, outcome.soft_prompt)
        else:
            standing = await claims.apply(self._claim, outcome.event, error=outcome.error)
        _log.info("tuning.job.told", job=self._claim.job_id, event_told=outcome.event, state=standing.state)

    def _broken(self, exit_code: int | None) -> _Outcome:
        if self._files.error.exists():  # under torchrun the exit code does not tell
            failure = Failure.model_validate_json(self._files.error.read_bytes())
            return _Outcome(Event.FAIL, JobError(code=failure.code, message=failure.message))
        how = "was killed" if exit_code is None else f"ended with exit code {exit_code}"
        message = f"The trainer {how} before it was done. The end of the job's log may say why."
        return _Outcome(Event.BREAK, JobError(code=ErrorCode.INTERNAL, message=message))

    async def _hold(self, work: Callable[[], Coroutine[Any, Any, T]], *, is_heeded: bool = True) -> T:
        """Keep the lease while `work` is done; end it when the job is another's, or if orders are heeded, by those."""
        await self._renew(is_heeded=is_heeded)  # first: what is another's must not be touched
        task = asyncio.create_task(work())
        try:
            while not (await asyncio.wait({task}, timeout=self._parts.poll_s))[0]:
                try:
                    await self._renew(is_heeded=is_heeded)
                except LeaseLost:
                    if not task.done():  # the work itself may have ended the job
                        raise
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _renew(self, *, is_heeded: bool) -> None:
        now = asyncio.get_running_loop().time()
        try:
            orders = await self._parts.claims.renew(self._claim)
        except HunminError as error:
            if error.code != ErrorCode.UNAVAILABLE or now - self._renewed_at > self._parts.claims.limits.lease_s:
                raise LeaseLost from error
            return
        self._renewed_at = now
        if is_heeded and orders.is_cancel_wanted:
            raise _Interrupted(_Outcome(Event.STOP))
        if is_heeded and orders.is_overdue:
            raise _Interrupted(_Outcome(Event.FAIL, _OVERDUE))


def _refused(error: HunminError) -> _Outcome:
    if error.code in (ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED):
        event = Event.RELEASE  # another service is away: that costs no attempt, and nothing that was computed
    else:
        event = Event.FAIL if error.status < 500 else Event.BREAK
    return _Outcome(event, JobError(code=error.code, message=error.message))
