"""A studio in a thread of this process, on a real port, with every service and a model of its own, and a small server
that answers as a test tells it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from hunmin import AsyncClient, Client
from hunmin_gateway.keys.text import new_key
from hunmin_gateway.service import SERVICE as GATEWAY
from hunmin_generation.service import SERVICE as GENERATION
from hunmin_kit.testing import running
from hunmin_tokenizer.service import SERVICE as TOKENIZER

STARTER = Path(__file__).resolve().parents[3] / "training" / "models" / "starter"


@dataclass(frozen=True)
class Studio:
    """Where it is, and a key."""

    url: str
    key: str

    def client(self) -> Client:
        """Return a blocking client; a context."""
        return Client(base_url=self.url, api_key=self.key)

    def async_client(self) -> AsyncClient:
        """Return an asynchronous client; a context."""
        return AsyncClient(base_url=self.url, api_key=self.key)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run the tests of a module, whose studio is started once."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(f"client-{item.path.stem}"))


@pytest.fixture(scope="module")  # not longer: beside the tests of others it would write into what they read
def studio() -> Iterator[Studio]:
    """The studio that the tests of a module share."""
    started: Future[Studio] = Future()
    stop: Future[None] = Future()
    thread = threading.Thread(target=_run, args=(started, stop), daemon=True)
    thread.start()
    yield started.result(timeout=90)
    stop.set_result(None)
    thread.join(timeout=30)
    assert not thread.is_alive()


def _run(started: "Future[Studio]", stop: "Future[None]") -> None:
    try:
        asyncio.run(_serve(started, stop))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _serve(started: "Future[Studio]", stop: "Future[None]") -> None:
    key = new_key()
    models = json.dumps({"starter": str(STARTER)})
    env = {
        "HUNMIN_GATEWAY_BOOTSTRAP_KEY": key,
        "HUNMIN_TOKENIZER_MODELS": models,
        "HUNMIN_GENERATION_MODELS": models,
        "HUNMIN_GENERATION_THREADS": "1",
    }
    async with running(GATEWAY, GENERATION, TOKENIZER, env=env, network=True) as up:
        started.set_result(Studio(up.url("gateway"), key))
        await asyncio.wrap_future(stop)
