"""Kafka's own offsets as a store, seen from outside of the group."""

import string
from collections.abc import Collection, Iterable, Mapping, Sequence

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from offsets.configuration import CAPABILITIES
from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.kafka.admin import DEFAULT_TIMEOUT_SECONDS, KafkaAdmin
from offsets.kafka.config import client_config
from offsets.kafka.group_offsets import committed_offsets
from offsets.kafka.metadata import metadata_of
from offsets.stores.base import refusal
from offsets.types import StoreCommit, StoredOffset, TopicPartition

_ACTIVE = (
    "The group is active: only its members may commit to Kafka. Its workers mirror the ledger there; stop them to "
    "write from outside."
)


class KafkaStore:
    """`__consumer_offsets` of one group, with epoch and worker in the metadata.

    Kafka overwrites whatever is there: the comparison is made just before, and is no promise. While the group has
    members nobody else may commit; a worker commits through its own member instead (`KafkaClient.commit`).
    """

    name = "kafka"
    capabilities = CAPABILITIES["kafka"]

    def __init__(self, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._timeout = timeout_seconds

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, StoredOffset]:
        _check(group_id)
        return committed_offsets(group_id, partitions, self._timeout)

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        held = self.read(group_id, [c.topic_partition for c in commits])
        reasons = {c.topic_partition: refusal(self.name, c, held.get(c.topic_partition)) for c in commits}
        refused = {tp: reason for tp, reason in reasons.items() if reason}
        self._alter(
            group_id,
            {
                c.topic_partition: StoredOffset(c.next_offset, c.epoch, c.worker_id)
                for c in commits
                if c.topic_partition not in refused
            },
        )
        return refused

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        held = self.read(group_id, offsets.keys())
        refused = {
            tp: f"epoch {one.epoch} is over, the kafka store holds epoch {held[tp].epoch}"
            for tp, one in offsets.items()
            if tp in held and held[tp].epoch > one.epoch
        }
        self._alter(group_id, {tp: one for tp, one in offsets.items() if tp not in refused})
        return refused

    def _alter(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> None:
        if not offsets:
            return
        wanted = [
            KafkaTopicPartition(tp.topic, tp.partition, one.next_offset, metadata=metadata_of(one))
            for tp, one in offsets.items()
        ]
        # A client of its own each time: one that had lived through a restart of its broker was seen not to find the
        # group's coordinator again for a minute (librdkafka 2.16). Only operators write from outside, now and then.
        client = AdminClient(client_config())  # kept by its name: with it its answers would go
        futures = client.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group_id, wanted)], request_timeout=self._timeout
        )
        try:
            answer = KafkaAdmin.result(futures[group_id], self._timeout)
        except RefusedError as error:
            if isinstance(error.__cause__, KafkaException) and error.__cause__.args[0].code() in _MEMBERS_ONLY:
                raise RefusedError(_ACTIVE) from error
            raise
        _raise_first(tp.error for tp in answer.topic_partitions if tp.error is not None)

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        """Kafka lets offsets of single partitions go only with the whole group, through this client."""
        raise RefusedError("Kafka forgets a group's offsets only with the group; delete it with kafka-consumer-groups.")

    def warnings(self) -> list[str]:
        return []

    def hold(self, group_id: str) -> None:
        """It serves any number of workers."""

    def close(self) -> None:
        """The client ends with the object."""


_MEMBERS_ONLY = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.REBALANCE_IN_PROGRESS)


def _check(group_id: str) -> None:
    """librdkafka takes leading white space off a consumer's `group.id`, and not off the group of an admin request.

    So such a group would be written under its own name, and another's offsets would be read for it.
    """
    if not group_id or group_id[0] in string.whitespace:
        raise RefusedError(
            f"Kafka's client cannot name the group {group_id!r}: begin its name with a visible character."
        )


def _raise_first(errors: Iterable[KafkaError]) -> None:
    for error in errors:
        if error.code() in _MEMBERS_ONLY:
            raise RefusedError(_ACTIVE)
        if error.retriable():
            raise ServiceUnavailableError(f"Kafka is not available: {error.str()}.")
        raise RefusedError(f"Kafka refused: {error.str()}")
