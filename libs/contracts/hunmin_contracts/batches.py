"""Batches as the Studio API has them: requests that are made without anyone who waits."""

from datetime import datetime

from hunmin_contracts.ids import BatchId, DatasetId, FileId
from hunmin_contracts.page import Page
from hunmin_contracts.schema import Schema


class BatchFault(Schema):
    """What is wrong with a line of a batch's file; without `line`: with all of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchInfo(Schema):
    """How a batch stands. `status` is OpenAI's: a batch is `completed` though some of its requests have failed.

    Of `total` requests so many have an answer, or an error. `dataset_id`: its rows filled a template.
    """

    id: BatchId
    status: str
    endpoint: str
    total: int
    completed: int
    failed: int
    errors: list[BatchFault]
    dataset_id: DatasetId | None
    input_file_id: FileId
    output_file_id: FileId | None
    error_file_id: FileId | None
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class BatchPage(Page[BatchInfo]):
    """Batches, newest first."""
