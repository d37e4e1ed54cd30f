"""What a job's process writes, brought into the journal: each line of metrics and log once, over every restart."""

from pathlib import Path

import structlog
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.tuning import JobMetrics
from pydantic import ValidationError

from hunmin_tuning.jobs.backends.backend import LOG
from hunmin_tuning.jobs.claims import Claim, Claims
from hunmin_tuning.jobs.journal import METRICS
from hunmin_tuning.jobs.tail import Tail
from hunmin_tuning.trainer.job import JobFolder

_log = structlog.get_logger()


class Output:
    """The two files of one claim. The metrics are read from their beginning: the journal knows which it has."""

    def __init__(self, claims: Claims, claim: Claim, folder: Path) -> None:
        self._claims = claims
        self._claim = claim
        self._folder = folder
        self._tails: tuple[Tail, Tail] | None = None

    async def record(self, *, is_final: bool = False) -> None:
        """Record what came since. While the database is away nothing is lost; with `is_final` that is an error."""
        is_known = False
        try:
            while await self._record_some(is_final=is_final):
                pass
            is_known = True
        except HunminError as error:
            if is_final or error.code != ErrorCode.UNAVAILABLE:
                raise
        finally:
            if not is_known:  # cancelled, too: whether it was recorded the database will say
                self._tails = None

    async def _record_some(self, *, is_final: bool) -> bool:
        if self._tails is None:
            offset = await self._claims.log_offset(self._claim)
            self._tails = Tail(JobFolder(self._folder).metrics), Tail(self._folder / LOG, offset)
        metrics_tail, log_tail = self._tails
        metrics = [self._parsed(line) for line in metrics_tail.read()]
        lines = log_tail.read(is_final=is_final)
        if not metrics and not lines:
            return False
        known = [entry for entry in metrics if entry is not None]
        await self._claims.record(self._claim, metrics=known, lines=lines, log_offset=log_tail.offset)
        return True

    def _parsed(self, line: str) -> JobMetrics | None:
        try:
            return METRICS.validate_json(line)
        except ValidationError as error:
            # What a trainer killed in the middle of a line may leave: the next one writes that step again.
            _log.warning("tuning.job.metrics_unreadable", job=self._claim.job_id, errors=error.error_count())
            return None
