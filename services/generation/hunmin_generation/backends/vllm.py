"""A vLLM server as a LanguageModel: its OpenAI-compatible completions, in token ids.

Wants `--enable-prompt-embeds` for soft prompts, `--max-logprobs 20`, and `--generation-config vllm`, so that no
defaults of its own come between. Only this service may reach it: whoever may send `prompt_embeds` may make it unpickle.
"""

import base64
import io
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch
from hunmin_contracts.errors import HunminError
from torch import Tensor

from hunmin_generation.backends.remote import Delta, RemoteModel
from hunmin_generation.backends.server import RemoteServer
from hunmin_generation.engine.blocks import root_key
from hunmin_generation.engine.request import EngineRequest
from hunmin_generation.engine.sampler import Scored
from hunmin_generation.engine.text import TokenText

_ID = "token_id:"  # how return_tokens_as_token_ids spells a token


class VllmModel(RemoteModel):
    """Everything but embeddings; with a soft prompt no log-probabilities of the prompt and no repetition penalty."""

    kind = "vLLM"

    def __init__(
        self,
        name: str,
        folder: Path,
        vocabulary: TokenText,
        server: RemoteServer,
        *,
        served_as: str,
        on_first_token: Callable[[float], None],
    ) -> None:
        """Read the facts in `folder`; the server's `--served-model-name` is `served_as`."""
        super().__init__(name, folder, vocabulary, server, on_first_token=on_first_token)
        self._model = served_as

    async def check_ready(self) -> None:
        """Raise `unavailable` unless the server is healthy and has the model."""
        try:
            await self._server.get("/health")
            served = [model["id"] for model in (await self._server.get("/v1/models")).json()["data"]]
        except (HunminError, ValueError, KeyError, TypeError) as error:
            reason = error.message if isinstance(error, HunminError) else str(error)
            raise self._server.unavailable(f"is not ready ({reason})") from error
        if self._model not in served:
            raise self._server.unavailable(f"does not serve {self._model}, but {', '.join(served)}")

    def _check(self, request: EngineRequest, text: str | None) -> None:
        if request.soft_prompt is None:
            return
        if request.scored_from is not None:
            raise self._refusal("log-probabilities of a prompt with a soft prompt", "echo")
        if request.sampling.repetition_penalty != 1:
            raise self._refusal("a repetition penalty with a soft prompt", "sampling.repetition_penalty")

    async def _deltas(self, request: EngineRequest, text: str | None, limit: int) -> AsyncGenerator[Delta, None]:
        async with aclosing(self._server.events("/v1/completions", self._body(request, limit))) as events:
            async for event in events:
                if (error := event.get("error")) is not None:
                    given = error if isinstance(error, dict) else {"message": error}
                    raise self._server.error(_status(given), str(given.get("message")))
                try:
                    found = [self._delta(request, choice, event) for choice in event["choices"]]
                except (KeyError, TypeError, ValueError, AttributeError) as fault:
                    raise self._server.unavailable(f"sent an event of an unknown shape ({fault!r})") from fault
                for delta in found:
                    yield delta

    def _body(self, request: EngineRequest, limit: int) -> dict[str, Any]:
        sampling = request.sampling
        is_scored = request.scored_from is not None
        body: dict[str, Any] = {
            "model": self._model,
            "n": request.n,
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": sampling.repetition_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "seed": sampling.seed,
            "logprobs": (request.logprobs or 0) if is_scored else request.logprobs,
            "echo": is_scored,
            "ignore_eos": request.ignore_end,
            "stop_token_ids": [] if request.ignore_end else sorted(self._end_ids),
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        if request.soft_prompt is None:
            body["prompt"] = request.prompt
            if request.salt:
                body["cache_salt"] = request.salt
        else:
            body["prompt_embeds"] = _saved(self._embedded(request.prompt, request.soft_prompt.rows))
            # All embeddings have the same id to vLLM. What they are is part of its prefix cache's keys, but was not in
            # all its versions: by the salt two soft prompts never share a block.
            body["cache_salt"] = root_key(request.salt, request.soft_prompt.key).hex()
        return body

    def _embedded(self, prompt: list[int], rows: Tensor) -> Tensor:
        """Return what the prompt is to the model, [T, d_model]: rows of the soft prompt, and embeddings of tokens."""
        table = self._outline.embeddings
        ids = torch.tensor(prompt)
        embedded = table[ids.clamp(min=0)]
        is_row = ids < 0
        embedded[is_row] = rows[-1 - ids[is_row]].to(table.dtype)
        return embedded

    def _delta(self, request: EngineRequest, choice: dict[str, Any], event: dict[str, Any]) -> Delta:
        tokens: list[int] = choice.get("token_ids") or []
        scores = _scores(choice.get("logprobs"), request.logprobs or 0)
        # With `echo` the log-probabilities of the prompt stand before those of the first tokens.
        own = len(scores) - len(tokens) if len(scores) > len(tokens) else 0
        if request.max_tokens == 0:
            own = len(scores)
        return Delta(
            index=choice["index"],
            tokens=tokens,
            scored=[score for score in scores[own:] if score is not None] if request.logprobs is not None else [],
            prompt_scores=scores[request.scored_from or 1 : own],
            prompt_tokens=event["usage"]["prompt_tokens"] if event.get("usage") else None,
            is_last=choice.get("finish_reason") is not None,
        )


def _scores(logprobs: dict[str, Any] | None, count: int) -> list[Scored | None]:
    """Return the token at each place with its `count` best rivals; None where there is no probability."""
    if logprobs is None:
        return []
    found: list[Scored | None] = []
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        if logprob is None:
            found.append(None)
            continue
        best = sorted(((_id(name), value) for name, value in (top or {}).items()), key=lambda pair: -pair[1])
        found.append(Scored(_id(token), logprob, best[:count]))
    return found


def _id(spelt: str) -> int:
    return int(spelt.removeprefix(_ID))


def _status(error: dict[str, Any]) -> int:
    code = error.get("code")
    return code if isinstance(code, int) else 500


def _saved(tensor: Tensor) -> str:
    """Return a tensor as vLLM wants `prompt_embeds`: base64 of what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
