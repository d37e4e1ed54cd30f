"""p-tuning: what a job is asked for and what it tells, the same for the API, the job's process and the registry.

A job is a dataset version, a template, a base model, a prompt encoder and its hyper-parameters. It ends as a soft
prompt.
Liu et al. 2021, arXiv 2103.10385; HyperCLOVA, arXiv 2109.04650, section 4.4.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hunmin_contracts.schema import Schema

EncoderKind = Literal["lstm", "mlp", "direct"]
SplitName = Literal["train", "validation", "test"]
MAX_VIRTUAL_TOKENS = 1024  # of a soft prompt


def _check_total(slots: list[int]) -> list[int]:
    if sum(slots) > MAX_VIRTUAL_TOKENS:
        raise ValueError(
            f"the slots take {sum(slots)} rows together, and a soft prompt has at most {MAX_VIRTUAL_TOKENS}"
        )
    return slots


VirtualSlots = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_VIRTUAL_TOKENS)]],
    Field(min_length=1, max_length=64),
    AfterValidator(_check_total),
]


class TuningTemplate(Schema):
    """How a row becomes a prompt and its answer.

    `prompt` is text with `{field}`s and slots `<|VIRTUAL_PROMPT_0|>`, …; `answer` is text with `{field}`s, and all
    that is learned. `verbalizers` turn the value of the field that `answer` consists of, a label, into the text the
    model answers with; then the task is classification. `examples` many rows of the training part, with their
    answers, come before each prompt, joined by `separator` (few-shot). Of a prompt too long, the end of field
    `truncated` is cut, and nothing else.
    """

    prompt: str = Field(min_length=1, max_length=20_000)
    answer: str = Field(min_length=1, max_length=20_000)
    verbalizers: dict[str, str] | None = Field(default=None, min_length=2, max_length=256)
    examples: int = Field(default=0, ge=0, le=64)
    separator: str = Field(default="\n\n", max_length=100)
    truncated: str | None = None


class Hyperparameters(Schema):
    """How the encoder is trained. The defaults suit a few thousand short rows."""

    encoder: EncoderKind = "lstm"
    slots: VirtualSlots = [20]
    epochs: int = Field(default=5, ge=1, le=1000)
    batch_size: int = Field(default=32, ge=1, le=4096)  # rows a step
    accumulation: int = Field(default=1, ge=1, le=1024)  # passes a step, each with its part of the batch
    learning_rate: float = Field(default=5e-3, gt=0, le=10)  # AdamW's, after the warm-up
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    warmup: float = Field(default=0.05, ge=0, le=1)  # of all steps; then it falls linearly to a tenth
    max_gradient_norm: float = Field(default=1.0, gt=0)
    evaluations_per_epoch: int = Field(default=1, ge=1, le=100)  # on the validation part
    patience: int | None = Field(default=3, ge=1)  # evaluations without a better loss before it stops; None: never
    dtype: Literal["float32", "bfloat16"] | None = None  # of the frozen weights; None: bfloat16 where it is fast
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _check_parts(self) -> "Hyperparameters":
        if self.accumulation > self.batch_size:
            raise ValueError("accumulation exceeds batch_size: a pass would have no row")
        return self


class StepMetrics(Schema):
    """After an optimiser step: `loss` in nats per answer token, of the batch; `tokens` went through the model.

    `total_steps`: of the whole job, unless it stops early.
    """

    kind: Literal["step"] = "step"
    step: int
    total_steps: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    duration_s: float


class ValidationMetrics(Schema):
    """After an evaluation on the validation part; `is_best`: the soft prompt of this step is the one that is kept."""

    kind: Literal["validation"] = "validation"
    step: int
    loss: float
    accuracy: float | None = None
    is_best: bool


class Evaluation(Schema):
    """One way of answering the test part. `accuracy` and `macro_f1` with verbalizers, else `exact_match` and `bleu`."""

    rows: int
    loss: float
    accuracy: float | None = None
    macro_f1: float | None = None
    exact_match: float | None = None
    bleu: float | None = None


class TuningResult(Schema):
    """The end of a job: the test part answered by the base model alone, with examples in the prompt, and tuned."""

    steps: int
    best_step: int
    stopped_early: bool
    train_loss: float
    validation_loss: float
    zero_shot: Evaluation
    few_shot: Evaluation
    tuned: Evaluation
    weights_digest: str  # of the frozen weights, the same before and after


JobMetrics = Annotated[StepMetrics | ValidationMetrics, Field(discriminator="kind")]
