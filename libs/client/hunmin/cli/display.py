"""What is shown of a job while it runs: a bar in a terminal, lines elsewhere."""

from types import TracebackType
from typing import Protocol, Self

from hunmin_contracts.tuning import StepMetrics, ValidationMetrics
from hunmin_contracts.tuning_jobs import JobInfo, LogEvent, MetricsEvent, StateEvent
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hunmin.cli.terminal import say

_LINES = 20  # of steps, over a whole job


class Display(Protocol):
    """A context that is told how a job goes on."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stands(self, text: str) -> None:
        """The job is in a state: queued behind others, preparing, …"""

    def steps(self, metrics: StepMetrics) -> None:
        """A step is done."""

    def validates(self, metrics: ValidationMetrics) -> None:
        """An evaluation is done."""


def display_on(console: Console) -> Display:
    """Return what suits the console."""
    return _Bar(console) if console.is_terminal else _Lines(console)


def show(event: StateEvent | MetricsEvent | LogEvent, display: Display) -> None:
    """Tell `display` of an event."""
    if isinstance(event, StateEvent):
        if event.state != "queued" or event.error:  # its place in the queue says more
            display.stands(_state(event))
    elif isinstance(event, MetricsEvent):
        if isinstance(event.metrics, StepMetrics):
            display.steps(event.metrics)
        else:
            display.validates(event.metrics)


def queue_text(job: JobInfo) -> str:
    """Say where in the queue a job stands."""
    if job.queue is None:
        return job.state
    guess = "" if job.queue.starts_in_s is None else f", starts in about {_duration(job.queue.starts_in_s)}"
    return f"queued, number {job.queue.position}{guess}"


def _state(event: StateEvent) -> str:
    state = "cancelling" if event.is_cancel_wanted and event.state in ("preparing", "running") else event.state
    again = f", attempt {event.attempt}" if event.attempt > 1 and event.state != "succeeded" else ""
    reason = f": {event.error.message}" if event.error else ""
    return f"{state}{again}{reason}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _validation(metrics: ValidationMetrics) -> str:
    accuracy = "" if metrics.accuracy is None else f", accuracy {metrics.accuracy:.1%}"
    return f"validation loss {metrics.loss:.3f}{accuracy}"


class _Bar:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[validation]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=None, loss="", validation="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stands(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def steps(self, metrics: StepMetrics) -> None:
        self._progress.update(
            self._task, completed=metrics.step, total=metrics.total_steps, loss=f"loss {metrics.loss:.3f}"
        )

    def validates(self, metrics: ValidationMetrics) -> None:
        self._progress.update(self._task, validation=_validation(metrics))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = ""
        self._shown = 0  # of the twentieths of the job

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def stands(self, text: str) -> None:
        if text != self._state:
            say(self._console, text)
        self._state = text

    def steps(self, metrics: StepMetrics) -> None:
        part = metrics.step * _LINES // metrics.total_steps
        if part > self._shown:
            say(self._console, f"step {metrics.step} of {metrics.total_steps}: loss {metrics.loss:.3f}")
        self._shown = max(part, self._shown)

    def validates(self, metrics: ValidationMetrics) -> None:
        best = " (the best so far)" if metrics.is_best else ""
        say(self._console, f"step {metrics.step}: {_validation(metrics)}{best}")
