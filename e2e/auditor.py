"""Holds a ledger against what the engine told, event by event. Reads the studio's database and topics themselves."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import topic
from hunmin_contracts.events import USAGE
from hunmin_kit.data.embedded import EmbeddedPostgres

QUIET_S = 5
TOLD_WITHIN_S = 3.0  # after a call's end: a commit, and the tries before it where the database has just come back


class Records(Protocol):
    """Where the database and the topics of a studio are read."""

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Return what a statement finds."""

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """Return the `partition`, `offset` and `event` of every message of a topic, each partition in its order."""


@dataclass(frozen=True)
class Answer:
    """What a client got: `tokens` of a whole answer, None for one that was cut or failed."""

    request_id: str
    tokens: int | None


@dataclass(frozen=True)
class Ledger:
    """The rows of usage, `started_s` among their columns, and what is taken of the limits."""

    rows: list[dict[str, Any]]
    used: dict[str, int]
    reserved: dict[str, int]

    def tokens(self) -> dict[str, int]:
        """Return the tokens of each exchange, corrections included."""
        found: Counter[str] = Counter()
        for row in self.rows:
            found[row["corrects"] or row["id"]] += row["prompt_tokens"] + row["completion_tokens"]
        return dict(found)


class LocalRecords:
    """Those of a studio in the folder `home` of this machine, and of the broker at `servers`."""

    def __init__(self, home: Path, servers: str) -> None:
        self._url = EmbeddedPostgres(home / "postgres").url
        self._servers = servers

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Return what a statement finds."""

        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self._url)
            try:
                return [dict(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def messages(self, name: str) -> list[dict[str, Any]]:
        """Return every message of a topic."""
        return topic.messages(self._servers, name)


class Auditor:
    """Looks into the records of a studio: into those of one account, if it is named."""

    def __init__(self, records: Records, account_id: str | None = None) -> None:
        self._records = records
        self._account_id = account_id

    def ledger(self) -> Ledger:
        """Return the ledger as it stands."""
        taken = self._records.rows(
            "SELECT account_id, name, coalesce(sum(used), 0)::bigint AS used, "
            "coalesce(sum(reserved), 0)::bigint AS reserved "
            "FROM gateway.quota_limits AS limits JOIN gateway.quota_counters ON limit_id = limits.id "
            "GROUP BY account_id, name"
        )
        used: Counter[str] = Counter()
        reserved: Counter[str] = Counter()
        for row in filter(self._is_ours, taken):
            used[row["name"]] += row["used"]
            reserved[row["name"]] += row["reserved"]
        usage = "SELECT *, extract(epoch FROM started_at)::float8 AS started_s FROM gateway.usage"
        rows = filter(self._is_ours, self._records.rows(usage))
        return Ledger(rows=list(rows), used=used, reserved=reserved)

    def waiting(self) -> int:
        """Return how much is on its way: events to be relayed, calls that no row has, and what is reserved.

        Calls of an exchange that was cut wait for another, for a day: if no event of it is on its way, none will come.
        """
        (row,) = self._records.rows(
            "SELECT (SELECT count(*) FROM generation.event_outbox) + (SELECT count(*) FROM gateway.event_outbox) "
            "+ (SELECT count(*) FROM gateway.metered_calls AS call WHERE NOT EXISTS ("
            "SELECT 1 FROM gateway.usage WHERE usage.id = call.usage_id AND usage.prompt_tokens > "
            "(SELECT sum(prompt_tokens) FROM gateway.metered_calls WHERE usage_id = call.usage_id))) "
            "+ (SELECT count(*) FROM gateway.quota_counters WHERE reserved > 0) AS count"
        )
        return int(row["count"])

    def wait_until_settled(self, *, within_s: float) -> None:
        """Return once nothing has been on its way for a while."""
        deadline, quiet_since = time.monotonic() + within_s, time.monotonic()
        while time.monotonic() - quiet_since < QUIET_S:
            if waiting := self.waiting() or self.unheard():
                quiet_since = time.monotonic()
                assert time.monotonic() < deadline, f"{waiting} are still on their way"
            time.sleep(0.3)

    def committed(self) -> dict[str, list[str]]:
        """Return the ids of the events of usage that no broker has yet, by key, in the order of their commits."""
        rows = self._records.rows(
            "SELECT topic, key, convert_from(content, 'UTF8')::json->>'id' AS id FROM generation.event_outbox "
            "ORDER BY transaction, number"
        )
        found: dict[str, list[str]] = {}
        for row in rows:
            if row["topic"] == USAGE.name:
                found.setdefault(row["key"], []).append(row["id"])
        return found

    def messages(self) -> list[dict[str, Any]]:
        """Return every message of usage that the broker has, by partition and offset."""
        found = [each for each in self._records.messages(USAGE.name) if self._is_ours(each["event"]["data"])]
        return sorted(found, key=lambda each: (each["partition"], each["offset"]))

    def told(self) -> list[dict[str, Any]]:
        """Return every event of usage that the broker has, as often as it has it, each partition in its order."""
        return [each["event"] for each in self.messages()]

    def processed(self) -> set[str]:
        """Return the ids of the events whose effect is in the gateway's schema."""
        return {row["event_id"] for row in self._records.rows("SELECT event_id FROM gateway.event_processed")}

    def unheard(self) -> int:
        """Return how many events the broker has that have no effect yet: consumers come back later than it does."""
        return len({event["id"] for event in self.told()} - self.processed())

    def dead(self) -> int:
        """Return how many events no consumer could handle."""
        return int(
            self._records.rows("SELECT count(*) FROM gateway.event_attempts WHERE died_at IS NOT NULL")[0]["count"]
        )

    def _is_ours(self, row: dict[str, Any]) -> bool:
        return self._account_id in (None, row["account_id"])


