"""A TGI server as a LanguageModel: `/generate_stream`, text prompts only.

Another gateway of ours speaks that dialect too: `url` may be its `/models/NAME`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from hunmin_contracts.errors import HunminError

from hunmin_generation.backends.remote import Delta, RemoteModel
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.engine.sampler import Scored

_STATUS = {"validation": 422, "overloaded": 429}
_SEEDS = 2**63  # TGI's are unsigned


class TgiModel(RemoteModel):
    """One completion of a text. TGI's log-probabilities are those after temperature and cuts, ours those before."""

    kind = "TGI"

    async def check_ready(self) -> None:
        """Raise `unavailable` unless the server is healthy."""
        try:
            await self._server.get("/health")
        except HunminError as error:
            raise self._server.unavailable(f"is not ready ({error.message})") from error

    def _check(self, request: EngineRequest, text: str | None) -> None:
        sampling = request.sampling
        if request.soft_prompt is not None:
            raise self._refusal("soft prompts", "model")
        if text is None:
            raise self._refusal("a prompt of token ids or messages", "prompt")
        if request.n != 1:
            raise self._refusal("several completions", "n")
        if request.scored_from is not None:
            raise self._refusal("log-probabilities of the prompt", "echo")
        if request.ignore_end:
            raise self._refusal("going on after an end token", "ignore_end")
        if sampling.frequency_penalty != 0:
            raise self._refusal("a frequency penalty by count", "sampling.frequency_penalty")
        if sampling.presence_penalty != 0:
            raise self._refusal("a presence penalty", "sampling.presence_penalty")
        is_plain = sampling.temperature in (0, 1) and sampling.top_k == 0 and sampling.top_p == 1
        if request.logprobs is not None and not (is_plain and sampling.repetition_penalty == 1):
            raise self._refusal(
                "log-probabilities of the distribution before temperature, cuts and penalties", "logprobs"
            )

    async def _deltas(self, request: EngineRequest, text: str | None, limit: int) -> AsyncGenerator[Delta, None]:
        body = {"inputs": text, "parameters": _parameters(request, limit)}
        async with aclosing(self._server.events("/generate_stream", body)) as events:
            async for event in events:
                if "error" in event:
                    raise self._server.error(_STATUS.get(event.get("error_type", ""), 500), str(event["error"]))
                try:
                    delta = _delta(request, event)
                except (KeyError, TypeError, AttributeError) as fault:
                    raise self._server.unavailable(f"sent an event of an unknown shape ({fault!r})") from fault
                yield delta


def _parameters(request: EngineRequest, limit: int) -> dict[str, Any]:
    sampling = request.sampling
    given: dict[str, Any] = {"max_new_tokens": limit, "details": True, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        given["temperature"] = sampling.temperature
        if sampling.top_k > 0:
            given["top_k"] = sampling.top_k
        if sampling.top_p < 1:
            given["top_p"] = sampling.top_p
        if sampling.seed is not None:
            given["seed"] = sampling.seed % _SEEDS
    if sampling.repetition_penalty != 1:
        given["repetition_penalty"] = sampling.repetition_penalty
    if request.logprobs:
        given["top_n_tokens"] = request.logprobs
    return given


def _delta(request: EngineRequest, event: dict[str, Any]) -> Delta:
    token, details = event["token"], event.get("details")
    top = [(rival["id"], rival["logprob"]) for rival in event.get("top_tokens") or []]
    best = sorted(top, key=lambda pair: -pair[1])[: request.logprobs or 0]
    return Delta(
        index=0,
        tokens=[token["id"]],
        scored=[Scored(token["id"], token["logprob"], best)] if request.logprobs is not None else [],
        prompt_tokens=details.get("input_length") if details else None,
        is_last=event.get("generated_text") is not None,
    )
