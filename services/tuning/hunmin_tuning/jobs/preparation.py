"""What a job needs before it trains: that its dataset passes and its model is served, and the trainer's files.

The same question is put to the report and answered by the files: rows are divided, and fields named, alike in both.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from hunmin_contracts.datasets import DatasetInfo, DatasetReport, Finding, ReportRequest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import MODELS, ModelInfo
from hunmin_contracts.schema import Empty
from hunmin_contracts.tuning_jobs import CreateJobRequest
from hunmin_kit.web import Client

from hunmin_tuning.datasets.examples import RowsOf, labels_of
from hunmin_tuning.datasets.library import Datasets
from hunmin_tuning.datasets.report import column_of_fields
from hunmin_tuning.datasets.row import mapped
from hunmin_tuning.datasets.splits import divided
from hunmin_tuning.jobs.claims import Claim
from hunmin_tuning.trainer.job import JobFolder, JobRow, TrainerJob, write_whole

_SHOWN_LINES = 5  # in a message; the details have more


class Preparation:
    """Checks jobs when they are asked for, and fills their folders when they are taken."""

    def __init__(
        self, datasets: Datasets, generation: Client, folders: Mapping[str, Path], *, threads: int | None
    ) -> None:
        """`folders` are those of the base models, `threads` those of a trainer."""
        self._datasets = datasets
        self._generation = generation
        self._folders = folders
        self._threads = threads

    async def check(self, request: CreateJobRequest) -> None:
        """Raise what keeps this job from starting; the report's findings are in the details."""
        await self._served(request)
        report = await self._datasets.report(question_of(request))
        if not report.passes:
            raise _failed(report)

    async def prepare(self, claim: Claim, folder: Path) -> None:
        """Write `job.json` and `rows.jsonl`, the same ones however often; what is there already stays."""
        files, request = JobFolder(folder), claim.request
        if files.job.exists():  # it comes last
            return
        model = await self._served(request)
        write = partial(_write_rows, request, files.rows)
        try:
            provenance = await self._datasets.read(request.account_id, request.dataset_id, write)
        except HunminError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            raise HunminError(
                ErrorCode.NOT_FOUND,
                f"The dataset {request.dataset_id} was deleted before the job began. Upload it again, and ask for "
                "another job.",
            ) from None
        job = TrainerJob(
            template=request.template,
            model_folder=self._folders[request.model].resolve(),
            model_digest=model.digest,
            hyperparameters=request.hyperparameters,
            provenance={"job": claim.job_id, "model": request.model, **provenance},
            evaluation_dtype=model.dtype,
            threads=self._threads,
        )
        await asyncio.to_thread(write_whole, files.job, job.model_dump_json(indent=2).encode())

    async def _served(self, request: CreateJobRequest) -> ModelInfo:
        """Return the model as it is served; raise if it is not, or not as it will be trained."""
        trained = self._datasets.model(request.model)
        served = {model.name: model for model in (await self._generation.call(MODELS, Empty())).models}
        if request.name in served:
            raise HunminError(
                ErrorCode.CONFLICT, f"{request.name!r} is the name of a model. Choose another one.", param="name"
            )
        model = served.get(request.model)
        if model is None:
            raise HunminError(
                ErrorCode.MODEL_NOT_FOUND,
                f"The model {request.model!r} is not served, so nothing that is tuned for it would be. "
                f"There are: {', '.join(served)}.",
                param="model",
            )
        if model.tokenizer_digest != trained.tokenizer.digest:
            raise HunminError(
                ErrorCode.CONFLICT,
                f"The model {request.model!r} is served with another tokenizer than it is tuned with. Name the same "
                "folder in HUNMIN_TUNING_MODELS as in HUNMIN_GENERATION_MODELS.",
                param="model",
            )
        return model


def question_of(request: CreateJobRequest) -> ReportRequest:
    """Return what a job asks of its dataset."""
    return ReportRequest(
        account_id=request.account_id,
        reference=request.dataset_id,
        template=request.template,
        columns=request.columns,
        model=request.model,
        slots=request.hyperparameters.slots,
        shares=request.shares,
        seed=request.split_seed,
        train_rows=request.train_rows,
        example_seed=request.hyperparameters.seed,
    )


def _write_rows(request: CreateJobRequest, path: Path, info: DatasetInfo, rows: RowsOf) -> dict[str, str]:
    """Write the rows that are used, with their parts; return what the soft prompt is to tell of them.

    Results can be compared where their test parts are the same texts, however these are called in a template.
    """
    columns = column_of_fields(request.template, request.columns, info.columns)
    labels = labels_of(rows, request.template, columns)
    splits = divided(info.rows, request.shares, request.split_seed, labels=labels, train_rows=request.train_rows)
    test = hashlib.sha256()

    def lines() -> Iterator[bytes]:
        for row, split in zip(rows(), splits, strict=True):
            if split == "test":
                test.update(json.dumps(row.fields, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            if split is not None:
                fields = mapped(row, columns).fields
                yield JobRow(line=row.line, split=split, fields=fields).model_dump_json().encode() + b"\n"

    write_whole(path, lines())
    return {
        "dataset": f"{info.name}@{info.version}",
        "dataset_id": info.id,
        "dataset_digest": info.digest,
        "test_digest": test.hexdigest(),
    }


def _failed(report: DatasetReport) -> HunminError:
    errors = [finding for finding in report.findings if finding.severity == "error"]
    others = f" There are {len(errors) - 1} more findings of this weight." if len(errors) > 1 else ""
    return HunminError(
        ErrorCode.INVALID_REQUEST,
        f"The dataset {report.name}@{report.version} does not pass, so no job was started. {_said(errors[0])}{others} "
        "See the dataset's report.",
        param="dataset",
        findings=[finding.model_dump(mode="json") for finding in errors],
    )


def _said(finding: Finding) -> str:
    if not finding.lines:
        return finding.message
    lines = finding.lines[:_SHOWN_LINES]
    shown = ", ".join(f"{line:,}" for line in lines)
    more = f" and {finding.count - len(lines):,} more" if finding.count > len(lines) else ""
    return f"Line {shown}{more}: {finding.message}"
