"""`hunmin jobs`: the account's tuning jobs, looked at and cancelled."""

import argparse
from itertools import islice
from typing import get_args

from hunmin_contracts.tuning_jobs import JobInfo, JobState, LogEvent
from rich import box
from rich.console import Console
from rich.table import Table

from hunmin.cli.display import queue_text
from hunmin.cli.outcome import show_result
from hunmin.cli.terminal import Commands, Exit, run, say
from hunmin.client import Client


def add(commands: Commands) -> None:
    """Add `hunmin jobs`."""
    parser = commands.add_parser("jobs", help="look at tuning jobs, and cancel them")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="the newest jobs")
    listing.add_argument("--state", choices=get_args(JobState))
    listing.add_argument("--limit", type=int, default=20, help="how many (20)")
    for verb, text in (
        ("show", "one job: how it stands, what came of it"),
        ("cancel", "cancel a job"),
        ("logs", "what a job's process writes, until the job ends"),
    ):
        verbs.add_parser(verb, help=text).add_argument("job", metavar="JOB")
    parser.set_defaults(act=lambda options: run(lambda client, console: jobs(options, client, console)))


def jobs(options: argparse.Namespace, client: Client, console: Console) -> Exit:
    """Do what the verb says."""
    if options.verb == "list":
        found = islice(client.tuning_jobs.list(state=options.state, page_size=min(options.limit, 200)), options.limit)
        _show_list([*found], console)
    elif options.verb == "show":
        _show(client.tuning_jobs.get(options.job), console)
    elif options.verb == "cancel":
        job = client.tuning_jobs.cancel(options.job)
        say(console, f"{job.id} {'ends soon' if job.state in ('preparing', 'running') else 'is cancelled'}")
    else:
        for event in client.tuning_jobs.events(options.job):
            if isinstance(event, LogEvent):
                say(console, event.line)
    return Exit.DONE


def _show_list(found: list[JobInfo], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("job", "state", "soft prompt", "model", "step", "created"):
        widest = max((len(job.id) for job in found), default=0) if title == "job" else None
        table.add_column(title, overflow="fold", min_width=widest)  # an id is to be copied: it stands in one piece
    for job in found:
        name = job.soft_prompt or job.request.name
        table.add_row(job.id, job.state, name, job.request.model, _steps(job), f"{job.created_at:%Y-%m-%d %H:%M} UTC")
    console.print(table)


def _show(job: JobInfo, console: Console) -> None:
    say(console, f"{job.id}: {queue_text(job)}")
    say(console, f"learns {job.request.name} for {job.request.model} from {job.request.dataset_id}")
    if job.step:
        say(console, f"step {_steps(job)}, attempt {job.attempt}")
    if job.error:
        say(console, f"{job.error.code}: {job.error.message}")
    if job.result:
        show_result(job.result, console)
    if job.soft_prompt:
        say(console, f"{job.soft_prompt} is what it published")


def _steps(job: JobInfo) -> str:
    return f"{job.step} of {job.total_steps}" if job.total_steps else ""
