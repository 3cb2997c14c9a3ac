"""What only the Kafka store does."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from django.conf import settings

from offsets.errors import RefusedError
from offsets.types import StoreCommit, StoredOffset, TopicPartition
from streamsocial.stack import Stack
from tests.contract.conftest import StoreHarness, _make_topic
from tests.support.processes import wait_for


@pytest.fixture
def kafka_harness(stack: Stack, tmp_path: Path) -> StoreHarness:
    made = StoreHarness("kafka", tmp_path)
    _make_topic(made, 2)
    return made


def test_an_active_group_is_written_by_its_members_alone(kafka_harness: StoreHarness) -> None:
    kafka_harness.set(5)
    config = {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": kafka_harness.group}
    member = Consumer({**config, "enable.auto.commit": False})
    member.subscribe([kafka_harness.topic])
    try:
        wait_for("the member to join", lambda: member.poll(0.1) or member.assignment())
        with pytest.raises(RefusedError, match="group is active"):
            kafka_harness.store.put(kafka_harness.group, {kafka_harness.tp(): StoredOffset(9, 2)})
        assert kafka_harness.get() == StoredOffset(5, 1, "w-1")
    finally:
        member.close()


@pytest.mark.parametrize(
    "metadata", ["", "not ours", "[1, 2]", '{"epoch": "x"}', '{"epoch": -1, "worker": "w"}', "{" * 900]
)
def test_what_other_tools_wrote_is_read_with_no_epoch(kafka_harness: StoreHarness, metadata: str) -> None:
    other = Consumer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": kafka_harness.group})
    other.commit(offsets=[KafkaTopicPartition(kafka_harness.topic, 0, 7, metadata=metadata)], asynchronous=False)
    other.close()
    assert kafka_harness.get() == StoredOffset(7, 0, "")
    assert kafka_harness.commit(7, 9) == ""


@pytest.mark.parametrize("blank", ["", " ", "\t", "\n"])
def test_a_group_that_kafkas_client_would_call_by_another_name_is_refused(
    kafka_harness: StoreHarness, blank: str
) -> None:
    kafka_harness.set(5)
    group = f"{blank}{kafka_harness.group}" if blank else ""
    commit = StoreCommit(kafka_harness.tp(), 5, 6, 1, "w-1")
    with pytest.raises(RefusedError, match="Invalid group id"):
        kafka_harness.store.read(group, [kafka_harness.tp()])
    with pytest.raises(RefusedError, match="Invalid group id"):
        kafka_harness.store.commit(group, [commit])
    with pytest.raises(RefusedError, match="Invalid group id"):
        kafka_harness.store.put(group, {kafka_harness.tp(): StoredOffset(6)})
    assert kafka_harness.get() == StoredOffset(5, 1, "w-1")


def test_what_kafka_will_not_take_is_refused_with_its_words(kafka_harness: StoreHarness) -> None:
    with pytest.raises(RefusedError, match=r"(?i)unknown topic|partition"):
        kafka_harness.store.put(kafka_harness.group, {TopicPartition("no-such-topic", 0): StoredOffset(1)})
    with pytest.raises(RefusedError, match=r"(?i)metadata"):
        kafka_harness.store.put(kafka_harness.group, {kafka_harness.tp(): StoredOffset(1, 1, "w" * 5000)})
    assert kafka_harness.get() is None
