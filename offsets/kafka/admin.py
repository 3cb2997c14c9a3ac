"""Queries to the cluster: topics, topic ids and log bounds, for all partitions in one request."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, OffsetSpec

from offsets.clock import monotonic
from offsets.cluster_facts import GroupMember
from offsets.errors import RefusedError, ServiceUnavailableError, TopicNotFoundError
from offsets.kafka.errors import code_of, result_of
from offsets.kafka.group_offsets import committed_offsets
from offsets.kafka.shared import admin_client, renew_admin_client
from offsets.types import TopicPartition

DEFAULT_TIMEOUT_SECONDS = 10.0
#: Whether an end has moved is not judged by an older one.
REMEMBERED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LogBounds:
    """`start` is the log start; `end` is the end that a read_committed reader can reach."""

    start: int
    end: int
    #: The newest leader epoch in the log; None: unknown, or the log is empty.
    leader_epoch: int | None = None
    #: The end with the records of open transactions; None where it was not asked.
    high_watermark: int | None = None


@dataclass(frozen=True, slots=True)
class TopicDescription:
    topic_id: str
    partitions: tuple[int, ...]
    #: Those that have no leader now: nobody can say what their logs hold.
    leaderless: frozenset[int] = frozenset()

    def is_readable(self, partition: int) -> bool:
        return partition in self.partitions and partition not in self.leaderless


class KafkaAdmin:
    """Cluster queries with one timeout, through the one admin client of the process, from any thread.

    Raises ServiceUnavailableError if the cluster does not answer in time.
    """

    def __init__(self, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._timeout = timeout_seconds
        #: Set after a query for a missing topic: later queries first check which topics exist.
        self._careful = False
        #: The ends of the last query with high watermarks, and when it was.
        self._last_ends: dict[TopicPartition, int] = {}
        self._last_asked_at = 0.0

    def describe_topics(
        self, topics: Iterable[str], *, timeout_seconds: float | None = None
    ) -> dict[str, TopicDescription]:
        """Describe those of `topics` that exist."""
        names = sorted(set(topics))
        if not names:
            return {}
        timeout = timeout_seconds or self._timeout
        client = admin_client()  # keep a reference: without one the futures never resolve
        futures = client.describe_topics(TopicCollection(names), request_timeout=timeout)
        descriptions = {}
        for name, future in futures.items():
            try:
                description = result_of(future, timeout)
            except TopicNotFoundError:
                continue
            partitions = tuple(sorted(p.id for p in description.partitions))
            leaderless = frozenset(p.id for p in description.partitions if p.leader is None or p.leader.id < 0)
            descriptions[name] = TopicDescription(str(description.topic_id), partitions, leaderless)
        return descriptions

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe one topic. Raises TopicNotFoundError with its name."""
        try:
            return self.describe_topics([topic])[topic]
        except KeyError:
            raise TopicNotFoundError(
                f"Topic {topic!r} does not exist in this cluster. Create it, or choose another with --topic."
            ) from None

    def partitions(self, topic: str) -> list[int]:
        return list(self.describe_topic(topic).partitions)

    def log_bounds(
        self, partitions: Iterable[TopicPartition], *, timeout_seconds: float | None = None
    ) -> dict[TopicPartition, LogBounds]:
        """Log bounds of the partitions, without those that do not exist or have no leader."""
        wanted = sorted(set(partitions))
        timeout = timeout_seconds or self._timeout
        if self._careful:
            wanted = self._readable(wanted, timeout)
        try:
            bounds = self._bounds(wanted, timeout)
        except ServiceUnavailableError:
            # One partition of a deleted topic or without a leader can make the whole query time out.
            known = self._readable(wanted, timeout)
            self._careful = len(known) < len(wanted)
            if not self._careful:
                raise
            return self._bounds(known, timeout)
        missing = [tp for tp in wanted if tp not in bounds]
        if missing and self._readable(missing, timeout) and renew_admin_client():
            # A client that has seen a topic deleted does not find it when it was created again.
            bounds |= self._bounds(missing, timeout)
        return bounds

    def log_bounds_and_watermarks(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, LogBounds]:
        """Log bounds, with the high watermarks of the partitions whose end has not moved since the last call.

        An open transaction holds the end, so an end that moves hides nothing for long: a busy topic costs no further
        request.
        """
        bounds = self.log_bounds(partitions)
        known = self._last_ends if monotonic() - self._last_asked_at < REMEMBERED_SECONDS else {}
        still = [tp for tp, log in bounds.items() if known.get(tp, log.end) == log.end]
        self._last_ends, self._last_asked_at = {tp: log.end for tp, log in bounds.items()}, monotonic()
        high = self.uncommitted_ends(still)
        return {tp: replace(log, high_watermark=high.get(tp)) for tp, log in bounds.items()}

    def _readable(self, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        described = self.describe_topics({tp.topic for tp in wanted}, timeout_seconds=timeout)
        return [tp for tp in wanted if tp.topic in described and described[tp.topic].is_readable(tp.partition)]

    def uncommitted_ends(
        self, partitions: Iterable[TopicPartition], *, timeout_seconds: float | None = None
    ) -> dict[TopicPartition, int]:
        """The ends of the logs with the records of open transactions."""
        wanted, timeout = sorted(set(partitions)), timeout_seconds or self._timeout
        ends = self._offsets(wanted, OffsetSpec.latest(), timeout, IsolationLevel.READ_UNCOMMITTED)
        return {tp: answer.offset for tp, answer in ends.items()}

    def _bounds(self, wanted: list[TopicPartition], timeout: float) -> dict[TopicPartition, LogBounds]:
        starts = self._offsets(wanted, OffsetSpec.earliest(), timeout)
        ends = self._offsets(wanted, OffsetSpec.latest(), timeout)
        return {
            tp: LogBounds(starts[tp].offset, ends[tp].offset, _epoch_of(ends[tp]))
            for tp in wanted
            if tp in starts and tp in ends
        }

    def offsets_for_time(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """The first offset at or after `timestamp_ms` in each partition; the log end if there is none."""
        wanted = sorted(set(partitions))
        found = self._offsets(wanted, OffsetSpec.for_timestamp(timestamp_ms), self._timeout)
        missing = [tp for tp, answer in found.items() if answer.offset < 0]
        ends = self._offsets(missing, OffsetSpec.latest(), self._timeout)
        return {tp: ends.get(tp, answer).offset for tp, answer in found.items()}

    def retention_seconds(self, topics: Iterable[str]) -> dict[str, float]:
        """The retention of each topic, without topics that have unlimited retention or are only compacted."""
        wanted = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in sorted(set(topics))]
        if not wanted:
            return {}
        retentions = {}
        client = admin_client()
        for resource, future in client.describe_configs(wanted, request_timeout=self._timeout).items():
            try:
                entries = result_of(future, self._timeout)
            except (TopicNotFoundError, RefusedError):
                continue
            retention = int(entries["retention.ms"].value)
            if retention >= 0 and "delete" in entries["cleanup.policy"].value:
                retentions[str(resource.name)] = retention / 1000
        return retentions

    def committed(self, group_id: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets that a consumer group has committed to Kafka, without partitions that have none."""
        committed = committed_offsets(group_id, set(partitions), self._timeout)
        return {tp: stored.next_offset for tp, stored in committed.items()}

    def group_members(self, group_id: str) -> list[GroupMember]:
        """The members of a consumer group with what they are assigned; none for a group that does not exist."""
        client = admin_client()
        future = client.describe_consumer_groups([group_id], request_timeout=self._timeout)[group_id]
        return [
            GroupMember(
                member.client_id,
                member.host,
                frozenset(TopicPartition(tp.topic, tp.partition) for tp in member.assignment.topic_partitions),
            )
            for member in result_of(future, self._timeout).members
        ]

    def create_topic(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Create a topic with the cluster's default replication. False if it already exists."""
        new = NewTopic(topic, num_partitions=partitions, config=dict(config or {}))
        client = admin_client()
        future = client.create_topics([new], request_timeout=self._timeout)[topic]
        try:
            result_of(future, self._timeout)
        except RefusedError as error:
            if isinstance(error.__cause__, KafkaException) and code_of(error.__cause__) == (
                KafkaError.TOPIC_ALREADY_EXISTS
            ):
                return False
            raise
        return True

    def _offsets(
        self,
        wanted: list[TopicPartition],
        spec: Any,
        timeout: float,
        isolation_level: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[TopicPartition, Any]:
        if not wanted:
            return {}
        client = admin_client()
        futures = client.list_offsets(
            {KafkaTopicPartition(tp.topic, tp.partition): spec for tp in wanted},
            isolation_level=isolation_level,
            request_timeout=timeout,
        )
        offsets = {}
        for tp, future in futures.items():
            try:
                offsets[TopicPartition(tp.topic, tp.partition)] = result_of(future, timeout)
            except (TopicNotFoundError, RefusedError):
                continue
        return offsets


def _epoch_of(answer: Any) -> int | None:
    epoch = answer.leader_epoch
    return epoch if epoch is not None and epoch >= 0 else None
