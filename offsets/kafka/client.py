"""The Kafka consumer, reduced to what the pipeline uses. One thread owns it, because most calls block while
`consume()` runs.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.errors import OffsetsError, ServiceUnavailableError
from offsets.kafka.config import consumer_config
from offsets.kafka.fetch_errors import FetchProblem, classify
from offsets.kafka.metadata import metadata_of
from offsets.kafka.refusals import GroupRefusal
from offsets.types import KafkaRecord, Position, StoredOffset, TopicPartition

logger = logging.getLogger(__name__)

PartitionsCallback = Callable[[list[TopicPartition]], None]


class FatalClientError(OffsetsError):
    """The client cannot recover in this process: its static member was fenced, or a fatal protocol error occurred."""


@dataclass(frozen=True, slots=True)
class StartAt:
    """Where to start reading. With `leader_epoch` the broker can detect a truncated log."""

    offset: int
    leader_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of one `consume()`: records, and the client's words on the partitions that could not be read.

    Of a partition in `out_of_range` or `unreadable`, `records` holds only what came before its error.
    """

    records: Mapping[TopicPartition, list[KafkaRecord]]
    size: int
    #: Their position is outside of the log.
    out_of_range: Mapping[TopicPartition, str] = field(default_factory=dict)
    #: Their records cannot be read.
    unreadable: Mapping[TopicPartition, str] = field(default_factory=dict)
    #: The client asks again by itself.
    retried: Mapping[TopicPartition, str] = field(default_factory=dict)

    def stopped(self, tp: TopicPartition) -> bool:
        """Whether nothing after the records of this partition may be taken as read."""
        return tp in self.out_of_range or tp in self.unreadable


NOTHING = Fetched({}, 0)


