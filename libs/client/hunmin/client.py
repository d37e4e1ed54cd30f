"""The clients: `Client` blocks, `AsyncClient` is awaited; otherwise they are the same, since both are a `Studio`."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from hunmin_contracts.generation import Message, ModelList, ScoreBody, ScoreResponse
from hunmin_contracts.gradients import Candidates, GradientBatch, GradientExample, GradientResponse
from hunmin_contracts.peft import WEIGHTS_FILE
from hunmin_contracts.usage import UsagePage, UsageRow

from hunmin.call import Call, Pages, as_json, model
from hunmin.datasets import Datasets
from hunmin.errors import MissingKeyError
from hunmin.products import Products
from hunmin.resource import Resource, SenderT, iterates, sends
from hunmin.sending import AsyncSender, Retries, Sender
from hunmin.soft_prompts import SoftPrompts
from hunmin.tokenizers import Tokenizers
from hunmin.tuning_jobs import TuningJobs

DEFAULT_URL = "http://127.0.0.1:8080"
_CONNECT_S = 5.0


class Studio(Resource[SenderT]):
    """Everything under /studio/v1."""

    def __init__(self, sender: SenderT) -> None:
        super().__init__(sender)
        self.tokenizers = Tokenizers(sender)
        self.soft_prompts = SoftPrompts(sender)
        self.datasets = Datasets(sender)
        self.tuning_jobs = TuningJobs(sender)
        self.products = Products(sender)

    @property
    def base_url(self) -> str:
        """Where the studio is."""
        return str(self._sender.http.base_url).rstrip("/")

    @sends
    def models(self) -> Call[ModelList]:
        """List the base models with their shape and digests."""
        return Call("GET", "models", model(ModelList))

    @sends
    def score(
        self,
        *,
        model: str,
        prompt: str | Sequence[int] | Sequence[Message] | Mapping[str, str],
        continuations: Sequence[str] | Sequence[Sequence[int]],
    ) -> Call[ScoreResponse]:
        """Return the log-likelihood of each continuation after the prompt, in order.

        `model` is a base model or a soft prompt. `prompt` is text, token ids, chat messages, or values for the fields
        of the soft prompt's template.
        """
        body = ScoreBody.model_validate({"model": model, "prompt": prompt, "continuations": continuations})
        return Call("POST", "score", _score, body=body)

    @sends
    def gradients(
        self,
        *,
        model: str,
        examples: Sequence[GradientExample],
        soft_prompt: bytes | None = None,
        slots: Sequence[int] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        gradient_format: Literal["safetensors", "json", "none"] = "safetensors",
        saliency: bool = False,
        candidates: Candidates | None = None,
    ) -> Call[GradientResponse]:
        """Return the loss of a batch and its gradient at the rows of `soft_prompt` (see `GradientBatch`).

        `soft_prompt` is a safetensors file with `prompt_embeddings` [n_virtual, d_model].
        """
        batch = GradientBatch(
            model=model,
            slots=None if slots is None else [*slots],
            examples=[*examples],
            reduction=reduction,
            gradient_format=gradient_format,
            saliency=saliency,
            candidates=candidates,
        )
        if soft_prompt is None:
            return Call("POST", "gradients", _gradients, body=batch)
        files = {"soft_prompt": (WEIGHTS_FILE, soft_prompt)}
        return Call("POST", "gradients", _gradients, form={"request": as_json(batch)}, files=files)

    @iterates
    def usage(
        self, *, since: datetime | None = None, until: datetime | None = None, page_size: int | None = None
    ) -> Pages[UsageRow]:
        """Iterate over what the account's requests used, newest first, started in `[since, until)`; both have zones."""
        moments = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        query = moments | {"limit": page_size}
        return Pages(lambda cursor: Call("GET", "usage", _usage, query=query | {"cursor": cursor}))


_score = model(ScoreResponse)
_gradients = model(GradientResponse)
_usage = model(UsagePage)


class Client(Studio[Sender]):
    """The Studio API, blocking. Use it as a context, or close it; it may be shared between threads."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 120.0,
        retries: Retries = Retries(),  # noqa: B008  frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Take key and address from HUNMIN_API_KEY and HUNMIN_BASE_URL where they are not given."""
        http = httpx.Client(**_settings(api_key, base_url, timeout_s), transport=transport)
        super().__init__(Sender(http, retries))

    def close(self) -> None:
        """Close the connections."""
        self._sender.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(Studio[AsyncSender]):
    """The Studio API, awaited. Use it as an asynchronous context, or close it."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 120.0,
        retries: Retries = Retries(),  # noqa: B008  frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Take key and address from HUNMIN_API_KEY and HUNMIN_BASE_URL where they are not given."""
        http = httpx.AsyncClient(**_settings(api_key, base_url, timeout_s), transport=transport)
        super().__init__(AsyncSender(http, retries))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sender.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _settings(api_key: str | None, base_url: str | None, timeout_s: float) -> dict[str, Any]:
    key = api_key or os.environ.get("HUNMIN_API_KEY")
    if not key:
        raise MissingKeyError("There is no API key. Pass api_key=…, or set HUNMIN_API_KEY; `make key` makes one.")
    return {
        "base_url": base_url or os.environ.get("HUNMIN_BASE_URL") or DEFAULT_URL,
        "headers": {"Authorization": f"Bearer {key}", "User-Agent": f"hunmin/{version('hunmin')}"},
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
    }
