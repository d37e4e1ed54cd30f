"""Reads a topic of Kafka from beginning to end: `python topic.py TOPIC` where HUNMIN_KAFKA_SERVERS leads to it."""

import json
import os
import sys
from typing import Any


def messages(servers: str, topic: str) -> list[dict[str, Any]]:
    """Return the `partition`, `offset` and `event` of every message of the topic, each partition in its order."""
    from hunmin_kit.events.kafka_bus import KafkaConsumer, TopicPartition  # which imports it without its warnings

    consumer = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, one) for one in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found: list[dict[str, Any]] = []
        while any(consumer.position(one) < ends[one] for one in partitions):
            for polled in consumer.poll(timeout_ms=1000).values():
                found += [
                    {"partition": each.partition, "offset": each.offset, "event": json.loads(each.value)}
                    for each in polled
                ]
        return found
    finally:
        consumer.close()


if __name__ == "__main__":
    print(json.dumps(messages(os.environ["HUNMIN_KAFKA_SERVERS"], sys.argv[1])))
