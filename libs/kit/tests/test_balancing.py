"""Requests to the replicas of one service."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
from fastapi import FastAPI
from hunmin_kit.run.server import bind, listening
from hunmin_kit.web import balancing
from hunmin_kit.web.balancing import BalancedTransport, choose, named
from hunmin_kit.web.network import NetworkTransport
from hunmin_kit.web.transport import Answer, BrokenOff, Crowded, Request, Transport, Unreachable
from multidict import CIMultiDict
from yarl import URL

REPLICAS = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
AFFINITIES = [f"acct_{number}/model/" for number in range(400)]


class Fake(Transport):
    """Answers for all replicas but those that are `down`."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.is_crowded = False
        self.drops = False  # the connection, before an answer
        self.breaks = False

    async def send(self, request: Request) -> Answer:
        assert request.headers["host"] == "generation:8002"
        self.asked.append(request.url.host)
        if request.url.host in self.down:
            raise Unreachable("refused")
        if self.is_crowded:
            raise Crowded
        if self.drops:
            raise BrokenOff("the replica died")
        return Pieces(self.breaks)

    async def aclose(self) -> None:
        pass


class Pieces(Answer):
    def __init__(self, breaks: bool) -> None:
        super().__init__(200)
        self._breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one"
        if self._breaks:
            raise BrokenOff("the replica died")

    async def aclose(self) -> None:
        pass


class Name:
    """A name that leads to replicas, as long as its server answers."""

    def __init__(self) -> None:
        self.replicas: Sequence[str] = REPLICAS
        self.is_away = False

    async def __call__(self) -> Sequence[str]:
        if self.is_away:
            raise OSError("no name server")
        return self.replicas


def request(affinity: str | None = None) -> Request:
    return Request("POST", URL("http://user:secret@generation:8002/v1/generate"), CIMultiDict(), affinity=affinity)


class TestChoice:
    def test_an_affinity_keeps_its_replica_and_all_replicas_have_some(self) -> None:
        chosen = [choose(REPLICAS, Counter(), affinity) for affinity in AFFINITIES]
        assert chosen == [choose(list(reversed(REPLICAS)), Counter(), affinity) for affinity in AFFINITIES]
        assert min(Counter(chosen).values()) > len(AFFINITIES) / len(REPLICAS) / 2
        assert len(set(chosen)) == len(REPLICAS)

    def test_the_others_keep_theirs_when_one_goes(self) -> None:
        gone, *left = REPLICAS
        for affinity in AFFINITIES:
            before = choose(REPLICAS, Counter(), affinity)
            assert before == gone or choose(left, Counter(), affinity) == before

    def test_none_runs_more_than_a_quarter_above_the_mean(self) -> None:
        running: Counter[str] = Counter()
        for number in range(1, 200):
            running[choose(REPLICAS, running, "acct_1/model/the same beginning")] += 1
            assert max(running.values()) <= balancing.ABOVE_MEAN * number / len(REPLICAS) + 1
        assert len(running) == len(REPLICAS)


class TestTransport:
    async def test_sends_those_of_an_affinity_to_one_replica_and_others_to_the_idle(self) -> None:
        fake = Fake()
        transport = BalancedTransport(fake, Name())
        for _ in range(5):
            await (await transport.send(request("acct_1/prompt@1/"))).aclose()
        assert len(set(fake.asked)) == 1
        fake.asked.clear()
        answers = [await transport.send(request()) for _ in REPLICAS]
        assert sorted(fake.asked) == REPLICAS
        for answer in answers:
            await answer.aclose()

    async def test_passes_over_a_replica_that_refuses_and_then_avoids_it(self) -> None:
        fake = Fake()
        transport = BalancedTransport(fake, Name())
        await (await transport.send(request("a"))).aclose()
        first = fake.asked[0]
        fake.down = {first}
        for _ in range(3):
            await (await transport.send(request("a"))).aclose()
        assert fake.asked[:2] == [first, first]
        assert first not in fake.asked[2:]

    async def test_raises_what_the_last_of_them_said(self) -> None:
        fake = Fake()
        fake.down = set(REPLICAS)
        with pytest.raises(Unreachable):
            await BalancedTransport(fake, Name()).send(request("a"))
        assert sorted(fake.asked) == REPLICAS

    async def test_sends_nothing_again_that_a_replica_may_have_seen(self) -> None:
        fake = Fake()
        fake.drops = True
        transport = BalancedTransport(fake, Name())
        for _ in range(5):
            with pytest.raises(BrokenOff):
                await transport.send(request("a"))
        assert len(fake.asked) == 5
        assert len(set(fake.asked)) == 1

    async def test_an_answer_that_broke_off_runs_no_more(self) -> None:
        fake = Fake()
        fake.breaks = True
        transport = BalancedTransport(fake, Name())
        for _ in range(8):
            answer = await transport.send(request("a"))
            with pytest.raises(BrokenOff):
                await answer.read()
            await answer.aclose()
            await answer.aclose()
        assert len(set(fake.asked)) == 1  # else its load would have grown, and the next been taken

    async def test_follows_the_name_and_knows_the_old_replicas_while_it_is_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(balancing, "_LOOK_S", 0)
        fake, name = Fake(), Name()
        name.replicas = ["10.0.0.1"]
        transport = BalancedTransport(fake, name)
        await (await transport.send(request())).aclose()
        name.replicas = ["10.0.0.9"]
        for _ in range(3):
            await (await transport.send(request())).aclose()
            await asyncio.sleep(0)  # who knows some replicas does not wait for a look at others
        name.is_away = True
        await (await transport.send(request())).aclose()
        assert (fake.asked[0], *fake.asked[2:]) == ("10.0.0.1", "10.0.0.9", "10.0.0.9", "10.0.0.9")

    async def test_a_full_pool_is_no_replica_s_fault(self) -> None:
        fake = Fake()
        fake.is_crowded = True
        transport = BalancedTransport(fake, Name())
        for _ in range(3):
            with pytest.raises(Crowded):
                await transport.send(request("a"))
        fake.is_crowded = False
        await (await transport.send(request("a"))).aclose()
        assert (len(fake.asked), len(set(fake.asked))) == (4, 1)

    async def test_a_name_that_leads_nowhere_cannot_be_reached(self) -> None:
        name = Name()
        name.replicas = []
        with pytest.raises(Unreachable):
            await BalancedTransport(Fake(), name).send(request())


async def test_reaches_servers_on_several_addresses() -> None:
    def app(host: str) -> FastAPI:
        made = FastAPI()

        @made.get("/")
        async def who() -> dict[str, str]:
            return {"host": host}

        return made

    hosts = ["127.0.0.1", "127.0.0.2"]
    async with AsyncExitStack() as stack:
        first = bind(hosts[0], 0, variable="PORT")
        port = first.getsockname()[1]
        for host, listener in zip(hosts, [first, bind(hosts[1], port, variable="PORT")], strict=True):
            await stack.enter_async_context(listening(app(host), listener, drain_s=1))

        async def replicas() -> Sequence[str]:
            return hosts

        transport = BalancedTransport(NetworkTransport(max_connections=10, connect_s=2), replicas)
        stack.push_async_callback(transport.aclose)
        found = set()
        for affinity in AFFINITIES[:20]:
            asked = Request("GET", URL(f"http://service:{port}/"), CIMultiDict(), affinity=affinity)
            answer = await transport.send(asked)
            found.add(json.loads(await answer.read())["host"])
            await answer.aclose()
        assert found == set(hosts)


async def test_a_name_is_looked_up_to_all_its_addresses() -> None:
    assert "127.0.0.1" in await named("localhost", 80)()
