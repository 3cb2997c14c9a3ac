"""Reads a range of one partition, independent of its consumers."""

import secrets

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.clock import Deadline
from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.kafka.config import client_config
from offsets.kafka.fetch_errors import FetchProblem, classify
from offsets.types import KafkaRecord, TopicPartition

POLL_SECONDS = 0.5
#: Without progress for this long, Kafka counts as unavailable.
SILENCE_SECONDS = 20.0


class OutOfRangeError(RefusedError):
    """The log no longer has the offset."""


class UnreadableError(RefusedError):
    """The log has the offset, and the client cannot read its records."""


class RangeReader:
    """A consumer that joins no group and commits nothing. Use it from one thread.

    Like the workers it reads `read_committed`, so records of aborted transactions are not delivered.
    """

    def __init__(self) -> None:
        self._consumer = Consumer(
            client_config()
            | {
                # Required by the client. The group is never joined, and nothing is committed to it.
                "group.id": f"replay-{secrets.token_hex(6)}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": False,
                # A corrupt batch must be an error: it is neither counted as it is nor passed over as a hole.
                "check.crcs": True,
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 16 * 1024,
            }
        )
        self._partition: TopicPartition | None = None
        self._next_offset = -1

    def read(self, tp: TopicPartition, start: int, end: int, max_records: int) -> tuple[list[KafkaRecord], int]:
        """Read records of `[start, end)`, from `start`. Returns them with the first offset that was not read.

        That is `end` once the range is complete, also if its last offsets have no record. Raises OutOfRangeError,
        UnreadableError, ServiceUnavailableError.
        """
        if tp != self._partition or start != self._next_offset:
            self._partition, self._next_offset = tp, start
            self._consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, start)])
        records: list[KafkaRecord] = []
        deadline = Deadline(SILENCE_SECONDS)
        said = ""
        while not deadline.expired:
            # Never request more records than the range can have: the client would wait for them until its timeout.
            for message in self._consumer.consume(min(max_records, end - start), POLL_SECONDS):
                if (error := message.error()) is None:
                    records.append(message)
                elif (problem := classify(error.code(), error.str())) is FetchProblem.RETRIED:
                    said = error.str()
                else:
                    return self._up_to_the_error(tp, records, end, error, problem)
            wanted = [record for record in records if record.offset() < end]
            upto = max(self._consumer_position(tp), records[-1].offset() + 1 if records else start)
            if wanted or upto > start:
                # Records past the end were dropped. If they are wanted later, they must be read again.
                self._next_offset = upto if len(wanted) == len(records) else -1
                return wanted, min(upto, end)
        raise ServiceUnavailableError(
            f"Kafka returned nothing of {tp} from offset {start:,} for {SILENCE_SECONDS:.0f} s"
            f"{f' ({said})' if said else ''}."
        )

    def _up_to_the_error(
        self, tp: TopicPartition, records: list[KafkaRecord], end: int, error: KafkaError, problem: FetchProblem
    ) -> tuple[list[KafkaRecord], int]:
        """The records before an error; without any, its exception. The position is past it, and is not used."""
        failed_at, self._partition = self._next_offset, None
        wanted = [record for record in records if record.offset() < end]
        if wanted:
            return wanted, min(records[-1].offset() + 1, end)
        if problem is FetchProblem.OUT_OF_RANGE:
            raise OutOfRangeError(f"{tp}: Kafka no longer has offset {failed_at:,}.")
        raise UnreadableError(f"{tp}: the client cannot read the records from offset {failed_at:,}: {error.str()}")

    def _consumer_position(self, tp: TopicPartition) -> int:
        """The consumer's position; -1001 before the first fetch."""
        return int(self._consumer.position([KafkaTopicPartition(tp.topic, tp.partition)])[0].offset)

    def close(self) -> None:
        self._consumer.close()
