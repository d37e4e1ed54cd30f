"""The bus on Kafka. kafka-python blocks, and a client of it is one thread's: each lives in a thread of its own.

Kafka's transactions are not used: what is published twice is handled once, since consumers know what they processed.
"""

import asyncio
import logging
import warnings
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.events import DEAD, EventModel, Topic

from hunmin_kit.events.bus import Batch, Delivery
from hunmin_kit.events.record import Record

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it reads its own files in a way that Python 3.11 deprecates
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError
    from kafka.net.compat import KafkaNetClient
    from kafka.structs import OffsetAndMetadata

_DELIVERY_MS = 20_000  # that a broker may take to acknowledge; then the relay tries again
_REQUEST_MS = 10_000
_CONNECT_MS = 5_000
_POLL_MS = 500
_SESSION_MS = 10_000  # after which the partitions of a process that died are another's
_METADATA_MS = 30_000  # after which a topic that was created meanwhile is found
_RECORDS_AT_ONCE = 100  # of about 1 MB each at most, all of them in memory
_RETRY_AFTER_S = 1
logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what fails it also raises, and we tell it once instead of often
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Kafka cluster, and who we are there. Without a user nobody in particular; without TLS in the clear."""

    servers: str  # host:port,host:port
    uses_tls: bool = False
    ca_file: Path | None = None  # PEM; None: the authorities that this machine trusts
    user: str | None = None
    password: str | None = None
    sasl_mechanism: str = "SCRAM-SHA-512"

    @property
    def arguments(self) -> dict[str, Any]:
        """What every client of kafka-python takes."""
        sasl = "SASL_" if self.user is not None else ""
        found: dict[str, Any] = {
            "bootstrap_servers": self.servers.split(","),
            "bootstrap_timeout_ms": _CONNECT_MS,
            "security_protocol": sasl + ("SSL" if self.uses_tls else "PLAINTEXT"),
        }
        if self.uses_tls and self.ca_file is not None:
            found["ssl_cafile"] = str(self.ca_file)
        if self.user is not None:
            found |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return found


class KafkaBus:
    """The bus of one process on `cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-producer")
        self._producer: Any = None

    @property
    def reads_outboxes(self) -> bool:
        """What is acknowledged is Kafka's to keep."""
        return False

    async def publish(self, records: Sequence[Record]) -> None:
        """Send them with the key as Kafka's, and wait for the acknowledgement of all replicas in sync."""
        await _in(self._thread, lambda: self._publish(records))

    @asynccontextmanager
    async def reader(self, consumer: str, topic: str) -> AsyncGenerator["KafkaReader", None]:
        """Read as a member of the consumer group `consumer`."""
        reader = KafkaReader(self._cluster, consumer, topic)
        try:
            yield reader
        finally:
            await reader.close()

    @asynccontextmanager
    async def listener(self, topic: str) -> AsyncGenerator["KafkaListener", None]:
        """Read every partition from its end, as a member of no group."""
        listener = KafkaListener(self._cluster, topic)
        try:
            yield listener
        finally:
            await listener.close()

    async def close(self) -> None:
        """Close the producer. What is on its way then has not arrived, as far as anybody knows."""
        if self._producer is not None:
            await asyncio.to_thread(self._producer.close, timeout=0)  # also ends what its own thread waits for
        await _last_in(self._thread, self._drop_producer)

    def _publish(self, records: Sequence[Record]) -> None:
        with _as_hunmin_errors(self._cluster):
            try:
                if self._producer is None:
                    self._producer = self._new_producer()
                for wave in _waves(records):
                    sent = [self._send(record) for record in wave]
                    for future in sent:
                        future.get(timeout=_DELIVERY_MS / 1000 + 5)
            except KafkaError:
                # Its buffer may still hold some of them, and it may be cut off for good: the next try has a new one.
                self._drop_producer()
                raise

    def _send(self, record: Record) -> Any:
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        return self._producer.send(record.topic, key=record.key.encode(), value=record.content, headers=headers)

    def _new_producer(self) -> Any:
        return _started(
            KafkaProducer,
            **self._cluster.arguments,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            delivery_timeout_ms=_DELIVERY_MS,
            request_timeout_ms=_REQUEST_MS,
            max_block_ms=_REQUEST_MS,
            metadata_max_age_ms=_METADATA_MS,
        )

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=0)


class KafkaReader:
    """A member of a consumer group. Each partition is a lane."""

    def __init__(self, cluster: Cluster, group: str, topic: str) -> None:
        self._cluster = cluster
        self._group = group
        self._topic = topic
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"kafka-{group}")
        self._consumer: Any = None
        self._unfinished: dict[TopicPartition, int] = {}  # of partitions: where to read again

    async def read(self) -> Sequence[Batch]:
        """Return what comes next, or nothing after half a second."""
        return await _in(self._thread, self._read)

    async def finish(self, batch: Batch, handled: int) -> None:
        """Commit the offset behind the delivery."""
        await _in(self._thread, partial(self._finish, batch, handled))

    async def lag(self) -> int | None:
        """Return how far the partitions of this member are from their ends."""
        return await _in(self._thread, self._lag)

    async def close(self) -> None:
        """Leave the group."""
        await _last_in(self._thread, self._drop)

    def _read(self) -> Sequence[Batch]:
        with self._dropping():
            if self._consumer is None:
                self._consumer = _new_consumer(self._cluster, self._topic, group=self._group, begin="earliest")
            for partition, offset in self._unfinished.items():
                if partition in self._consumer.assignment():
                    self._consumer.seek(partition, offset)
            self._unfinished.clear()
            polled = self._consumer.poll(timeout_ms=_POLL_MS, max_records=_RECORDS_AT_ONCE)
            batches = []
            for partition, messages in polled.items():
                self._unfinished[partition] = messages[0].offset
                batches.append(Batch(_lane(partition), [_delivery(message) for message in messages]))
            return batches

    def _finish(self, batch: Batch, handled: int) -> None:
        last = batch.deliveries[handled - 1]
        partition, offset = _position(last)
        with self._dropping():
            if self._consumer is None or partition not in self._consumer.assignment():
                self._unfinished.pop(partition, None)
                return  # another member's by now, which reads it again
            self._consumer.commit({partition: OffsetAndMetadata(offset + 1, "", -1)})
            if handled == len(batch.deliveries):
                self._unfinished.pop(partition, None)
            else:
                self._unfinished[partition] = offset + 1

    def _lag(self) -> int | None:
        with self._dropping():
            mine = list(self._consumer.assignment()) if self._consumer is not None else []
            if not mine:
                return None
            ends = self._consumer.end_offsets(mine, timeout_ms=_REQUEST_MS)
            return sum(max(int(ends[partition]) - self._done(partition), 0) for partition in mine)

    def _done(self, partition: TopicPartition) -> int:
        """Return the offset up to which a partition is finished."""
        known = self._unfinished.get(partition)
        return int(known if known is not None else self._consumer.position(partition, timeout_ms=_REQUEST_MS))

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._unfinished.clear()
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=_CONNECT_MS)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Let go of a client that failed: the next one begins at what is committed."""
        with _as_hunmin_errors(self._cluster):
            try:
                yield
            except KafkaError:
                self._drop()
                raise


class KafkaListener:
    """Reads every partition of a topic, and commits nothing."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-listener")
        self._consumer: Any = None

    async def hear(self) -> Sequence[Record]:
        """Return what comes next, or nothing after half a second."""
        return await _in(self._thread, self._hear)

    async def close(self) -> None:
        """Close the client."""
        await _last_in(self._thread, self._drop)

    def _hear(self) -> Sequence[Record]:
        with _as_hunmin_errors(self._cluster):
            try:
                if self._consumer is None:
                    self._consumer = _new_consumer(self._cluster, self._topic, group=None, begin="latest")
                polled = self._consumer.poll(timeout_ms=_POLL_MS, max_records=_RECORDS_AT_ONCE)
            except KafkaError:
                self._drop()
                raise
        return [_delivery(message).record for messages in polled.values() for message in messages]

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=_CONNECT_MS)


def _new_consumer(cluster: Cluster, topic: str, *, group: str | None, begin: str) -> Any:
    return _started(
        KafkaConsumer,
        topic,
        **cluster.arguments,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset=begin,
        allow_auto_create_topics=False,
        metadata_max_age_ms=_METADATA_MS,
        session_timeout_ms=_SESSION_MS,
        request_timeout_ms=_REQUEST_MS,
    )


def _started(kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Make a client. Of one that cannot reach the brokers kafka-python would leave a running thread and its sockets."""
    networks: list[Any] = []

    def network(**configuration: Any) -> Any:
        networks.append(KafkaNetClient(**configuration))
        return networks[-1]

    try:
        return kind(*arguments, kafka_client=network, **options)
    except BaseException:
        for started in networks:
            started.close()
        raise


def create_topics(
    cluster: Cluster, topics: Sequence[Topic[EventModel]], *, partitions: int, replication: int, keep_s: float
) -> list[str]:
    """Create those of `topics`, and of their `….dead`, that are not there; return their names."""
    created = []
    with _as_hunmin_errors(cluster):
        admin = _started(KafkaAdminClient, **cluster.arguments)
        try:
            for name in [name for topic in topics for name in (topic.name, topic.dead)]:
                options = {
                    "num_partitions": 1 if name.endswith(DEAD) else partitions,
                    "replication_factor": replication,
                    "configs": {"retention.ms": str(round(keep_s * 1000))},
                }
                try:
                    admin.create_topics({name: options})
                except TopicAlreadyExistsError:
                    continue
                created.append(name)
        finally:
            admin.close()
    return created


def _waves(records: Sequence[Record]) -> list[list[Record]]:
    """Divide `records` so that a wave has one of each key: none is sent before the one that precedes it has arrived.

    With several of a key on their way, a later one may arrive though an earlier one fails.
    """
    waves: dict[int, list[Record]] = defaultdict(list)
    sent: dict[tuple[str, str], int] = defaultdict(int)
    for record in records:
        waves[sent[record.topic, record.key]].append(record)
        sent[record.topic, record.key] += 1
    return list(waves.values())


def _lane(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _delivery(message: Any) -> Delivery:
    # With the time, since offsets begin again where a topic was deleted and created.
    place = f"{message.topic}/{message.partition}/{message.timestamp}/{message.offset}"
    headers = {_text(name): _text(value) for name, value in message.headers}
    return Delivery(place, Record(message.topic, _text(message.key), message.value or b"", headers))


def _position(delivery: Delivery) -> tuple[TopicPartition, int]:
    topic, partition, _, offset = delivery.place.rsplit("/", 3)
    return TopicPartition(topic, int(partition)), int(offset)


def _text(value: str | bytes | None) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # which PostgreSQL cannot store


async def _in(thread: ThreadPoolExecutor, call: Callable[[], ResultT]) -> ResultT:
    return await asyncio.get_running_loop().run_in_executor(thread, call)


async def _last_in(thread: ThreadPoolExecutor, call: Callable[[], object]) -> None:
    """Let `call` be the thread's last. It is made also if this is cancelled while the thread is busy.

    Else a member of a group that nobody reads by would keep its partitions, and everybody else waiting for it.
    """
    made = thread.submit(call)
    thread.shutdown(wait=False)
    await asyncio.shield(asyncio.wrap_future(made))


@contextmanager
def _as_hunmin_errors(cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except UnknownTopicOrPartitionError as error:
        message = "A topic is not there. Run `hunmin topics`."
        raise HunminError(ErrorCode.UNAVAILABLE, message, retry_after_s=_RETRY_AFTER_S) from error
    except KafkaError as error:
        why = f"Kafka at {cluster.servers} cannot be used ({type(error).__name__})."
        # kafka-python calls a wrong password a timeout.
        known = " If that goes on, check HUNMIN_KAFKA_USER and HUNMIN_KAFKA_PASSWORD." if cluster.user else ""
        message = f"{why} Try again shortly; if a topic is missing, `hunmin topics` creates it.{known}"
        raise HunminError(ErrorCode.UNAVAILABLE, message, retry_after_s=_RETRY_AFTER_S) from error