def check(
    auditor: Auditor, answers: list[Answer], *, generation_killed_s: Sequence[float] = (), clients: int = 0
) -> dict[str, int]:
    """Raise an AssertionError unless everything that was accepted has ended, once, at what the engine computed.

    `generation_killed_s` are the moments, in seconds since 1970, at which generation was killed under so many clients;
    check_untold says what these excuse. Nothing excuses anything else.
    """
    ledger, told = auditor.ledger(), auditor.told()
    rows = {row["id"]: row for row in ledger.rows if row["corrects"] is None}
    tokens = ledger.tokens()
    events = {event["id"]: event["data"] for event in told}
    assert set(events) <= auditor.processed(), "events without an effect"
    assert auditor.dead() == 0
    engine = computed(list(events.values()))
    assert set(engine) <= set(rows), "what was computed is in no ledger"
    untold = {key: row for key, row in rows.items() if row["status"] != "failed" and metered(row) > engine[key]}
    check_untold(list(untold.values()), generation_killed_s, clients=clients)
    for usage_id, row in rows.items():
        due = 0 if row["status"] == "failed" else engine[usage_id]
        assert due <= tokens[usage_id] <= (metered(row) if usage_id in untold else due), row
    requests = {row["request_id"]: row["id"] for row in rows.values()}
    for answer in answers:
        if answer.tokens is not None:
            assert tokens[requests[answer.request_id]] == answer.tokens, answer
    assert ledger.used["tokens_per_month"] == sum(tokens.values())
    assert not any(ledger.reserved.values())
    return {
        "events": len(events),
        "delivered": len(told),
        "rows": len(ledger.rows),
        "corrections": len(ledger.rows) - len(rows),
        "untold": len(untold),
        "answers": sum(answer.tokens is not None for answer in answers),
    }


def check_untold(untold: list[dict[str, Any]], generation_killed_s: Sequence[float], *, clients: int) -> None:
    """Raise an AssertionError if exchanges are untold, as these are, for another reason than a kill of generation.

    Untold is one of which the gateway has metered more than events tell. Generation tells of a call when it has ended,
    from its memory, so its kill silences the calls that run then, or have just ended: one exchange of each client.
    No other kill does. The event's commit waits for the disk (no `quick` statement), and is tried again while
    PostgreSQL is away, for 30 s, which a restart does not take; what PostgreSQL may lose, by commits that wait for no
    disk, are rows of the gateway, which are written again from the events. The row leaves the outbox once Kafka has
    acknowledged the event. And what a killed gateway has asked for is told by generation like everything else.
    """
    for row in untold:
        told_s = row["started_s"] + row["duration_s"] + TOLD_WITHIN_S
        assert any(row["started_s"] <= killed_s <= told_s for killed_s in generation_killed_s), f"nobody told of {row}"
    assert len(untold) <= len(generation_killed_s) * clients, "of more than ran nobody told"


def computed(events: list[dict[str, Any]]) -> Counter[str]:
    """Return the tokens that events of usage tell of each exchange."""
    found: Counter[str] = Counter()
    for event in events:
        found[event["usage_id"]] += metered(event)
    return found


def metered(counted: dict[str, Any]) -> int:
    """Return the tokens of an event or of a row."""
    return int(counted["prompt_tokens"] + counted["completion_tokens"])


def check_order(messages: list[dict[str, Any]], committed: dict[str, list[str]]) -> int:
    """Raise an AssertionError unless the events of each key lie in one partition, in the order of their commits.

    `messages` are all that a topic has, by partition and offset; `committed` has what waited for the broker. Return how
    many keys had several events. The time of an event is no order: two that are told at once commit as it happens. And
    one that comes again, since its acknowledgement was lost, counts where it came first.
    """
    partitions: dict[str, set[int]] = {}
    arrived: dict[str, dict[str, None]] = {}
    for each in messages:
        key = each["event"]["subject"]
        partitions.setdefault(key, set()).add(each["partition"])
        arrived.setdefault(key, {})[each["event"]["id"]] = None
    assert [key for key, found in partitions.items() if len(found) > 1] == [], "a key has several partitions"
    for key, ids in committed.items():
        assert [one for one in arrived.get(key, {}) if one in ids] == ids, f"the events of {key} are out of order"
    return sum(len(ids) > 1 for ids in committed.values())
