"""Errors of a consumer as a member of its group: which ones are a refusal, and when that ends."""

from typing import Any

import pytest
from confluent_kafka import KafkaError

from offsets.kafka import refusals
from offsets.kafka.client import FatalClientError, KafkaClient
from offsets.kafka.refusals import REPEATED_SECONDS, GroupRefusal

JOIN = "JoinGroup failed: Broker: Inconsistent group protocol"


class Message:
    """What `consume()` returns for an error."""

    def __init__(self, code: int, text: str = JOIN, topic: str | None = None) -> None:
        self._error, self._topic = KafkaError(code, text), topic

    def error(self) -> KafkaError:
        return self._error

    def topic(self) -> str | None:
        return self._topic

    def partition(self) -> int:
        return 0


@pytest.fixture
def client() -> Any:
    client = KafkaClient("group", "w-1")
    yield client
    client.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(refusals, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        (KafkaError.INCONSISTENT_GROUP_PROTOCOL, True),
        (KafkaError.INVALID_SESSION_TIMEOUT, True),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, True),
        (KafkaError.GROUP_MAX_SIZE_REACHED, True),
        (KafkaError.UNSUPPORTED_VERSION, True),
        (KafkaError.UNSUPPORTED_ASSIGNOR, True),
        (KafkaError.REBALANCE_IN_PROGRESS, False),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, False),
        (KafkaError._ALL_BROKERS_DOWN, False),
        (KafkaError._MAX_POLL_EXCEEDED, False),
    ],
)
def test_only_errors_that_waiting_does_not_end_are_refusals(client: Any, code: int, refused: bool) -> None:
    client._by_partition([Message(code)])

    assert client.group_refusal.text == (JOIN if refused else "")


def test_an_error_of_a_partition_is_none(client: Any) -> None:
    client._by_partition([Message(KafkaError.UNSUPPORTED_VERSION, topic="engagement")])

    assert client.group_refusal.text == ""


def test_it_ends_when_the_member_joins(client: Any) -> None:
    client._by_partition([Message(KafkaError.INVALID_SESSION_TIMEOUT)])
    assigned: list[Any] = []

    client._joined(assigned.append, [])

    assert (client.group_refusal.text, assigned) == ("", [[]])


def test_it_ends_when_the_client_stops_repeating_it(clock: list[float]) -> None:
    refusal = GroupRefusal()
    refusal.note(KafkaError(KafkaError.INCONSISTENT_GROUP_PROTOCOL, JOIN))
    clock[0] += REPEATED_SECONDS - 1
    refusal.note(KafkaError(KafkaError.INCONSISTENT_GROUP_PROTOCOL, JOIN))
    clock[0] += REPEATED_SECONDS
    assert refusal.text == JOIN
    clock[0] += 1

    assert refusal.text == ""


def test_what_the_client_says_once_stays_until_it_joins(clock: list[float]) -> None:
    refusal = GroupRefusal()
    text = "FindCoordinator response error: Group authorization failed."
    refusal.note(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, text))
    clock[0] += 3600
    assert refusal.text == text

    refusal.joined()

    assert refusal.text == ""


def test_a_fatal_error_ends_the_worker_also_as_a_message(client: Any) -> None:
    with pytest.raises(FatalClientError, match="The assignor is not supported"):
        client._by_partition([Message(KafkaError._FATAL, "The assignor is not supported")])
