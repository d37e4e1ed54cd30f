"""Stop, kill, start again: the studio keeps what it was given."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2  # what the client is built on
import openai
import pytest
from hunmin import Client

PROMPT = "이 영화는"


@pytest.fixture(autouse=True)
def _here(process):
    if process is None:
        pytest.skip("a studio that runs elsewhere is not stopped by a test")


def test_a_stop_finishes_running_streams_and_a_second_start_finds_all(process, studio):
    complete(studio)
    before = ledger(studio)
    with streams(studio, count=2, max_tokens=40) as running:
        codes = process.stop()
    assert set(codes) == {0}, process.tail()
    assert all(stream.is_finished for stream in running)
    process.start()
    after = ledger(studio)
    assert after[2:] == before
    assert [row["status"] for row in after[:2]] == ["succeeded", "succeeded"]


def test_kill_9_during_streams_leaves_a_whole_database(process, studio):
    done = complete(studio)
    before = ledger(studio)
    with streams(studio, count=4, max_tokens=240) as running:
        process.kill()
    assert not any(stream.is_finished for stream in running)
    process.start()
    after = ledger(studio)
    assert after[-len(before) :] == before
    assert all(row["status"] != "succeeded" for row in after[: -len(before)])
    assert sum(row["request_id"] == done for row in after) == 1
    assert complete(studio) == ledger(studio)[0]["request_id"]


def ledger(studio) -> list[dict]:
    """Every row of usage, newest first: other tests may have left more than a page of them."""
    with Client(base_url=studio.url, api_key=studio.key) as client:
        return [row.model_dump() for row in client.usage(page_size=200)]


class RunningStream(threading.Thread):
    """A client that reads a stream until its end, or until it breaks."""

    def __init__(self, studio, max_tokens: int) -> None:
        super().__init__(daemon=True)
        self._studio = studio
        self._max_tokens = max_tokens
        self.has_begun = threading.Event()
        self.is_finished = False

    def run(self) -> None:
        """Read."""
        asked = {"model": self._studio.model, "prompt": PROMPT, "max_tokens": self._max_tokens, "n": 8}
        asked |= {"temperature": 2}  # hardly any completion ends before its last token
        with self._studio.client() as client:
            try:
                for _ in client.completions.create(**asked, stream=True):
                    self.has_begun.set()
                self.is_finished = True
            except (openai.APIError, httpx2.TransportError):
                pass  # the studio was killed


@contextmanager
def streams(studio, *, count: int, max_tokens: int) -> Iterator[list[RunningStream]]:
    """Run the block while `count` streams have begun; afterwards they have ended, one way or the other."""
    running = [RunningStream(studio, max_tokens) for _ in range(count)]
    for stream in running:
        stream.start()
    for stream in running:
        assert stream.has_begun.wait(30)
    yield running
    for stream in running:
        stream.join(60)
        assert not stream.is_alive()


def complete(studio) -> str:
    """Complete a text; return the id of the request."""
    with studio.client() as client:
        completion = client.completions.create(model=studio.model, prompt=PROMPT, max_tokens=3)
    return completion.id.replace("cmpl-", "req_")
