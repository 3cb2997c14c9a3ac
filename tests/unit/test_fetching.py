"""What one fetch brings, and where a group begins; without a broker."""

from dataclasses import dataclass

import pytest
from confluent_kafka import KafkaError

from offsets.kafka.admin import LogBounds, TopicDescription
from offsets.kafka.client import KafkaClient
from offsets.kafka.refusals import GroupRefusal
from offsets.ledger import Baseline
from offsets.processing.baselines import choose
from offsets.processing.halts import waits_for_transaction
from offsets.types import TopicPartition


@dataclass
class Message:
    at: int
    place: int | None = 0
    code: int | None = None
    named: str | None = "t"

    def topic(self) -> str | None:
        return self.named

    def partition(self) -> int | None:
        return self.place

    def offset(self) -> int:
        return self.at

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code, "as the client says it")


ZERO, ONE = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.mark.parametrize("only_topic", ["", "t"])
@pytest.mark.parametrize(
    ("code", "where"),
    [
        (KafkaError._AUTO_OFFSET_RESET, "out_of_range"),
        (KafkaError._BAD_MSG, "unreadable"),
        (KafkaError.LEADER_NOT_AVAILABLE, "retried"),
    ],
)
def test_nothing_after_an_error_of_a_partition_is_taken(only_topic: str, code: int, where: str) -> None:
    client = KafkaClient.__new__(KafkaClient)
    client._only_topic = only_topic
    messages = [Message(5), Message(6), Message(7, 1), Message(-1, code=code), Message(9), Message(8, 1), Message(10)]
    fetched = client._by_partition(messages)
    stops = where != "retried"
    assert [record.offset() for record in fetched.records[ZERO]] == ([5, 6] if stops else [5, 6, 9, 10])
    assert [record.offset() for record in fetched.records[ONE]] == [7, 8]
    assert {name: dict(getattr(fetched, name)) for name in ("out_of_range", "unreadable", "retried")} == {
        name: ({ZERO: "as the client says it"} if name == where else {})
        for name in ("out_of_range", "unreadable", "retried")
    }
    assert (fetched.stopped(ZERO), fetched.stopped(ONE)) == (stops, False)


@pytest.mark.parametrize(("topic", "partition"), [("t", -1), (None, None)])
def test_an_error_of_no_partition_stops_none(topic: str | None, partition: int | None) -> None:
    client = KafkaClient.__new__(KafkaClient)
    client._only_topic = "t"
    client.group_refusal = GroupRefusal()
    failed = Message(-1, partition, KafkaError.TOPIC_AUTHORIZATION_FAILED, topic)
    fetched = client._by_partition([Message(5), failed, Message(6)])
    assert [record.offset() for record in fetched.records[ZERO]] == [5, 6]
    assert not fetched.stopped(ZERO)


@pytest.mark.parametrize(
    ("setting", "readable", "unreadable"),
    [
        ("earliest", Baseline("id", 3, "earliest"), Baseline("id", 0, "earliest?")),
        ("latest", Baseline("id", 9, "latest"), Baseline("id", 0, "latest?")),
        ("group", Baseline("id", 3, "earliest"), Baseline("id", 0, "earliest?")),
    ],
)
def test_where_a_group_begins(setting: str, readable: Baseline, unreadable: Baseline) -> None:
    description = TopicDescription("id", (0, 1), frozenset({1}))
    assert choose(description, [ZERO, ONE], {ZERO: LogBounds(3, 9)}, setting, {}) == {0: readable, 1: unreadable}


def test_a_commit_of_the_group_needs_no_leader() -> None:
    description = TopicDescription("id", (0, 1), frozenset({1}))
    chosen = choose(description, [ZERO, ONE], {ZERO: LogBounds(3, 9)}, "group", {ZERO: 5, ONE: 7})
    assert chosen == {0: Baseline("id", 5, "group"), 1: Baseline("id", 7, "group")}


@pytest.mark.parametrize(
    ("next_offset", "bounds", "uncommitted_end", "waits"),
    [
        (50, LogBounds(0, 40), 60, True),
        (60, LogBounds(0, 40), 60, True),
        (61, LogBounds(0, 40), 60, False),  # nobody wrote it: truncated
        (40, LogBounds(0, 40), 60, False),
        (50, None, 60, False),
        (50, LogBounds(0, 40), None, False),
    ],
)
def test_an_open_transaction_is_waited_for(
    next_offset: int, bounds: LogBounds | None, uncommitted_end: int | None, waits: bool
) -> None:
    assert bool(waits_for_transaction(next_offset, bounds, uncommitted_end)) is waits
