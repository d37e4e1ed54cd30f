"""What the clients do when an answer does not come, or not the one hoped for; both against the same scripted server."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hunmin import (
    ApiError,
    AsyncClient,
    Client,
    MissingKeyError,
    OverloadedError,
    Retries,
    ServerError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from hunmin.call import Call, nothing

SOON = Retries(limit=3, first_s=0.001, longest_s=0.01)
FINE = httpx.Response(200, json={"text": "가"})
BUSY = httpx.Response(429, json={"code": "overloaded", "detail": "The queue is full.", "details": {"limit": 3}})
GONE = httpx.Response(503, text="<html>no upstream</html>")
REFUSED = httpx.ConnectError("refused")
BROKEN = httpx.ReadError("")

Outcome = httpx.Response | httpx.TransportError
Ask = Callable[..., Awaitable[Any]]


class Script:
    """A server that answers each request with the next of these outcomes, and the last one for ever."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = outcomes
        self.requests: list[httpx.Request] = []

    def transport(self) -> httpx.MockTransport:
        """Return it as what a client sends through."""
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = self.outcomes[min(len(self.requests), len(self.outcomes)) - 1]
        if isinstance(outcome, httpx.TransportError):
            raise outcome
        # A copy, since a client makes an answer's body its own.
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)


@pytest.fixture(params=["blocking", "awaited"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Make a call, `lambda client: client.…`, by one of the clients."""

    async def blocking(script: Script, call: Callable[[Client], Any]) -> Any:
        with Client(api_key="k", transport=script.transport(), retries=SOON) as client:
            return call(client)

    async def awaited(script: Script, call: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async with AsyncClient(api_key="k", transport=script.transport(), retries=SOON) as client:
            return await call(client)

    return blocking if request.param == "blocking" else awaited


def decode(client: Any) -> Any:
    return client.tokenizers.decode("starter", [1])


def upload(client: Any) -> Any:
    return client.soft_prompts.upload(b"file", name="reviews", model="starter", slots=[2, 3])


class TestRetries:
    @pytest.mark.parametrize("hindrance", [BUSY, GONE, REFUSED, BROKEN])
    async def test_a_call_that_repeats_without_harm_is_sent_again(self, ask, hindrance):
        script = Script(hindrance, hindrance, FINE)
        assert (await ask(script, decode)).text == "가"
        assert [request.content for request in script.requests] == [b'{"ids":[1]}'] * 3

    @pytest.mark.parametrize(
        ("hindrance", "error"), [(BUSY, OverloadedError), (GONE, UnavailableError), (BROKEN, UnreachableError)]
    )
    async def test_but_not_for_ever(self, ask, hindrance, error):
        script = Script(hindrance)
        with pytest.raises(error):
            await ask(script, decode)
        assert len(script.requests) == 1 + SOON.limit

    @pytest.mark.parametrize(("hindrance", "sent"), [(BUSY, 4), (REFUSED, 4), (GONE, 1), (BROKEN, 1)])
    async def test_an_upload_is_sent_again_only_if_nothing_can_have_come_of_it(self, ask, hindrance, sent):
        script = Script(hindrance)
        with pytest.raises((ApiError, UnreachableError)):
            await ask(script, upload)
        assert len(script.requests) == sent

    @pytest.mark.parametrize(("reference", "sent"), [("reviews@2", 4), ("reviews", 1)])
    async def test_deleting_again_must_not_delete_the_version_before(self, ask, reference, sent):
        script = Script(BROKEN)
        with pytest.raises(UnreachableError):
            await ask(script, lambda client: client.soft_prompts.delete(reference))
        assert len(script.requests) == sent

    @pytest.mark.parametrize("status", [400, 404, 500, 502])
    async def test_another_error_stands(self, ask, status):
        script = Script(httpx.Response(status), FINE)
        with pytest.raises(ApiError) as refusal:
            await ask(script, decode)
        assert (refusal.value.status, len(script.requests)) == (status, 1)
        assert isinstance(refusal.value, ServerError) is (status >= 500)


class TestPauses:
    call = Call("GET", "x", nothing)

    def pauses(self, outcome: Outcome, retries: Retries) -> list[float | None]:
        return [retries.pause_s(attempt, self.call, outcome) for attempt in range(retries.limit + 1)]

    def test_double_with_jitter_up_to_the_longest(self):
        *pauses, end = self.pauses(GONE, Retries(limit=5, first_s=1, longest_s=6))
        assert end is None
        for pause, backoff in zip(pauses, (1, 2, 4, 6, 6), strict=True):
            assert backoff / 2 <= pause <= backoff
        assert len({self.pauses(GONE, Retries())[0] for _ in range(20)}) > 1

    def test_are_never_shorter_than_the_server_asks(self):
        in_9_s = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
        for header, least in (("7", 7), (in_9_s, 7.5)):
            pause = self.pauses(httpx.Response(429, headers={"retry-after": header}), Retries())[0]
            assert least <= pause <= least + 2

    def test_an_hour_is_not_waited_for_but_told(self):
        answer = httpx.Response(429, headers={"retry-after": "3600"})
        assert self.pauses(answer, Retries())[0] is None
        with pytest.raises(OverloadedError) as refusal:
            self.call.result(answer)
        assert refusal.value.retry_after_s == 3600

    def test_a_header_that_makes_no_sense_is_no_header(self):
        assert self.pauses(httpx.Response(503, headers={"retry-after": "soon"}), Retries())[0] <= 0.5


class TestErrors:
    async def test_of_a_problem_document_tell_what_it_tells(self, ask):
        with pytest.raises(OverloadedError, match=r"^429 overloaded: The queue is full\.$") as refusal:
            await ask(Script(BUSY), decode)
        assert (refusal.value.code, refusal.value.details) == ("overloaded", {"limit": 3})

    async def test_of_a_proxy_tell_the_status_and_the_request_id(self, ask):
        answer = httpx.Response(502, text="<html>", headers={"x-request-id": "req_1"})
        with pytest.raises(ServerError, match=r"^502 error: Bad Gateway \(request req_1\)$"):
            await ask(Script(answer), decode)

    async def test_of_the_network_say_what_was_asked(self, ask):
        with pytest.raises(UnreachableError, match="POST tokenizers/starter/decode: ReadError"):
            await ask(Script(BROKEN), decode)


class TestAnswers:
    async def test_of_a_newer_server_may_hold_more(self, ask):
        more = {"name": "a", "method": "char", "vocab_size": 1, "digest": "0", "new": 1}
        script = Script(httpx.Response(200, json={"tokenizers": [more], "new": 2}))
        listed = await ask(script, lambda client: client.tokenizers.list())
        assert listed.tokenizers[0].name == "a"

    @pytest.mark.parametrize("answer", [httpx.Response(200, json={"ids": []}), httpx.Response(200, text="<html>")])
    async def test_that_are_another_thing_are_refused(self, ask, answer):
        with pytest.raises(UnexpectedAnswerError, match="DecodeResponse"):
            await ask(Script(answer), decode)


class TestSettings:
    def test_come_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("HUNMIN_API_KEY", "hm_x")
        monkeypatch.setenv("HUNMIN_BASE_URL", "https://studio.example")
        script = Script(FINE)
        with Client(transport=script.transport()) as client:
            decode(client)
        assert script.requests[0].headers["authorization"] == "Bearer hm_x"
        assert str(script.requests[0].url) == "https://studio.example/studio/v1/tokenizers/starter/decode"

    def test_without_a_key_say_how_to_get_one(self, monkeypatch):
        monkeypatch.delenv("HUNMIN_API_KEY", raising=False)
        for kind in (Client, AsyncClient):
            with pytest.raises(MissingKeyError, match="HUNMIN_API_KEY"):
                kind()


async def test_an_upload_is_a_form_with_the_file(ask):
    script = Script(httpx.Response(400))
    with pytest.raises(ApiError):
        await ask(script, upload)
    (request,) = script.requests
    assert request.headers["content-type"].startswith("multipart/form-data")
    for part in (b'name="name"\r\n\r\nreviews', b'name="model"\r\n\r\nstarter', b'name="slots"\r\n\r\n[2,3]', b"file"):
        assert part in request.content
    assert b"template" not in request.content