class KafkaClient:
    """A group member with manual assignment.

    The callbacks run in `consume()` and `close()`, on the calling thread, and must not raise. `on_assign` must call
    `assign()` with the claimed partitions, even if there are none; otherwise librdkafka assigns all of them.
    """

    def __init__(self, group_id: str, client_id: str, instance_id: str = "") -> None:
        self._consumer = Consumer(
            consumer_config(group_id, client_id, instance_id)
            | {"error_cb": self._on_error, "on_commit": self._on_commit}
        )
        #: Called with the broker's answer to `commit`: the failed partitions with the reason.
        self.on_commit_answer: Callable[[dict[TopicPartition, str]], None] = lambda failed: None
        #: Why the broker refuses this consumer as a member of its group; empty once it has joined.
        self.group_refusal = GroupRefusal()
        self._fatal: str | None = None
        self._only_topic = ""

    def subscribe(
        self,
        topics: Iterable[str],
        *,
        on_assign: PartitionsCallback,
        on_revoke: PartitionsCallback,
        on_lost: PartitionsCallback,
    ) -> None:
        names = list(topics)
        self._only_topic = names[0] if len(names) == 1 else ""
        self._consumer.subscribe(
            names,
            on_assign=lambda _, partitions: self._joined(on_assign, partitions),
            on_revoke=lambda _, partitions: on_revoke(_ours(partitions)),
            on_lost=lambda _, partitions: on_lost(_ours(partitions)),
        )

    def _joined(self, on_assign: PartitionsCallback, partitions: list[KafkaTopicPartition]) -> None:
        self.group_refusal.joined()
        on_assign(_ours(partitions))

    def consume(self, max_records: int, timeout_seconds: float) -> Fetched:
        """Fetch records and run callbacks. Raises FatalClientError."""
        messages = self._consumer.consume(max_records, timeout_seconds)
        if self._fatal:
            raise FatalClientError(f"Fatal Kafka client error: {self._fatal}. Restart the worker.")
        if not messages:
            return NOTHING
        return self._by_partition(messages)

    def _by_partition(self, messages: Sequence[Message]) -> Fetched:
        """Group records by partition. Messages arrive in runs of one partition, so the list is looked up once per run.

        Calls per message dominate the cost of fetching, so the topic is read only if there are several.
        """
        records: dict[TopicPartition, list[KafkaRecord]] = {}
        errors: dict[FetchProblem, dict[TopicPartition, str]] = {problem: {} for problem in FetchProblem}
        topic = self._only_topic
        run: tuple[str, int] = ("", -1)
        left_out: list[KafkaRecord] = []
        append = left_out.append
        for message in messages:
            if (error := message.error()) is not None:
                problem = self._handle_error(error, message, errors)
                if problem is not FetchProblem.RETRIED:
                    run = ("", -1)  # the next record of this partition is looked up, and left out
                continue
            place = (topic or message.topic(), message.partition())
            if place != run:
                run = place
                tp = TopicPartition(*place)
                stopped = tp in errors[FetchProblem.OUT_OF_RANGE] or tp in errors[FetchProblem.UNREADABLE]
                append = (left_out if stopped else records.setdefault(tp, [])).append
            append(message)
        return Fetched(
            records,
            len(messages),
            errors[FetchProblem.OUT_OF_RANGE],
            errors[FetchProblem.UNREADABLE],
            errors[FetchProblem.RETRIED],
        )

    def _handle_error(
        self, error: KafkaError, message: Message, errors: Mapping[FetchProblem, dict[TopicPartition, str]]
    ) -> FetchProblem:
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise FatalClientError(f"Fatal Kafka client error: {error.str()}. Restart the worker.")
        topic, partition = message.topic(), message.partition()
        if topic is None and self.group_refusal.note(error):
            return FetchProblem.RETRIED
        problem = classify(error.code(), error.str())
        if topic is None or partition is None or partition < 0:
            # It concerns the subscription or the group, not one partition's log.
            logger.warning("Kafka: %s: %s", topic or "the group", error.str())
            return FetchProblem.RETRIED
        errors[problem].setdefault(TopicPartition(topic, partition), error.str())
        logger.warning("Kafka: %s-%s: %s", topic, partition, error.str())
        return problem

    def positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        """Current positions. Partitions without one, just after an assignment or seek, are omitted."""
        wanted = [KafkaTopicPartition(tp.topic, tp.partition) for tp in partitions]
        if not wanted:
            return {}
        return {
            TopicPartition(tp.topic, tp.partition): Position(tp.offset, tp.leader_epoch)
            for tp in self._consumer.position(wanted)
            if tp.offset >= 0
        }

    def assign(self, starts: Mapping[TopicPartition, StartAt]) -> None:
        """Add partitions to the assignment with explicit offsets, paused: `start` begins to read them."""
        self._consumer.incremental_assign([_theirs(tp, start) for tp, start in starts.items()])
        # Paused explicitly: the flag of an earlier assignment may have survived, or not.
        self.pause(starts)

    def start(self, tp: TopicPartition, start: StartAt) -> bool:
        """Begin to read a partition that was assigned in an earlier call. False if the client rejects it.

        The seek makes the broker compare `leader_epoch` with its log. An assignment alone does not: the client
        validates an epoch only where it does not know the partition's leader yet.
        """
        try:
            self._consumer.seek(_theirs(tp, start))
            self._consumer.resume([KafkaTopicPartition(tp.topic, tp.partition)])
        except KafkaException as error:
            logger.warning("Cannot start to read %s: %s. It is claimed again.", tp, error.args[0].str())
            return False
        return True

    def unassign(self, partitions: Iterable[TopicPartition], *, in_callback: bool = False) -> None:
        """Remove partitions from the assignment. Partitions that are not in it are ignored.

        A revoke or lost callback must call it even without partitions. Otherwise the client removes the callback's
        partitions itself, fails if they were removed before, and then blocks indefinitely.
        """
        assigned = self.assignment()
        removed = [KafkaTopicPartition(tp.topic, tp.partition) for tp in partitions if tp in assigned]
        if removed or in_callback:
            self._consumer.incremental_unassign(removed)

    def assignment(self) -> set[TopicPartition]:
        return set(_ours(self._consumer.assignment()))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._each(self._consumer.pause, partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._each(self._consumer.resume, partitions)

    @staticmethod
    def _each(change: Callable[[list[KafkaTopicPartition]], object], partitions: Iterable[TopicPartition]) -> None:
        """Change partitions one by one: librdkafka rejects a revoked one, and the others must still change."""
        for tp in partitions:
            with contextlib.suppress(KafkaException):
                change([KafkaTopicPartition(tp.topic, tp.partition)])

    def commit(self, offsets: Mapping[TopicPartition, StoredOffset]) -> None:
        """Commit as a group member without waiting. The answer arrives in a later `consume()`.

        A synchronous commit would have no timeout. Raises ServiceUnavailableError if the commit cannot be sent.
        """
        try:
            self._consumer.commit(
                offsets=[
                    KafkaTopicPartition(tp.topic, tp.partition, offset.next_offset, metadata=metadata_of(offset))
                    for tp, offset in offsets.items()
                ],
                asynchronous=True,
            )
        except KafkaException as error:
            raise ServiceUnavailableError(f"Cannot commit offsets to Kafka: {error.args[0].str()}.") from error

    def _on_commit(self, error: KafkaError | None, partitions: list[KafkaTopicPartition]) -> None:
        failed = {
            TopicPartition(tp.topic, tp.partition): failure.str()
            for tp in partitions
            if (failure := tp.error or error) is not None
        }
        self.on_commit_answer(failed)

    def close(self) -> None:
        """Leave the group. `on_revoke` is called for the assigned partitions."""
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = error.str()
        self.group_refusal.note(error)
        logger.debug("Kafka: %s", error.str())


def _ours(partitions: Iterable[KafkaTopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(tp.topic, tp.partition) for tp in partitions]


def _theirs(tp: TopicPartition, start: StartAt) -> KafkaTopicPartition:
    if start.leader_epoch is None:
        return KafkaTopicPartition(tp.topic, tp.partition, start.offset)
    return KafkaTopicPartition(tp.topic, tp.partition, start.offset, leader_epoch=start.leader_epoch)
