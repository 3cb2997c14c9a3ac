"""Translates Kafka's errors to ours."""

from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from offsets.errors import RefusedError, ServiceUnavailableError, TopicNotFoundError


def code_of(error: KafkaException) -> int:
    return int(error.args[0].code())


_UNAVAILABLE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
}


def translated(error: KafkaException) -> Exception:
    detail = error.args[0]
    if detail.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return TopicNotFoundError(detail.str())
    if detail.code() in _UNAVAILABLE or detail.retriable():
        return ServiceUnavailableError(f"Kafka is not available: {detail.str()}.")
    return RefusedError(f"Kafka rejected the request: {detail.str()}")


def result_of(future: "Future[Any]", timeout_seconds: float) -> Any:
    """Wait for the future's value. Raises ServiceUnavailableError, RefusedError, TopicNotFoundError."""
    try:
        return future.result(timeout=timeout_seconds + 1)
    except TimeoutError as error:
        raise ServiceUnavailableError(f"Kafka did not answer within {timeout_seconds:.0f} s.") from error
    except KafkaException as error:
        raise translated(error) from error
