"""Reads exactly a range of one partition, beside the group that consumes it."""

import secrets

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.clock import Deadline
from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.kafka.config import client_config
from offsets.types import KafkaRecord, TopicPartition

POLL_SECONDS = 0.5
#: Without a record, or any other progress, for this long Kafka counts as unavailable.
SILENCE_SECONDS = 20.0


class OutOfRangeError(RefusedError):
    """The log does not hold the offset any more."""


class RangeReader:
    """A consumer that joins no group: it commits nothing and causes no rebalance. Use it from one thread.

    `read_committed`, as the live workers read: what an aborted transaction wrote is never delivered.
    """

    def __init__(self) -> None:
        self._consumer = Consumer(
            client_config()
            | {
                # A consumer must name a group; it is never joined, and nothing is committed to it.
                "group.id": f"replay-{secrets.token_hex(6)}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": False,
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 16 * 1024,
            }
        )
        self._partition: TopicPartition | None = None
        self._position = -1

    def read(self, tp: TopicPartition, start: int, end: int, max_records: int) -> tuple[list[KafkaRecord], int]:
        """The records of `[start, end)` from `start` on, and the first offset that was not looked at.

        That is `end` once nothing is left, also where the last offsets hold no record. Raises OutOfRangeError,
        ServiceUnavailableError.
        """
        if tp != self._partition or start != self._position:
            self._partition, self._position = tp, start
            self._consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, start)])
        records: list[KafkaRecord] = []
        deadline = Deadline(SILENCE_SECONDS)
        while not deadline.expired:
            # Not more than there can be: asked for more, the client waits for them until its timeout.
            for message in self._consumer.consume(min(max_records, end - start), POLL_SECONDS):
                if (error := message.error()) is None:
                    records.append(message)
                elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    self._partition = None
                    raise OutOfRangeError(f"{tp}: Kafka does not have offset {self._position:,} any more.")
            wanted = [record for record in records if record.offset() < end]
            upto = max(self._position_of(tp), records[-1].offset() + 1 if records else start)
            if wanted or upto > start:
                # What was read past the end is read again, should it ever be wanted.
                self._position = upto if len(wanted) == len(records) else -1
                return wanted, min(upto, end)
        raise ServiceUnavailableError(
            f"Kafka returned no records of {tp} from offset {start:,} for {SILENCE_SECONDS:.0f} s."
        )

    def _position_of(self, tp: TopicPartition) -> int:
        """The consumer's position; before the first fetch there is none (-1001)."""
        return int(self._consumer.position([KafkaTopicPartition(tp.topic, tp.partition)])[0].offset)

    def close(self) -> None:
        self._consumer.close()
