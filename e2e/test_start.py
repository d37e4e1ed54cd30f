"""Start, stop, kill: the studio keeps what it was given. These tests have a studio of their own in each mode."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai

READY_WITHIN_S = 15
PROMPT = "이 영화는"


def test_a_stop_finishes_running_streams_and_a_second_start_is_quick(own_studio):
    done = complete(own_studio)
    with streams(own_studio, count=2, max_tokens=40) as running:
        codes = own_studio.stop()
    assert set(codes) == {0}
    assert all(stream.is_finished for stream in running)
    started_s = own_studio.start()
    print(f"second start, {'one process' if own_studio.one_process else 'process per service'}: {started_s:.1f} s")
    assert started_s < READY_WITHIN_S
    rows = {row["request_id"]: row for row in usage(own_studio)}
    assert rows[done]["status"] == "succeeded"
    assert len(rows) == 3
    assert {row["status"] for row in rows.values()} == {"succeeded"}


def test_kill_9_during_streams_leaves_a_whole_database(own_studio):
    done = complete(own_studio)
    before = usage(own_studio)
    with streams(own_studio, count=4, max_tokens=400) as running:
        own_studio.kill()
    assert not any(stream.is_finished for stream in running)
    own_studio.start()
    after = usage(own_studio)
    assert after[-len(before) :] == before
    assert all(row["status"] != "succeeded" for row in after[: -len(before)])
    assert sum(row["request_id"] == done for row in after) == 1
    assert complete(own_studio) in {row["request_id"] for row in usage(own_studio)}


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
        with client(self._studio) as openai_client:
            try:
                asked = {"model": self._studio.model, "prompt": PROMPT, "max_tokens": self._max_tokens, "n": 8}
                for _ in openai_client.completions.create(**asked, stream=True):
                    self.has_begun.set()
                self.is_finished = True
            except (openai.APIError, httpx.TransportError):
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


def client(studio) -> openai.OpenAI:
    """Return the official client."""
    return openai.OpenAI(base_url=f"{studio.url}/v1", api_key=studio.key, max_retries=0, timeout=60)


def complete(studio) -> str:
    """Complete a text; return the id of the request."""
    with client(studio) as openai_client:
        completion = openai_client.completions.create(model=studio.model, prompt=PROMPT, max_tokens=3)
    return completion.id.replace("cmpl-", "req_")


def usage(studio) -> list[dict]:
    """Return all rows of usage, newest first."""
    response = httpx.get(
        f"{studio.url}/studio/v1/usage", params={"limit": 200}, headers={"Authorization": f"Bearer {studio.key}"}
    )
    return response.raise_for_status().json()["data"]
