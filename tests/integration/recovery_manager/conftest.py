"""Fixtures of the tests of the recovery manager."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from django.conf import settings as django_settings

from offsets import leases
from offsets.kafka.admin import KafkaAdmin
from offsets.recovery import services
from offsets.recovery.manager import RecoveryManager
from tests.support.page_rows import GROUP
from tests.support.processes import wait_for
from tests.support.recovery_manager import Cluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Stands in for Kafka where its answers are the test's matter, and not how they are got."""
    found = Cluster()
    monkeypatch.setattr(services, "KafkaAdmin", lambda timeout_seconds: found)
    return found


@pytest.fixture
def sent() -> list[int]:
    """Replays that were given to a worker."""
    return []


@pytest.fixture
def make(cluster: Cluster, sent: list[int]) -> Callable[..., RecoveryManager]:
    def made(holder: str = "A") -> RecoveryManager:
        return RecoveryManager(GROUP, holder, dispatch=sent.append)

    return made


@pytest.fixture
def manager(make: Callable[..., RecoveryManager]) -> RecoveryManager:
    return make()


@pytest.fixture
def _supervised(db: None) -> None:
    """Somebody has ticked until this moment: silence may be held against workers."""
    leases.acquire(f"supervision:{GROUP}", "manager", 60)


@pytest.fixture
def topic(stack: Any) -> str:
    """A real topic of two partitions with 50 records in each."""
    name = f"manager-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 2)
    wait_for("the topic", lambda: admin.describe_topics([name]))
    producer = Producer({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in range(100):
        producer.produce(name, str(number).encode(), partition=number % 2)
    assert producer.flush(30) == 0
    return name
