"""Read and write a group's committed offsets in Kafka from outside the group."""

from collections.abc import Collection, Iterable, Mapping

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.kafka.config import client_config
from offsets.kafka.errors import result_of, translated
from offsets.kafka.metadata import metadata_of, stored_offset
from offsets.kafka.shared import group_reader
from offsets.types import StoredOffset, TopicPartition

_MEMBERS_ONLY = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.REBALANCE_IN_PROGRESS)
_ACTIVE = (
    "The group is active, so only its members can commit to Kafka. Its workers mirror the ledger there. To write from "
    "outside, stop them."
)


def committed_offsets(
    group_id: str, partitions: Collection[TopicPartition], timeout_seconds: float
) -> dict[TopicPartition, StoredOffset]:
    """A group's committed offsets, without partitions that have none. Raises ServiceUnavailableError, RefusedError.

    It uses a consumer that never joins the group. The admin client's ListConsumerGroupOffsets crashes the process (a
    segmentation fault in librdkafka's rd_kafka_cgrp_op, seen with confluent-kafka 2.16.1) while the group's coordinator
    is not ready, as after a broker restart.
    """
    wanted = [KafkaTopicPartition(tp.topic, tp.partition) for tp in sorted(set(partitions))]
    if not wanted:
        return {}
    try:
        with group_reader(group_id, timeout_seconds) as consumer:
            answer = consumer.committed(wanted, timeout=timeout_seconds)
    except KafkaException as error:
        raise translated(error) from error
    for tp in answer:
        if tp.error is not None:
            raise translated(KafkaException(tp.error))
    return {
        TopicPartition(tp.topic, tp.partition): stored_offset(tp.offset, tp.metadata) for tp in answer if tp.offset >= 0
    }


def alter_offsets(group_id: str, offsets: Mapping[TopicPartition, StoredOffset], timeout_seconds: float) -> None:
    """Commit offsets from outside the group. Raises ServiceUnavailableError, or RefusedError while it has members."""
    if not offsets:
        return
    wanted = [
        KafkaTopicPartition(tp.topic, tp.partition, stored.next_offset, metadata=metadata_of(stored))
        for tp, stored in offsets.items()
    ]
    # A new client each time: after a broker restart, an existing client did not find the group's coordinator for a
    # minute (librdkafka 2.16). Only operator actions write from outside, so the cost does not matter.
    client = AdminClient(client_config())  # keep a reference: without one the futures never resolve
    futures = client.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group_id, wanted)], request_timeout=timeout_seconds
    )
    try:
        answer = result_of(futures[group_id], timeout_seconds)
    except RefusedError as error:
        if isinstance(error.__cause__, KafkaException) and error.__cause__.args[0].code() in _MEMBERS_ONLY:
            raise RefusedError(_ACTIVE) from error
        raise
    _raise_first(tp.error for tp in answer.topic_partitions if tp.error is not None)


def _raise_first(errors: Iterable[KafkaError]) -> None:
    for error in errors:
        if error.code() in _MEMBERS_ONLY:
            raise RefusedError(_ACTIVE)
        if error.retriable():
            raise ServiceUnavailableError(f"Kafka is not available: {error.str()}.")
        raise RefusedError(f"Kafka rejected the request: {error.str()}")
