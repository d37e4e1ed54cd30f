"""Load on a studio at a URL: clients that ask without pause, or so many requests a second, whatever becomes of them."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from auditor import Answer

CLIENTS = 6
PATIENCE_S = 120
RATE_CLIENTS = 64  # requests that may be on their way at the same time
REFUSED = "refused, with Retry-After"
PROMPTS = ("이 영화는", "정말 재미있는", "배우들의 연기가")


class CutError(Exception):
    """A stream ended before it was over."""


@dataclass(frozen=True)
class Request:
    """Completions to ask for. Each prompt is a call of its own to generation, and so an event."""

    id: str
    model: str
    how: str  # "whole", "stream" or "left"
    leave_after: int = 0  # lines of a stream that is left
    prompts: int = 1
    choices: int = 1

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        whole = {"model": self.model, "prompt": PROMPTS[: self.prompts], "n": self.choices, "max_tokens": 24}
        return whole if self.how == "whole" else whole | {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Failure:
    """A request that got no whole answer, though it was waited for."""

    request_id: str
    how: str  # that of the request
    reason: str

    @property
    def is_lost(self) -> bool:
        """Whether it is more than "ask again shortly"."""
        return self.reason != REFUSED


def reason_of(error: Exception) -> str:
    """Return what became of a request that failed."""
    if isinstance(error, httpx.HTTPStatusError):
        answer = error.response
        if answer.status_code == 503 and "retry-after" in answer.headers:
            return REFUSED
        return f"HTTP {answer.status_code}"
    return f"{type(error).__name__}: {error}"


def ask(http: httpx.Client, request: Request) -> int | None:
    """Return the tokens of a whole answer, None of one that was left; an exception if it failed."""
    headers = {"x-request-id": request.id}
    if request.how == "whole":
        answer = http.post("/v1/completions", json=request.body, headers=headers)
        answer.raise_for_status()
        return int(answer.json()["usage"]["total_tokens"])
    usage, seen = None, 0
    with http.stream("POST", "/v1/completions", json=request.body, headers=headers) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            seen += line.startswith("data: ")
            if request.how == "left" and seen >= request.leave_after:
                return None
            if line == "data: [DONE]":
                return usage
            if line.startswith("data: ") and (told := json.loads(line[6:]).get("usage")):
                usage = int(told["total_tokens"])
    raise CutError("the stream ended before it was over")


class Load:
    """Clients that ask without pause: for whole answers, for streams, and for streams that they leave.

    Every other request has several prompts, and every other several choices.
    """

    def __init__(self, url: str, key: str, seed: int, model: str = "starter") -> None:
        self._url = url
        self._key = key
        self._seed = seed
        self._model = model
        self._is_over = threading.Event()
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Ask as long as the block runs."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join(120)
                assert not thread.is_alive(), "a request never ended"

    def _ask(self, client: int) -> None:
        rng = random.Random(f"{self._seed} {client}")  # noqa: S311  # a schedule, no secret
        headers = {"Authorization": f"Bearer {self._key}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=60) as http:
            for number in range(100_000):
                if self._is_over.is_set():
                    return
                request = self._draw(rng, f"{self._seed}-{client}-{number}")
                try:
                    tokens = ask(http, request)
                except (httpx.HTTPError, CutError) as error:
                    tokens = None
                    self.failures.append(Failure(request.id, request.how, reason_of(error)))
                    time.sleep(0.1)
                self.answers.append(Answer(request.id, tokens))

    def _draw(self, rng: random.Random, request_id: str) -> Request:
        prompts, choices = rng.choice([1, 1, 2, 3]), rng.choice([1, 2])
        leave_after = rng.randint(1, 12) * prompts * choices
        return Request(request_id, self._model, rng.choice(["whole", "stream", "left"]), leave_after, prompts, choices)


def went_on(load: Load, count: int = CLIENTS + 1) -> None:
    """Wait until so many more answers have come: with one more than there are clients, one was asked for since then."""
    begin, deadline = sum(one.tokens is not None for one in load.answers), time.monotonic() + 90
    while sum(one.tokens is not None for one in load.answers) < begin + count:
        assert time.monotonic() < deadline, "no answers come any more"
        time.sleep(0.2)


@dataclass
class SteadyLoad:
    """So many requests a second, every other one a stream; none waits for another, and none is sent twice."""

    url: str
    key: str
    model: str
    per_second: float
    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    _count: int = 0

    @contextmanager
    def running(self) -> Iterator["SteadyLoad"]:
        """Ask as long as the block runs, and wait for all answers then."""
        is_over = threading.Event()
        headers = {"Authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=RATE_CLIENTS)
        with (
            httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, limits=limits) as http,
            ThreadPoolExecutor(RATE_CLIENTS) as pool,
        ):

            def clock() -> None:
                began = time.monotonic()
                while not is_over.is_set():
                    self._count += 1
                    pool.submit(self._ask, http, self._count)
                    time.sleep(max(0, began + self._count / self.per_second - time.monotonic()))

            thread = threading.Thread(target=clock)
            thread.start()
            try:
                yield self
            finally:
                is_over.set()
                thread.join()

    @property
    def lost(self) -> list[Failure]:
        """Return those that were not answered, and not asked to come again either."""
        return [failure for failure in self.failures if failure.is_lost]

    def summary(self) -> str:
        """Say what became of all requests."""
        reasons = Counter(failure.reason for failure in self.failures)
        return f"{self._count} sent, {self.answered} answered, {dict(reasons) or 'none failed'}"

    def _ask(self, http: httpx.Client, number: int) -> None:
        request = Request(f"steady-{id(self)}-{number}", self.model, ("whole", "stream")[number % 2])
        try:
            ask(http, request)
        except Exception as error:  # counted, whatever it is
            self.failures.append(Failure(request.id, request.how, reason_of(error)))
        else:
            self.answered += 1
