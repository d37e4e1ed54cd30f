"""Batches as the OpenAI dialect has them: what is asked for, and how one is described. Pure: no I/O."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hunmin_gateway.batches.states import Status
from hunmin_gateway.public_schema import NAME, PublicSchema, only
from hunmin_gateway.tables import Batch

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
MetadataKey = Annotated[str, Field(max_length=64, pattern=NAME)]
MetadataValue = Annotated[str, Field(max_length=512, pattern=r"^[^\x00]*$")]


class CreateBatch(PublicSchema):
    """A batch to run."""

    input_file_id: str = Field(min_length=1, max_length=200, description="A file of yours with the purpose `batch`.")
    endpoint: Endpoint = Field(description="Where all requests of the file go.")
    completion_window: Literal["24h"]
    # The schema names the keys that are good by their pattern, and so has to say that there are no others.
    metadata: (
        Annotated[
            dict[MetadataKey, MetadataValue], Field(max_length=16, json_schema_extra={"additionalProperties": False})
        ]
        | None
    ) = None

    output_expires_after: Annotated[None, only()] = None


class RequestCounts(BaseModel):
    """How many requests it has, and of how many the answer, or the error, is there."""

    total: int
    completed: int
    failed: int


class BatchFault(BaseModel):
    """What is wrong with a line of the file; without `line`: with all of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchFaults(BaseModel):
    """What is wrong with the file, at most 100 of it."""

    object: Literal["list"] = "list"
    data: list[BatchFault]


class BatchObject(BaseModel):
    """A batch. Times are Unix times in seconds, and null for what has not happened."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> "BatchObject":
        """Describe a batch."""
        moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        faults = None if batch.errors is None else BatchFaults(data=[BatchFault(**one) for one in batch.errors])
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            errors=faults,
            input_file_id=batch.input_file_id,
            status=Status(batch.status),
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            created_at=_seconds(batch.created_at),
            expires_at=_seconds(batch.expires_at),
            request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
            metadata=batch.attributes or None,
            **{f"{name}_at": _maybe_seconds(getattr(batch, f"{name}_at")) for name in moments},
        )


class BatchPage(BaseModel):
    """Some batches, newest first. `has_more`: others follow."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _maybe_seconds(moment: datetime | None) -> int | None:
    return None if moment is None else _seconds(moment)
