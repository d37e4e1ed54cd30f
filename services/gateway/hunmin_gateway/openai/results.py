"""What a job has measured, as the file of comma-separated values that OpenAI's jobs leave. It knows no routes."""

import csv
import io
import re

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.ids import JobId
from hunmin_contracts.tuning import JobMetrics, StepMetrics
from hunmin_contracts.tuning_jobs import DESCRIBE, METRICS, JobInfo, JobMetricsRequest, JobRequest

from hunmin_gateway.parts import Parts
from hunmin_gateway.principal import Principal

_ID = re.compile(r"file-results-([0-9a-f]{24})")
_COLUMNS = ("step", "epoch", "train_loss", "valid_loss", "learning_rate", "tokens")


def results_id_of(job_id: JobId) -> str:
    """Return the id of the file of a job's results."""
    return "file-results-" + job_id.removeprefix("job_")


def job_of_results(file_id: str) -> JobId | None:
    """Return the job whose results a file has; None if it is another file."""
    found = _ID.fullmatch(file_id)
    return None if found is None else JobId("job_" + found[1])


async def read_results(job_id: JobId, principal: Principal, parts: Parts) -> tuple[JobInfo, bytes]:
    """Return the job and its file; `not_found` until it has succeeded."""
    job = await parts.tuning.call(DESCRIBE, JobRequest(account_id=principal.account_id, job_id=job_id))
    if job.state != "succeeded":
        raise HunminError(ErrorCode.NOT_FOUND, "The job has no results yet. It has them once it has succeeded.")
    return job, _table(await read_metrics(job_id, principal, parts))


async def read_metrics(job_id: JobId, principal: Principal, parts: Parts) -> list[JobMetrics]:
    """Return everything that a job has measured, in order."""
    found: list[JobMetrics] = []
    after, has_more = 0, True
    while has_more:
        request = JobMetricsRequest(account_id=principal.account_id, job_id=job_id, limit=10_000, after=after)
        page = await parts.tuning.call(METRICS, request)
        found += page.data
        after, has_more = page.last, page.has_more
    return found


def _table(metrics: list[JobMetrics]) -> bytes:
    rows: dict[int, dict[str, float]] = {}
    for each in metrics:
        row = rows.setdefault(each.step, {"step": each.step})
        if isinstance(each, StepMetrics):
            row |= {"epoch": each.epoch, "train_loss": each.loss, "learning_rate": each.learning_rate}
            row["tokens"] = each.tokens
        else:
            row["valid_loss"] = each.loss
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows[step] for step in sorted(rows))
    return text.getvalue().encode()
