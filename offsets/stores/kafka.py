"""Kafka's own offsets as a store, seen from outside of the group."""

import string
from collections.abc import Collection, Mapping, Sequence

from offsets.configuration import CAPABILITIES
from offsets.errors import RefusedError
from offsets.kafka.admin import DEFAULT_TIMEOUT_SECONDS
from offsets.kafka.group_offsets import alter_offsets, committed_offsets
from offsets.stores.base import refusal
from offsets.types import StoreCommit, StoredOffset, TopicPartition


class KafkaStore:
    """`__consumer_offsets` of one group, with epoch and worker in the metadata.

    Kafka overwrites whatever is there: the comparison is made just before, and is not atomic. While the group has
    members, only they may commit; a worker commits through its own member instead (`KafkaClient.commit`).
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
        alter_offsets(
            group_id,
            {
                c.topic_partition: StoredOffset(c.next_offset, c.epoch, c.worker_id)
                for c in commits
                if c.topic_partition not in refused
            },
            self._timeout,
        )
        return refused

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        held = self.read(group_id, offsets.keys())
        refused = {
            tp: f"epoch {offset.epoch} is over, the kafka store holds epoch {held[tp].epoch}"
            for tp, offset in offsets.items()
            if tp in held and held[tp].epoch > offset.epoch
        }
        alter_offsets(group_id, {tp: offset for tp, offset in offsets.items() if tp not in refused}, self._timeout)
        return refused

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        """This client can delete offsets only together with the whole group."""
        raise RefusedError("Kafka deletes offsets only with their group. Delete the group with kafka-consumer-groups.")

    def warnings(self) -> list[str]:
        return []

    def hold(self, group_id: str) -> None:
        """It serves any number of workers."""

    def close(self) -> None:
        """The client ends with the object."""


def _check(group_id: str) -> None:
    """librdkafka strips leading white space from a consumer's `group.id`, but not from the group of an admin request.

    Such a group would be written under its own name, and read under another's.
    """
    if not group_id or group_id[0] in string.whitespace:
        raise RefusedError(
            f"Kafka's client cannot name the group {group_id!r}: begin its name with a visible character."
        )
