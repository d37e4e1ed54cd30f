"""`client.tuning_jobs`: from a dataset to a served soft prompt, asked for, watched, cancelled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import httpx
from hunmin_contracts.datasets import Shares
from hunmin_contracts.page import Page
from hunmin_contracts.tuning import Hyperparameters, JobMetrics, TuningTemplate
from hunmin_contracts.tuning_jobs import (
    JobEvent,
    JobInfo,
    JobMetricsPage,
    JobPlan,
    JobState,
    LogEvent,
    MetricsEvent,
    StateEvent,
)
from hunmin_contracts.tuning_preview import Preview, PreviewQuestion

from hunmin.call import LONG_S, Call, Pages, Poll, Stream, event, model, segment
from hunmin.resource import Resource, SenderT, iterates, sends

ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})


class TuningJobs(Resource[SenderT]):
    """The tuning jobs of the account, by id."""

    @sends
    def create(
        self,
        *,
        name: str,
        model: str,
        dataset: str,
        template: TuningTemplate | Mapping[str, Any],
        hyperparameters: Hyperparameters | Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        shares: Shares | None = None,
        split_seed: int | None = None,
        train_rows: int | None = None,
        deadline_s: float | None = None,
    ) -> Call[JobInfo]:
        """Put a job into the queue that learns a soft prompt for `model`, the next version of `name` (see `JobPlan`).

        `dataset` is `name@version`, `name` for its newest version, or an id; its report has to pass for the template.
        """
        given = {
            "template": template,
            "hyperparameters": hyperparameters,
            "columns": columns,
            "shares": shares,
            "split_seed": split_seed,
            "train_rows": train_rows,
            "deadline_s": deadline_s,
        }
        wanted = {field: value for field, value in given.items() if value is not None}
        plan = JobPlan.model_validate({"name": name, "model": model} | wanted)
        # What was not given is the server's to choose; a None that was given, such as patience's, is meant.
        body = {"dataset": dataset} | plan.model_dump(mode="json", exclude_unset=True)
        # Sent twice it would be two jobs.
        return Call("POST", "tuning/jobs", _info, body=body, is_repeatable=False, answer_within_s=LONG_S)

    @sends
    def preview(
        self,
        *,
        template: TuningTemplate | Mapping[str, Any],
        model: str,
        dataset: str | None = None,
        rows: Sequence[Mapping[str, str]] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        columns: Mapping[str, str] | None = None,
        slots: Sequence[int] | None = None,
        shares: Shares | None = None,
        seed: int | None = None,
        train_rows: int | None = None,
        example_seed: int | None = None,
    ) -> Call[Preview]:
        """Show rows as a job with this template would ask them: text, tokens, slots, the examples before them.

        They are `limit` rows of a `dataset` behind the first `offset`, or `rows` that are given, as text by column; the
        rest is as for a report.
        """
        asked: dict[str, Any] = {"template": template, "model": model, "dataset": dataset, "rows": rows, "limit": limit}
        asked |= {"offset": offset, "columns": columns, "slots": slots, "shares": shares, "seed": seed}
        asked |= {"train_rows": train_rows, "example_seed": example_seed}
        body = PreviewQuestion.model_validate({name: value for name, value in asked.items() if value is not None})
        return Call("POST", "tuning/preview", _preview, body=body, answer_within_s=LONG_S)

    @iterates
    def list(self, *, state: JobState | None = None, page_size: int | None = None) -> Pages[JobInfo]:
        """Iterate over the jobs, newest first."""
        query = {"state": state, "limit": page_size}
        read = model(Page[JobInfo])
        return Pages(lambda cursor: Call("GET", "tuning/jobs", read, query=query | {"cursor": cursor}))

    @sends
    def get(self, job_id: str) -> Call[JobInfo]:
        """Say how a job stands: its place in the queue, its step, what became of it."""
        return _get(job_id)

    @sends
    def cancel(self, job_id: str) -> Call[JobInfo]:
        """Cancel a job; one that runs ends as soon as its process is gone. ConflictError if it has ended."""
        return Call("POST", f"{_path(job_id)}/cancel", _info)

    @iterates
    def metrics(
        self, job_id: str, *, kind: Literal["step", "validation"] | None = None, page_size: int | None = None
    ) -> Pages[JobMetrics]:
        """Iterate over what a job has told of its steps and validations by now, in order, each once."""
        query = {"kind": kind, "limit": page_size}
        path = f"{_path(job_id)}/metrics"
        return Pages(lambda after: Call("GET", path, _metrics, query=query | {"after": after}))

    @iterates
    def events(self, job_id: str, *, after: int = 0) -> Stream[StateEvent | MetricsEvent | LogEvent]:
        """Iterate over everything a job tells, behind event number `after`, as it comes, until the job ends.

        A connection that breaks is made again, and goes on where it was: no event is missed, and none comes twice.
        """
        return Stream(f"{_path(job_id)}/events", _told, _TYPES, after=str(after) if after else None)

    @sends
    def wait(
        self,
        job_id: str,
        *,
        on_change: Callable[[JobInfo], object] = lambda job: None,
        poll_s: float = 2.0,
        timeout_s: float | None = None,
    ) -> Poll[JobInfo]:
        """Return the job once it has ended, however that is: look at its `state`.

        It is asked for every `poll_s`, and `on_change` is told of it when it differs. TimeoutError after `timeout_s`;
        the job goes on.
        """
        return Poll(_get(job_id), lambda job: job.state in ENDED, on_change, poll_s, timeout_s)


_info = model(JobInfo)
_preview = model(Preview)
_page = model(JobMetricsPage)
_event = event(JobEvent)
_TYPES = frozenset({"state", "metrics", "log"})


def _path(job_id: str) -> str:
    return f"tuning/jobs/{segment(job_id)}"


def _get(job_id: str) -> Call[JobInfo]:
    return Call("GET", _path(job_id), _info)


def _metrics(response: httpx.Response) -> Page[JobMetrics]:
    page = _page(response)
    return Page[JobMetrics](data=page.data, next_cursor=str(page.last) if page.has_more else None)


def _told(data: str) -> StateEvent | MetricsEvent | LogEvent:
    return _event(data).root
