"""Translates Kafka's errors to ours."""

from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from offsets.errors import RefusedError, ServiceUnavailableError, TopicNotFoundError
from offsets.outages import Meaning


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


#: It responds and does not serve us: credentials, certificates or rights are missing. They may be given while we run.
_REFUSING = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


def meaning_of(error: KafkaError) -> Meaning:
    if error.code() in _REFUSING:
        return Meaning.REFUSING
    return Meaning.LOST if error.code() in _UNAVAILABLE or error.retriable() else Meaning.BUG


def translated(error: KafkaException) -> Exception:
    detail = error.args[0]
    if detail.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return TopicNotFoundError(detail.str())
    meaning = meaning_of(detail)
    if meaning.unavailable:
        what = "refuses requests" if meaning is Meaning.REFUSING else "is not available"
        return ServiceUnavailableError(f"Kafka {what}: {detail.str()}.")
    return RefusedError(f"Kafka rejected the request: {detail.str()}")


def result_of(future: "Future[Any]", timeout_seconds: float) -> Any:
    """Wait for the future's value. Raises ServiceUnavailableError, RefusedError, TopicNotFoundError."""
    try:
        return future.result(timeout=timeout_seconds + 1)
    except TimeoutError as error:
        raise ServiceUnavailableError(f"Kafka did not answer within {timeout_seconds:.0f} s.") from error
    except KafkaException as error:
        raise translated(error) from error
