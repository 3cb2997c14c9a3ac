"""What an error that the client delivers in place of a record means for its partition."""

import enum
import re

from confluent_kafka import KafkaError


class FetchProblem(enum.Enum):
    """How the error of one partition is handled."""

    #: The log does not hold the position.
    OUT_OF_RANGE = enum.auto()
    #: The records at the position cannot be read: asking again brings the same, or skips them.
    UNREADABLE = enum.auto()
    #: The client asks again at the same offset and goes on by itself; nothing is skipped meanwhile.
    RETRIED = enum.auto()


_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE}
_RETRIED = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._AUTHENTICATION,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._PARTITION_EOF,
    KafkaError._RESOLVE,
    KafkaError._SSL,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.THROTTLING_QUOTA_EXCEEDED,
    # The topic watch compares topic ids, and halts what was recreated.
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
#: librdkafka reports a failed check of the leader epoch with the code of an offset out of range.
_NOT_VALIDATED = "Unable to validate offset and epoch"
_TRUNCATION = re.compile(r"log truncation detected", re.IGNORECASE)
_BROKER_END = re.compile(r"broker end offset is (\d+)")


def classify(code: int, text: str) -> FetchProblem:
    """Whatever is not known to be retried makes the partition unreadable: a gap must never look like a Kafka hole."""
    if code in _OUT_OF_RANGE:
        return FetchProblem.UNREADABLE if _NOT_VALIDATED in text else FetchProblem.OUT_OF_RANGE
    return FetchProblem.RETRIED if code in _RETRIED else FetchProblem.UNREADABLE


def tells_truncation(text: str) -> bool:
    """Whether the client says that the broker's log diverges from what was read."""
    return bool(_TRUNCATION.search(text))


def divergence_in(text: str) -> int | None:
    """The first offset at which the broker's log differs from what was read, if the client names it."""
    match = _BROKER_END.search(text) if tells_truncation(text) else None
    return int(match.group(1)) if match else None
