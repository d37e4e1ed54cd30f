"""Requests of the TGI dialect, and their way to GenerateRequest. Pure: no I/O.

Names, defaults and rules are those of TGI's router (router/src/lib.rs and validation.rs of
huggingface/text-generation-inference). What the engine cannot do exactly as TGI does is refused by name.
"""

import secrets
from dataclasses import dataclass
from typing import Annotated

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import GenerateRequest, Sampling
from hunmin_contracts.ids import AccountId
from pydantic import Field

from hunmin_gateway.public_schema import NAME, PublicSchema, only

DEFAULT_MAX_NEW_TOKENS = 100  # TGI's since 2.0; it was 20
MAX_BEST_OF = 16
MAX_STOP_SEQUENCES = 16
MAX_TOP_N_TOKENS = 20


class GenerateParameters(PublicSchema):
    """TGI's `parameters`. Null means the default, but for `max_new_tokens`."""

    adapter_id: str | None = Field(
        default=None, min_length=1, max_length=200, pattern=NAME, description="A soft prompt: `name@version` or `name`."
    )
    best_of: int | None = Field(
        default=None, ge=1, le=MAX_BEST_OF, description="Sample so many, and return the one of the best mean logprob."
    )
    decoder_input_details: bool | None = Field(default=None, description="Report the prompt's tokens.")
    details: bool | None = Field(default=None, description="Report tokens, finish reason and counts.")
    do_sample: bool | None = Field(
        default=None, description="Sample; implied by a temperature other than 1, `top_k` or `top_p`. Greedy if not."
    )
    max_new_tokens: int | None = Field(
        default=DEFAULT_MAX_NEW_TOKENS, ge=1, description="Null is as many as fit the model."
    )
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    return_full_text: bool | None = Field(default=None, description="Put the prompt before the text.")
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: Annotated[list[str], Field(max_length=MAX_STOP_SEQUENCES)] | None = Field(
        default=None, description="Strings that end the text; as with TGI, the one that did is its last part."
    )
    temperature: float | None = Field(default=None, gt=0, le=2)
    top_k: int | None = Field(default=None, gt=0, lt=2**31)
    top_n_tokens: int | None = Field(
        default=None, ge=0, le=MAX_TOP_N_TOKENS, description="Report so many of the likeliest tokens at each step."
    )
    top_p: float | None = Field(default=None, gt=0, lt=1)

    # TGI divides it by the length of prompt and text, which the engine does not.
    frequency_penalty: Annotated[None, only(0, 0.0)] = None
    grammar: Annotated[None, only()] = None
    truncate: Annotated[None, only()] = None
    typical_p: Annotated[None, only()] = None
    watermark: Annotated[None, only(False)] = None

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn: TGI samples too where temperature, top_k or top_p change the distribution."""
        is_warped = self.temperature not in (None, 1) or self.top_k is not None or self.top_p is not None
        return bool(self.do_sample) or is_warped

    @property
    def has_details(self) -> bool:
        """Whether a whole answer carries details."""
        return bool(self.details or self.decoder_input_details)


class GenerateBody(PublicSchema):
    """The body of `/generate` and `/generate_stream`."""

    inputs: str = Field(min_length=1, description="The prompt.")
    parameters: GenerateParameters | None = None

    @property
    def given(self) -> GenerateParameters:
        """The parameters, or all defaults."""
        return self.parameters or GenerateParameters()


class RootBody(GenerateBody):
    """The body of the root route, which streams or not."""

    stream: bool | None = None


@dataclass(frozen=True)
class Ask:
    """A request that keeps TGI's rules. `seed` is null where nothing is drawn; choice i is drawn with `seed + i`."""

    inputs: str
    parameters: GenerateParameters
    model: str
    is_streamed: bool
    seed: int | None

    @classmethod
    def of(cls, body: GenerateBody, model: str, *, is_streamed: bool) -> "Ask":
        """Check what one parameter forbids another, and choose a seed if none is given."""
        given = body.given
        is_contest = (given.best_of or 1) > 1
        if is_streamed and is_contest:
            raise _refusal("best_of", "more than 1 cannot be streamed")
        if is_streamed and given.decoder_input_details:
            raise _refusal("decoder_input_details", "cannot be streamed")
        if is_contest and not given.samples:
            raise _refusal("best_of", "more than 1 needs sampling: set do_sample")
        if is_contest and given.seed is not None:
            raise _refusal("seed", "must not be set when best_of is more than 1")
        seed = given.seed if given.seed is not None else secrets.randbits(62)
        return cls(body.inputs, given, model, is_streamed, seed if given.samples else None)

    @property
    def shows_tokens(self) -> bool:
        """Whether the answer is made of tokens, or needs their log-probabilities to be chosen."""
        return self.is_streamed or self.parameters.has_details or self.choices > 1

    @property
    def choices(self) -> int:
        """How many texts are generated, of which the best one counts."""
        return self.parameters.best_of or 1

    def generate_request(self, account_id: AccountId) -> GenerateRequest:
        """What to ask of the generation service."""
        given = self.parameters
        greedy = {"temperature": 0.0} if not given.samples else {}
        warped = {"temperature": given.temperature, "top_k": given.top_k, "top_p": given.top_p}
        drawn = {name: value for name, value in warped.items() if value is not None} if given.samples else {}
        return GenerateRequest(
            account_id=account_id,
            model=self.model,
            prompt=self.inputs,
            n=self.choices,
            max_tokens=given.max_new_tokens,
            stop=[stop for stop in given.stop or [] if stop],
            logprobs=(given.top_n_tokens or 0) if self.shows_tokens else None,
            echo=bool(given.decoder_input_details),
            sampling=Sampling.model_validate(
                greedy | drawn | {"repetition_penalty": given.repetition_penalty or 1.0, "seed": self.seed}
            ),
        )


def _refusal(name: str, why: str) -> HunminError:
    param = f"parameters.{name}"
    return HunminError(ErrorCode.INVALID_PARAMETER, f"Parameter {param}: {why}.", param=param)
