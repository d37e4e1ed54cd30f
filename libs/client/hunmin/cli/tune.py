"""`hunmin tune`: from a labelled file to a served soft prompt, and everything that happens on the way."""

import argparse
import sys
import time
from pathlib import Path

from hunmin_contracts.datasets import DatasetInfo
from hunmin_contracts.products import Product
from hunmin_contracts.tuning_jobs import JobInfo, JobPlan
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from hunmin.cli.display import Display, display_on, queue_text, show
from hunmin.cli.outcome import show_report, show_result, show_served
from hunmin.cli.plan import add_plan, plan_of
from hunmin.cli.terminal import Commands, Exit, UsageError, run, say
from hunmin.client import Client
from hunmin.errors import ConflictError, UnavailableError, UnreachableError
from hunmin.tuning_jobs import ENDED

_POLL_S = 1.0
_AWAY_S = 600.0  # a studio that is away for longer than an upgrade takes is not waited for
_EPILOG = f"""The studio is the one at HUNMIN_BASE_URL (http://127.0.0.1:8080), the key HUNMIN_API_KEY.
Ctrl-C asks whether to cancel the job; without a terminal it leaves the job alone.

exit status: {Exit.DONE} the soft prompt is served; {Exit.FAILED} the studio refused or was not there; \
{Exit.USAGE} the arguments make no sense;
{Exit.UNFIT_DATASET} the dataset's report does not pass; {Exit.JOB_ENDED} the job failed or was cancelled; \
{Exit.INTERRUPTED} interrupted, or cancelled by Ctrl-C"""


def add(commands: Commands) -> None:
    """Add `hunmin tune`."""
    parser = commands.add_parser(
        "tune",
        help="learn a soft prompt from a labelled file, and serve it",
        description="Learn a soft prompt from a labelled file, and serve it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("from what")
    source = group.add_mutually_exclusive_group()
    source.add_argument("file", nargs="?", type=Path, metavar="FILE", help="CSV, TSV, JSON Lines or Parquet")
    source.add_argument("--dataset", metavar="NAME@VERSION", help="a dataset that is there already")
    source.add_argument("--follow", metavar="JOB", help="show a job that was started before")
    group.add_argument(
        "--product",
        metavar="NAME",
        help="begin with what ships: template, parameters, sample",
    )
    parser.add_argument("--name", default=argparse.SUPPRESS, help="what the soft prompt is called, and the dataset")
    parser.add_argument("--model", default="starter", help="the base model (starter)")
    parser.add_argument("--detach", action="store_true", help="leave as soon as the job is in the queue")
    add_plan(parser)
    parser.set_defaults(act=lambda options: run(lambda client, console: tune(options, client, console)))


def tune(options: argparse.Namespace, client: Client, console: Console) -> Exit:
    """Do all of it, and say how it ended."""
    if options.follow:
        return follow(options.follow, client, console)
    if not (options.file or options.dataset or options.product):
        raise UsageError("name a FILE to learn from, or a --dataset, or a --product.")
    product = client.products.get(options.product) if options.product else None
    plan = plan_of(options, product)
    dataset = _dataset(options, plan, product, client, console)
    hyperparameters = plan.hyperparameters
    report = client.datasets.report(
        dataset.id,
        template=plan.template,
        model=plan.model,
        columns=plan.columns,
        slots=hyperparameters.slots,
        shares=plan.shares,
        seed=plan.split_seed,
        train_rows=plan.train_rows,
        example_seed=hyperparameters.seed,
    )
    show_report(report, console)
    if not report.passes:
        sys.stderr.write("hunmin: the dataset cannot be learned from as it is: mend the errors above, and try again.\n")
        return Exit.UNFIT_DATASET
    given = {field: getattr(plan, field) for field in plan.model_fields_set}
    job = client.tuning_jobs.create(dataset=dataset.id, **given)
    say(console, f"{job.id} learns {plan.name} for {plan.model}")
    if options.detach:
        say(console, f"follow it: hunmin tune --follow {job.id}")
        return Exit.DONE
    return follow(job.id, client, console)


def follow(job_id: str, client: Client, console: Console) -> Exit:
    """Show a job until it has ended, and what became of it."""
    watch = _Watch(job_id, client, console)
    is_cancelled = False
    while True:
        try:
            job = watch.until_end()
            break
        except KeyboardInterrupt:
            choice = _ask(console) if console.is_terminal and sys.stdin.isatty() and not is_cancelled else "d"
            if choice == "d":
                say(console, f"the job goes on; follow it: hunmin tune --follow {job_id}")
                return Exit.INTERRUPTED
            if choice == "c":
                is_cancelled = _cancel(job_id, client)
    if job.state == "succeeded" and job.result is not None:
        show_result(job.result, console)
        show_served(job, client, console)
        return Exit.DONE
    reason = f": {job.error.message}" if job.error else "."
    sys.stderr.write(f"hunmin: {job_id} {job.state}{reason} `hunmin jobs logs {job_id}` shows what it wrote.\n")
    return Exit.INTERRUPTED if is_cancelled else Exit.JOB_ENDED


class _Watch:
    """Where in a job's events we are, so that looking away for a moment loses none."""

    def __init__(self, job_id: str, client: Client, console: Console) -> None:
        self._job_id = job_id
        self._jobs = client.tuning_jobs
        self._console = console
        self._seen = 0
        self._answered = time.monotonic()

    def until_end(self) -> JobInfo:
        """Show the job until it has ended; it goes on while the studio's gateway is away, so wait for that too."""
        with display_on(self._console) as display:
            while True:
                try:
                    job = self._read_on(display)
                    if job.state in ENDED:
                        return job
                except (UnavailableError, UnreachableError) as error:
                    if time.monotonic() - self._answered > _AWAY_S:
                        raise
                    display.stands(f"no answer, trying again: {error}")
                    time.sleep(_POLL_S)

    def _read_on(self, display: Display) -> JobInfo:
        self._wait_in_queue(display)
        for event in self._jobs.events(self._job_id, after=self._seen):
            show(event, display)
            self._seen, self._answered = event.sequence, time.monotonic()
        return self._jobs.get(self._job_id)

    def _wait_in_queue(self, display: Display) -> None:
        while (job := self._jobs.get(self._job_id)).state == "queued":
            self._answered = time.monotonic()
            display.stands(queue_text(job))
            time.sleep(_POLL_S)


def _dataset(
    options: argparse.Namespace, plan: JobPlan, product: Product | None, client: Client, console: Console
) -> DatasetInfo:
    if options.dataset:
        return client.datasets.get(options.dataset)
    if product and not options.file:
        sample = client.products.sample(product.name)
        return client.datasets.upload(sample, name=plan.name, filename=product.sample.filename)
    path: Path = options.file
    if not console.is_terminal:
        return client.datasets.upload(path, name=plan.name)
    with (
        Progress(console=console, transient=True) as progress,
        progress.open(path, "rb", description=path.name) as file,
    ):
        return client.datasets.upload(file, name=plan.name, filename=path.name)


def _ask(console: Console) -> str:
    """Return `c` to cancel the job, `d` to leave it alone, or anything else to go on."""
    try:
        answer = console.input(Text("\nCancel the job (c), leave it and detach (d), or go on watching (Enter)? "))
    except (KeyboardInterrupt, EOFError):
        return "d"
    return answer.strip().lower()


def _cancel(job_id: str, client: Client) -> bool:
    """Cancel the job; False if it had ended before."""
    try:
        client.tuning_jobs.cancel(job_id)
    except ConflictError:
        return False
    return True
