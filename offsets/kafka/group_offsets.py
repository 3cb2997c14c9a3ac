"""What a group has committed to Kafka, asked from outside of it."""

from collections.abc import Collection

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.kafka.config import client_config
from offsets.kafka.errors import translated
from offsets.kafka.metadata import stored_offset
from offsets.types import StoredOffset, TopicPartition


def committed_offsets(
    group_id: str, partitions: Collection[TopicPartition], timeout_seconds: float
) -> dict[TopicPartition, StoredOffset]:
    """Partitions without a commit are left out. Raises ServiceUnavailableError, RefusedError.

    By a consumer that never joins. The admin client's ListConsumerGroupOffsets ends the process (a segmentation fault
    in librdkafka's rd_kafka_cgrp_op, seen with confluent-kafka 2.16.1) when the group's coordinator is not ready, as
    after any restart of a broker.
    """
    asked = [KafkaTopicPartition(tp.topic, tp.partition) for tp in sorted(set(partitions))]
    if not asked:
        return {}
    consumer = Consumer({**client_config(), "group.id": group_id, "enable.auto.commit": False})
    try:
        answer = consumer.committed(asked, timeout=timeout_seconds)
    except KafkaException as error:
        raise translated(error) from error
    finally:
        consumer.close()
    for tp in answer:
        if tp.error is not None:
            raise translated(KafkaException(tp.error))
    return {
        TopicPartition(tp.topic, tp.partition): stored_offset(tp.offset, tp.metadata) for tp in answer if tp.offset >= 0
    }
