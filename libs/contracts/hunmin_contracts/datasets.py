"""Datasets: labelled rows by name and version for each account, and the report that a job asks for before it starts.

A row is text by column. Its line is where it begins in the file, from 1; in Parquet, which has no lines, its number.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Base64Bytes, Field, RootModel

from hunmin_contracts.endpoint import Endpoint, StreamEndpoint, UploadEndpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import AccountId, DatasetId
from hunmin_contracts.schema import Empty, Schema
from hunmin_contracts.storage import MaxStoredBytes
from hunmin_contracts.tuning import SplitName, TuningTemplate, VirtualSlots

DatasetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]  # as a soft prompt's
DatasetFormat = Literal["csv", "tsv", "jsonl", "parquet"]
TextEncoding = Literal["utf-8", "utf-8-bom", "cp949", "utf-16-le", "utf-16-be"]
Severity = Literal["error", "warning"]
FindingKind = Literal[
    "malformed_row",  # of the file: what stands in a line is no row
    "ragged_row",
    "formula",
    "repeated_header",
    "no_rows",
    "empty_value",  # of the rows in a template
    "duplicate_row",
    "too_long",
    "shortened",
    "unknown_label",
    "one_label",
    "label_balance",
    "too_few_rows",
    "personal_data",
]
SHOWN_LINES = 20
PROMPT, COMPLETION = "prompt", "completion"  # the columns of a file of conversations


class Finding(Schema):
    """Something to know about some rows: how many, and the first of their lines. An error keeps jobs from starting."""

    kind: FindingKind
    severity: Severity
    message: str
    column: str | None = None
    count: int
    lines: list[int] = Field(default=[], max_length=SHOWN_LINES)


class DatasetInfo(Schema):
    """One version of a dataset. `digest` is the sha256 of its file; `findings` are those of the file alone.

    `is_chat`: its lines were conversations. A row's `prompt` is what chatting with a model that has no chat template of
    its own asks of it, its `completion` the last turn.
    """

    id: DatasetId
    name: str
    version: int
    format: DatasetFormat
    encoding: TextEncoding
    columns: list[str]
    rows: int
    digest: str
    size_bytes: int
    findings: list[Finding]
    filename: str | None = None  # as it was sent
    is_chat: bool = False
    created_at: datetime


class Shares(Schema):
    """How rows are divided, as parts of any sum."""

    train: float = Field(default=0.8, gt=0, le=1e6)
    validation: float = Field(default=0.1, ge=0, le=1e6)
    test: float = Field(default=0.1, ge=0, le=1e6)


class UploadRequest(Schema):
    """Keep the uploaded file as the next version of `name`; a file that a version already has gives that version.

    `filename` tells the format by its ending, and where it does not, the content does. If the file and its rows take
    more than `max_stored_bytes` they are not kept: `quota_exceeded`.
    """

    account_id: AccountId
    name: DatasetName
    filename: str | None = Field(default=None, max_length=1000)
    format: DatasetFormat | None = None
    max_stored_bytes: MaxStoredBytes = None


class DatasetRequest(Schema):
    """One dataset of the account: `reference` is `name@version`, `name` for its newest version, or an id."""

    account_id: AccountId
    reference: str


class ListRequest(Schema):
    """The account's datasets, by name, newest version first; `after` is the id that a page before ended with."""

    account_id: AccountId
    name: str | None = None
    limit: int = Field(default=50, ge=1, le=200)
    after: DatasetId | None = None


class DatasetPage(Schema):
    """Some of them. `has_more`: others follow."""

    data: list[DatasetInfo]
    has_more: bool


class ReportQuestion(Schema):
    """What a dataset is to be used for. `columns` names the column of a field whose name is not the column's own."""

    template: TuningTemplate
    columns: dict[str, str] = Field(default={}, max_length=256)
    model: str = "starter"
    slots: VirtualSlots = [20]
    shares: Shares = Shares()
    seed: int = Field(default=0, ge=0, lt=2**63)  # of the division by shares
    train_rows: int | None = Field(default=None, ge=1, lt=2**31)  # of the training part the first so many; None: all
    example_seed: int = Field(default=0, ge=0, lt=2**63)  # a job's hyperparameters.seed: it draws the examples


class ReportRequest(DatasetRequest, ReportQuestion):
    """Judge one dataset for one use."""


class TokenCounts(Schema):
    """Tokens of a row in the template: prompt with its examples, rows of the soft prompt, answer and end of text."""

    mean: float
    longest: int
    total: int


class DatasetReport(Schema):
    """What a job would make of a dataset. It `passes` unless a finding is an error; a job starts only if it does."""

    dataset_id: DatasetId
    name: str
    version: int
    passes: bool
    rows: int
    splits: dict[SplitName, int]
    labels: dict[str, int] | None
    tokens: TokenCounts
    context_length: int
    findings: list[Finding]


class FilePiece(Schema):
    """Some bytes of a file, behind those before."""

    content: Base64Bytes = Field(repr=False)


class DatasetPiece(RootModel[FilePiece]):
    """One line of the stream."""


class RowsRequest(DatasetRequest):
    """Read rows: `limit` of them after the first `offset`, or with `seed` as many drawn at random, in their order."""

    limit: int = Field(default=20, ge=1, le=200)
    offset: int = Field(default=0, ge=0, lt=2**31)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class DatasetRow(Schema):
    """One row: text by column."""

    line: int
    fields: dict[str, str]


class RowsResponse(Schema):
    """Rows, in the order of the file."""

    rows: list[DatasetRow]


UPLOAD = UploadEndpoint("POST", "/v1/datasets", UploadRequest, DatasetInfo, errors=(ErrorCode.QUOTA_EXCEEDED,))
LIST = Endpoint("GET", "/v1/datasets", ListRequest, DatasetPage)
DESCRIBE = Endpoint("GET", "/v1/datasets/{reference}", DatasetRequest, DatasetInfo, errors=(ErrorCode.NOT_FOUND,))
REPORT = Endpoint(
    "POST",
    "/v1/datasets/{reference}/report",
    ReportRequest,
    DatasetReport,
    is_long=True,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.MODEL_NOT_FOUND),
)
FILE = StreamEndpoint(
    "GET", "/v1/datasets/{reference}/file", DatasetRequest, DatasetPiece, errors=(ErrorCode.NOT_FOUND,)
)
ROWS = Endpoint("GET", "/v1/datasets/{reference}/rows", RowsRequest, RowsResponse, errors=(ErrorCode.NOT_FOUND,))
DELETE = Endpoint("DELETE", "/v1/datasets/{reference}", DatasetRequest, Empty, errors=(ErrorCode.NOT_FOUND,))
