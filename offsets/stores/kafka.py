"""Kafka's committed offsets as a store, used from outside the group."""

import string
from collections.abc import Collection, Mapping, Sequence

from offsets.configuration import CAPABILITIES
from offsets.errors import RefusedError
from offsets.kafka.admin import DEFAULT_TIMEOUT_SECONDS
from offsets.kafka.group_offsets import alter_offsets, committed_offsets
from offsets.stores.base import refusal, stale_epoch
from offsets.types import StoreCommit, StoredOffset, TopicPartition


class KafkaStore:
    """A group's offsets in `__consumer_offsets`, with epoch and worker in the metadata.

    Kafka has no compare-and-set. The comparison is made just before the commit, which can still overwrite a newer one.
    While the group has members only they may commit, so a worker commits as a member (`KafkaClient.commit`).
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
            tp: stale_epoch(self.name, offset.epoch, held[tp].epoch)
            for tp, offset in offsets.items()
            if tp in held and held[tp].epoch > offset.epoch
        }
        alter_offsets(group_id, {tp: offset for tp, offset in offsets.items() if tp not in refused}, self._timeout)
        return refused

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        """Refused: this client can delete offsets only with the whole group."""
        raise RefusedError("Cannot delete single offsets in Kafka. Delete the group with kafka-consumer-groups.")

    def warnings(self) -> list[str]:
        return []

    def hold(self, group_id: str) -> None:
        """The store serves any number of workers."""

    def close(self) -> None:
        """Nothing to close: each request opens its own client."""


def _check(group_id: str) -> None:
    """Refuse a group id with leading white space.

    librdkafka strips it from a consumer's `group.id` but not from an admin request, so offsets would be written to one
    group and read from another.
    """
    if not group_id or group_id[0] in string.whitespace:
        raise RefusedError(
            f"Invalid group id {group_id!r} for the kafka store. It must start with a visible character."
        )
