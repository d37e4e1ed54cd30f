"""Soft prompts: what p-tuning leaves, `[n_virtual, d_model]` rows that take the place of tokens in a prompt.

The generation service keeps them by name and version for each account, and serves them. A file is safetensors in
PEFT's layout (one tensor, `TENSOR`) whose metadata entry `METADATA` holds the `Manifest` as JSON.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Base64Bytes, Field

from hunmin_contracts.endpoint import Endpoint, UploadEndpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.ids import AccountId, DatasetId, JobId, SoftPromptId
from hunmin_contracts.peft import AdapterConfig
from hunmin_contracts.schema import Empty, Schema
from hunmin_contracts.storage import MaxStoredBytes
from hunmin_contracts.tuning import TuningResult, VirtualSlots

TENSOR = "prompt_embeddings"
METADATA = "hunmin"

# No `@`: it stands before the version. The first letter keeps a name apart from a number or an option.
SoftPromptName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
SoftPromptReference = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}(@[1-9][0-9]{0,8})?$")]
SlotSizes = VirtualSlots
MAX_PROVENANCE = 64  # entries


class Manifest(Schema):
    """What must be known of a soft prompt to serve it.

    `template` is text with `{field}`s and the slots `<|VIRTUAL_PROMPT_0|>`, `<|VIRTUAL_PROMPT_1|>`, …; slot i takes the
    next `slots[i]` rows. Without one the rows come before the prompt, as PEFT puts them. Digests are sha256 in hex, of
    the base model's weights and of its tokenizer; null where the file comes from elsewhere and does not tell.
    """

    model_digest: str | None = None
    tokenizer_digest: str | None = None
    template: str | None = Field(default=None, max_length=20_000)
    slots: SlotSizes | None = None
    provenance: dict[str, str] = Field(default={}, max_length=MAX_PROVENANCE)


class SoftPromptOrigin(Schema):
    """The tuning job that learned a soft prompt, from what, and how it answered the test part.

    Two results can be compared where `test_digest`, of the test part's rows, is the same. `dataset` is `name@version`.
    """

    job_id: JobId
    dataset_id: DatasetId
    dataset: str
    test_digest: str
    result: TuningResult


class SoftPromptInfo(Schema):
    """One version of a soft prompt. `digest` is the sha256 of its file, `dtype` that of its rows in the file.

    `is_promoted`: its name alone means this version.
    """

    id: SoftPromptId
    name: str
    version: int
    model: str
    n_virtual: int
    d_model: int
    dtype: Literal["float32", "float16", "bfloat16"]
    digest: str
    size_bytes: int
    manifest: Manifest
    is_promoted: bool = False
    origin: SoftPromptOrigin | None = None
    created_at: datetime


class ImportRequest(Schema):
    """Keep the uploaded file as the next version of `name`, for the base model `model`.

    `template` and `slots` stand in for what the file's manifest does not say; a file without a manifest is a foreign
    one, such as PEFT's `adapter_model.safetensors`; `adapter` is the configuration that lay beside it. With an
    `origin` whose job has left a version already, that version is the answer. If the file that is kept takes more than
    `max_stored_bytes` it is not: `quota_exceeded`.
    """

    account_id: AccountId
    name: SoftPromptName
    model: str
    template: str | None = Field(default=None, max_length=20_000)
    slots: SlotSizes | None = None
    adapter: AdapterConfig | None = None
    origin: SoftPromptOrigin | None = None
    max_stored_bytes: MaxStoredBytes = None


class SoftPromptRequest(Schema):
    """One soft prompt of the account: `reference` is `name@version`, or `name` for the promoted version.

    Until a version of a name is promoted, the name means the newest.
    """

    account_id: AccountId
    reference: str


class PromoteRequest(SoftPromptRequest):
    """Make the name mean this version from now on; `reference` is `name@version`."""


class DeleteRequest(SoftPromptRequest):
    """Delete one; requests that hold it go on to their end.

    A promoted version is a `conflict`, since whoever names it would be served another: with `force` it goes, and its
    name means the newest that is left.
    """

    force: bool = False


class ListRequest(Schema):
    """The account's soft prompts, by name, newest version first; `after` is the id that a page before ended with."""

    account_id: AccountId
    name: str | None = None
    limit: int = Field(default=50, ge=1, le=200)
    after: SoftPromptId | None = None


class SoftPromptPage(Schema):
    """Some of them. `has_more`: others follow."""

    data: list[SoftPromptInfo]
    has_more: bool


class CompareBody(Schema):
    """The soft prompts to compare, each as `name@version` or `name`; the first is what the others are measured by."""

    references: list[SoftPromptReference] = Field(min_length=2, max_length=20)


class EvaluationDifference(Schema):
    """How much more the tuned answers scored than the first's: less `loss`, or more of the others, is better.

    `loss` is null where the tokenizers differ, since it is per token.
    """

    loss: float | None
    accuracy: float | None
    macro_f1: float | None
    exact_match: float | None
    bleu: float | None


class ComparedSoftPrompt(Schema):
    """One of several, beside the first. `differs_in` are paths in `soft_prompt` where it has another value.

    `is_same_test`: it was judged on the same rows as the first; null where one of them was not judged by a job.
    `difference` is null unless it was.
    """

    soft_prompt: SoftPromptInfo
    differs_in: list[str]
    is_same_test: bool | None
    difference: EvaluationDifference | None


class SoftPromptComparison(Schema):
    """What was asked for, in that order."""

    data: list[ComparedSoftPrompt]


class SoftPromptFile(Schema):
    """The file as it was kept."""

    info: SoftPromptInfo
    content: Base64Bytes = Field(repr=False)


IMPORT = UploadEndpoint(
    "POST",
    "/v1/soft-prompts",
    ImportRequest,
    SoftPromptInfo,
    errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.QUOTA_EXCEEDED),
)
LIST = Endpoint("GET", "/v1/soft-prompts", ListRequest, SoftPromptPage)
DESCRIBE = Endpoint(
    "GET", "/v1/soft-prompts/{reference}", SoftPromptRequest, SoftPromptInfo, errors=(ErrorCode.NOT_FOUND,)
)
READ = Endpoint(
    "GET", "/v1/soft-prompts/{reference}/file", SoftPromptRequest, SoftPromptFile, errors=(ErrorCode.NOT_FOUND,)
)
PROMOTE = Endpoint(
    "POST", "/v1/soft-prompts/{reference}/promote", PromoteRequest, SoftPromptInfo, errors=(ErrorCode.NOT_FOUND,)
)
DELETE = Endpoint(
    "DELETE", "/v1/soft-prompts/{reference}", DeleteRequest, Empty, errors=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
)
