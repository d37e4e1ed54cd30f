"""What is shown of a dataset before a job, and of a job after it."""

import json
import re
import shlex
from typing import Any

from hunmin_contracts.datasets import DatasetReport
from hunmin_contracts.tuning import Evaluation, TuningResult
from hunmin_contracts.tuning_jobs import JobInfo
from rich import box
from rich.console import Console
from rich.table import Table

from hunmin.cli.terminal import say
from hunmin.client import Client
from hunmin.errors import NotFoundError

_FIELD = re.compile(r"\{(\w+)\}")
_EXAMPLE_CHARS = 80
_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "exact_match": "exact match", "bleu": "BLEU"}
_SHARES = ("accuracy", "macro_f1", "exact_match")  # of 1


def show_report(report: DatasetReport, console: Console) -> None:
    """Show what a job would make of a dataset, and what is to be known of its rows."""
    parts = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    say(console, f"{report.name}@{report.version}: {report.rows} rows ({parts})")
    if report.labels:
        say(console, "labels: " + ", ".join(f"{label} {count}" for label, count in report.labels.items()))
    tokens = report.tokens
    say(
        console,
        f"tokens of a row: {tokens.mean:.0f} on average, {tokens.longest} at most, of {report.context_length} that fit",
    )
    for finding in report.findings:
        more = ", …" if finding.count > len(finding.lines) else ""
        lines = f" (line {', '.join(map(str, finding.lines))}{more})" if finding.lines else ""
        say(console, f"{finding.severity}: {finding.message}{lines}")


def show_result(result: TuningResult, console: Console) -> None:
    """Show how the test part was answered by the base model alone, with examples, and tuned."""
    ways = {"base, zero-shot": result.zero_shot, "base, few-shot": result.few_shot, "tuned": result.tuned}
    measured = [name for name in _METRICS if getattr(result.tuned, name) is not None]
    table = Table(title=f"{result.tuned.rows} test rows", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("", *(_METRICS[name] for name in measured), "loss"):
        table.add_column(title, justify="right" if title else "left")
    for way, evaluation in ways.items():
        table.add_row(way, *(_figure(evaluation, name) for name in measured), f"{evaluation.loss:.3f}")
    console.print(table)
    early = ", stopped early" if result.stopped_early else ""
    say(console, f"{result.steps} steps{early}; the soft prompt of step {result.best_step} is kept")


def show_served(job: JobInfo, client: Client, console: Console) -> None:
    """Show under which name the soft prompt is served, and a request that uses it."""
    path, body = _request(job, client)
    say(console, f"{job.soft_prompt} is served. Ask it:\n")
    say(
        console,
        f"curl {client.base_url}{path} \\\n"
        '  -H "Authorization: Bearer $HUNMIN_API_KEY" -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
    )


def _figure(evaluation: Evaluation, name: str) -> str:
    value = getattr(evaluation, name)
    if value is None:
        return ""
    return f"{value:.1%}" if name in _SHARES else f"{value:.1f}"


def _request(job: JobInfo, client: Client) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request with a row of the job's dataset; a template of one field takes a text."""
    template, columns = job.request.template, job.request.columns
    row = _row(job, client)
    fields = dict.fromkeys(_FIELD.findall(template.prompt))
    values = {field: row.get(columns.get(field, field), "…")[:_EXAMPLE_CHARS] for field in fields}
    if len(values) == 1:
        (prompt,) = values.values()
        longest = 5 if template.verbalizers else 64
        return "/v1/completions", {"model": job.soft_prompt, "prompt": prompt, "max_tokens": longest, "temperature": 0}
    answers = [*(template.verbalizers or {"": "…"}).values()]
    return "/studio/v1/score", {"model": job.soft_prompt, "prompt": values, "continuations": answers}


def _row(job: JobInfo, client: Client) -> dict[str, str]:
    try:
        rows = client.datasets.rows(job.request.dataset_id, limit=1).rows
    except NotFoundError:  # deleted meanwhile
        return {}
    return rows[0].fields if rows else {}
