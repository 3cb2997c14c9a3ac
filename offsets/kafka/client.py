"""The consumer, reduced to what the pipeline uses. One thread owns it: every method but `wakeup`-free reads waits
for a running `consume()`.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.errors import OffsetsError, ServiceUnavailableError
from offsets.kafka.config import consumer_config
from offsets.kafka.metadata import metadata_of
from offsets.types import KafkaRecord, StoredOffset, TopicPartition

logger = logging.getLogger(__name__)

PartitionsCallback = Callable[[list[TopicPartition]], None]


class FatalClientError(OffsetsError):
    """The client can never work again in this process (a fenced static member, a fatal protocol error)."""


@dataclass(frozen=True, slots=True)
class StartAt:
    """Where to begin reading; `leader_epoch` lets the broker notice a truncated log."""

    offset: int
    leader_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of one `consume()`. `out_of_range` are partitions whose position the log does not hold."""

    records: Mapping[TopicPartition, list[KafkaRecord]]
    out_of_range: frozenset[TopicPartition]
    size: int


NOTHING = Fetched({}, frozenset(), 0)


class KafkaClient:
    """A group member under manual assignment.

    The callbacks run inside `consume()` and `close()`, on the calling thread. They must not raise; `on_assign`
    must end in `assign()` with what was claimed (`{}` for nothing), or librdkafka assigns everything by itself.
    """

    def __init__(self, group_id: str, client_id: str, instance_id: str = "") -> None:
        self._consumer = Consumer(
            consumer_config(group_id, client_id, instance_id)
            | {"error_cb": self._on_error, "on_commit": self._on_commit}
        )
        #: Called with the broker's answer to `commit`: the partitions it did not take, with the reason.
        self.on_commit_answer: Callable[[dict[TopicPartition, str]], None] = lambda failed: None
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
            on_assign=lambda _, partitions: on_assign(_ours(partitions)),
            on_revoke=lambda _, partitions: on_revoke(_ours(partitions)),
            on_lost=lambda _, partitions: on_lost(_ours(partitions)),
        )

    def consume(self, max_records: int, timeout_seconds: float) -> Fetched:
        """Fetch, and serve callbacks. Raises FatalClientError."""
        messages = self._consumer.consume(max_records, timeout_seconds)
        if self._fatal:
            raise FatalClientError(f"The Kafka client failed permanently: {self._fatal}. Restart the worker.")
        if not messages:
            return NOTHING
        return self._sorted(messages)

    def _sorted(self, messages: Sequence[Message]) -> Fetched:
        """Records by partition. Messages come in runs of one partition, so look the list up once a run.

        The cost of fetching is calls per message: the topic is asked for only where there are several.
        """
        records: dict[TopicPartition, list[KafkaRecord]] = {}
        out_of_range: set[TopicPartition] = set()
        topic = self._only_topic
        run: tuple[str, int] = ("", -1)
        unplaced: list[KafkaRecord] = []
        append = unplaced.append
        for message in messages:
            if (error := message.error()) is not None:
                self._sort_error(error, message, out_of_range)
                continue
            place = (topic or message.topic(), message.partition())
            if place != run:
                run = place
                append = records.setdefault(TopicPartition(*place), []).append
            append(message)
        return Fetched(records, frozenset(out_of_range), len(messages))

    def _sort_error(self, error: KafkaError, message: Message, out_of_range: set[TopicPartition]) -> None:
        if error.fatal():
            raise FatalClientError(f"The Kafka client failed permanently: {error.str()}. Restart the worker.")
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            out_of_range.add(TopicPartition(message.topic(), message.partition()))
        else:
            logger.warning("Kafka: %s-%s: %s", message.topic(), message.partition(), error.str())

    def positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Valid positions only: right after an assignment or a seek there is none (-1001)."""
        asked = [KafkaTopicPartition(tp.topic, tp.partition) for tp in partitions]
        if not asked:
            return {}
        return {
            TopicPartition(tp.topic, tp.partition): tp.offset for tp in self._consumer.position(asked) if tp.offset >= 0
        }

    def assign(self, starts: Mapping[TopicPartition, StartAt]) -> None:
        """Add to the assignment with explicit offsets."""
        self._consumer.incremental_assign([_theirs(tp, start) for tp, start in starts.items()])

    def unassign(self, partitions: Iterable[TopicPartition], *, in_callback: bool = False) -> None:
        """Remove from the assignment; partitions that are not in it are ignored.

        In a revoke or lost callback it must be called even for nothing: otherwise the client removes what the callback
        named, fails where that was removed before, and waits without end for a call that never comes.
        """
        assigned = self.assignment()
        gone = [KafkaTopicPartition(tp.topic, tp.partition) for tp in partitions if tp in assigned]
        if gone or in_callback:
            self._consumer.incremental_unassign(gone)

    def assignment(self) -> set[TopicPartition]:
        return set(_ours(self._consumer.assignment()))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._each(self._consumer.pause, partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._each(self._consumer.resume, partitions)

    @staticmethod
    def _each(change: Callable[[list[KafkaTopicPartition]], object], partitions: Iterable[TopicPartition]) -> None:
        """A partition that was revoked meanwhile makes librdkafka refuse; the rest must still change."""
        for tp in partitions:
            with contextlib.suppress(KafkaException):
                change([KafkaTopicPartition(tp.topic, tp.partition)])

    def commit(self, offsets: Mapping[TopicPartition, StoredOffset]) -> None:
        """Commit to the group as its member, without waiting: the answer comes with a later `consume()`.

        A synchronous commit has no timeout. Raises ServiceUnavailableError when it cannot even be sent.
        """
        try:
            self._consumer.commit(
                offsets=[
                    KafkaTopicPartition(tp.topic, tp.partition, stored.next_offset, metadata=metadata_of(stored))
                    for tp, stored in offsets.items()
                ],
                asynchronous=True,
            )
        except KafkaException as error:
            raise ServiceUnavailableError(f"Kafka took no offsets: {error.args[0].str()}.") from error

    def _on_commit(self, error: KafkaError | None, partitions: list[KafkaTopicPartition]) -> None:
        failed = {
            TopicPartition(tp.topic, tp.partition): why.str()
            for tp in partitions
            if (why := tp.error or error) is not None
        }
        self.on_commit_answer(failed)

    def close(self) -> None:
        """Leave the group; `on_revoke` runs for what is still assigned."""
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = error.str()
        logger.debug("Kafka: %s", error.str())


def _ours(partitions: Iterable[KafkaTopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(tp.topic, tp.partition) for tp in partitions]


def _theirs(tp: TopicPartition, start: StartAt) -> KafkaTopicPartition:
    if start.leader_epoch is None:
        return KafkaTopicPartition(tp.topic, tp.partition, start.offset)
    return KafkaTopicPartition(tp.topic, tp.partition, start.offset, leader_epoch=start.leader_epoch)
