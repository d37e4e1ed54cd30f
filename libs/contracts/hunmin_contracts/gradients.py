"""Input gradients of a frozen model (paper, section 5.3), from which a client trains its own prompt encoder."""

from typing import Annotated, Literal

from pydantic import Field, RootModel, model_validator

from hunmin_contracts.endpoint import StreamEndpoint, UploadEndpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.generation import Measurement, ModelName, TokenId
from hunmin_contracts.ids import AccountId
from hunmin_contracts.schema import Schema
from hunmin_contracts.soft_prompts import SlotSizes
from hunmin_contracts.usage import CallOrigin

MAX_BASE64_CHARACTERS = 2**20
# A token id, or -1 - k for row k of the soft prompt.
PromptToken = Annotated[int, Field(ge=-(2**20), lt=2**31, strict=True)]  # true is no token


class GradientExample(Schema):
    """A prompt and what should follow it.

    The prompt is `template` (as in a soft prompt's manifest; null: that of the soft prompt, else rows first) filled
    with `fields`, or `tokens`, in which -1 - k stands for row k. `target` is text or token ids; `weight` scales its
    loss.
    """

    template: str | None = Field(default=None, max_length=20_000)
    fields: dict[str, str] = {}
    tokens: list[PromptToken] | None = Field(default=None, min_length=1)
    target: Annotated[str, Field(min_length=1)] | Annotated[list[TokenId], Field(min_length=1)]
    weight: float = Field(default=1.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _is_one_prompt(self) -> "GradientExample":
        if self.tokens is not None and (self.template is not None or self.fields):
            raise ValueError("give tokens, or template and fields, not both")
        return self


class Candidates(Schema):
    """Ask for AutoPrompt's candidates (Shin et al. 2020, arXiv 2010.15980, section 2.2) at prompt positions, from 0.

    Those are the `top_k` tokens whose embedding e makes -e·g largest, g the loss's gradient at that position, summed
    over the batch: a first-order guess at which token lowers the loss most.
    """

    positions: list[Annotated[int, Field(ge=0, strict=True)]] = Field(min_length=1, max_length=64)
    top_k: int = Field(default=10, ge=1, le=100)


class GradientBatch(Schema):
    """A batch: the loss is `reduction` over all target tokens, and the gradient is of that loss.

    It is taken at the rows of a soft prompt: of a safetensors file with `prompt_embeddings` [n_virtual, d_model] that
    comes with the batch, else of what `model` names. There may be none if only saliency or candidates are wanted.
    """

    model: ModelName
    slots: SlotSizes | None = None
    examples: list[GradientExample] = Field(min_length=1, max_length=256)
    reduction: Literal["mean", "sum"] = "mean"
    gradient_format: Literal["safetensors", "json", "none"] = "safetensors"
    saliency: bool = False
    candidates: Candidates | None = None


class GradientBody(GradientBatch):
    """A batch and in it, as base64, its file. One that is too large for that is a part of a form beside the batch."""

    # Whoever decodes it checks its length: pydantic's error would hold two copies of what is too long.
    soft_prompt: str | None = Field(default=None, json_schema_extra={"maxLength": MAX_BASE64_CHARACTERS})


class GradientRequest(GradientBatch):
    """A batch of an account; `has_soft_prompt`: the file that comes with it is one, else it is empty."""

    account_id: AccountId
    has_soft_prompt: bool = False
    origin: CallOrigin | None = None


class SalientToken(Schema):
    """A prompt token and gradient · embedding at its position: how the loss would change, to first order, were it 0.

    `id` is -1 - k at row k of the soft prompt, where `text` is null.
    """

    id: int
    text: str | None
    saliency: float


class TargetToken(Schema):
    """A target token with the natural logarithm of its probability."""

    id: int
    text: str
    logprob: float


class ExampleGradient(Schema):
    """What came of one example. `loss` is its own mean over target tokens in nats, before `weight`."""

    loss: float
    target: list[TargetToken]
    saliency: list[SalientToken] | None = None


class Candidate(Schema):
    """A token and how far it would lower the loss, to first order, up to a constant of its position."""

    id: int
    text: str
    score: float


class GradientUsage(Schema):
    """What was computed. `backward_tokens`: positions that a backward pass went through."""

    prompt_tokens: int
    backward_tokens: int


class GradientResponse(Schema):
    """The loss and its gradient at the virtual positions [n_virtual, d_model], summed over where a row occurs.

    `gradient` is base64 of a safetensors file with the tensor `gradient` (float32), `gradient_rows` the same as
    numbers: the one that `gradient_format` asked for, and neither without a soft prompt.
    """

    loss: float
    examples: list[ExampleGradient]
    gradient: str | None = None
    gradient_rows: list[list[float]] | None = None
    candidates: list[list[Candidate]] | None = None
    usage: GradientUsage


class GradientProgress(Schema):
    """A micro-batch is done. `usage` counts from the beginning, so that a call that is cut can be metered."""

    type: Literal["progress"] = "progress"
    usage: GradientUsage


class GradientResult(Schema):
    """Last event."""

    type: Literal["result"] = "result"
    response: GradientResponse


class GradientEvent(RootModel[Annotated[GradientProgress | GradientResult, Field(discriminator="type")]]):
    """One line of the stream between services; the gateway answers with the response alone."""


GRADIENTS = StreamEndpoint(
    "POST",
    "/v1/gradients",
    GradientRequest,
    GradientEvent,
    takes_file=True,
    errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED),
)
# Not a first event of the stream: by the time that a caller could refuse, the batch would be on its way.
MEASURE_GRADIENTS = UploadEndpoint(
    "POST",
    "/v1/measure/gradients",
    GradientRequest,
    Measurement,
    errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.OVERLOADED),
)
