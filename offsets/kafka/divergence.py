"""Asks the brokers whether their logs still hold what was read of them (OffsetForLeaderEpoch).

The client has no call for it. A consumer that seeks with a leader epoch makes it ask, and reports the answer.
"""

import contextlib
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.clock import Deadline
from offsets.kafka.config import client_config
from offsets.kafka.fetch_errors import FetchProblem, classify, divergence_in
from offsets.types import Position, TopicPartition

POLL_SECONDS = 0.2
TIMEOUT_SECONDS = 5.0


class Comparison(NamedTuple):
    """What a broker says of a log that was read. `diverges`: the first offset that differs, if known."""

    truncated: bool
    diverges: int | None = None


def compare(
    read: Mapping[TopicPartition, Position], timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[TopicPartition, Comparison]:
    """Compare each log with what was read of it, the leader epoch being that of the last offset.

    Without the partitions whose broker does not answer in time.
    """
    if not read:
        return {}
    consumer = Consumer(
        client_config()
        | {
            "group.id": f"compare-{secrets.token_hex(6)}",  # never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 1024,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        return _ask(consumer, read, Deadline(timeout_seconds))
    finally:
        consumer.close()


def _ask(
    consumer: Consumer, read: Mapping[TopicPartition, Position], deadline: Deadline
) -> dict[TopicPartition, Comparison]:
    places = [KafkaTopicPartition(tp.topic, tp.partition, position.offset) for tp, position in read.items()]
    consumer.assign(places)
    consumer.pause(places)
    for tp, position in read.items():
        epoch = -1 if position.leader_epoch is None else position.leader_epoch
        with contextlib.suppress(KafkaException):
            consumer.seek(KafkaTopicPartition(tp.topic, tp.partition, position.offset, leader_epoch=epoch))
    consumer.resume(places)
    answers: dict[TopicPartition, Comparison] = {}
    while len(answers) < len(read) and not deadline.expired:
        for message in consumer.consume(100, POLL_SECONDS):
            topic, partition, answer = message.topic(), message.partition(), _answer(message)
            if topic is not None and partition is not None and answer is not None:
                answers.setdefault(TopicPartition(topic, partition), answer)
    return answers


def _answer(message: Message) -> Comparison | None:
    """A record or the end of the log comes only after the comparison."""
    error = message.error()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return Comparison(truncated=False)
    problem = classify(error.code(), error.str())
    if problem is FetchProblem.OUT_OF_RANGE:
        return Comparison(truncated=True, diverges=divergence_in(error.str()))
    return None
