"""Fixtures of the tests of the API."""

import uuid
from typing import Any

import pytest
from confluent_kafka import Producer
from django.conf import settings as django_settings
from django.test import Client

from analytics.processor import EngagementProcessor
from offsets.kafka.admin import KafkaAdmin
from offsets.models import (
    DeadLetter,
    PartitionCheckpoint,
)
from tests.support.api import client_of, make_letter
from tests.support.page_rows import make_checkpoint, make_range
from tests.support.processes import wait_for


@pytest.fixture
def operator() -> Client:
    return client_of("olga", "operator")


@pytest.fixture
def viewer() -> Client:
    return client_of("victor", "viewer")


@pytest.fixture
def topic(stack: Any) -> str:
    """A real topic with 50 records."""
    name = f"api-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 1)
    wait_for("the topic", lambda: admin.describe_topics([name]))
    producer = Producer({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in range(50):
        producer.produce(name, str(number).encode())
    assert producer.flush(30) == 0
    return name


@pytest.fixture
def failed(topic: str) -> PartitionCheckpoint:
    """Of 40 offsets, [10, 20) failed and [30, 35) were skipped."""
    topic_id = KafkaAdmin().describe_topic(topic).topic_id
    checkpoint = make_checkpoint(topic=topic, topic_id=topic_id, next_offset=40)
    for start, end, kind in ((0, 10, "processed"), (10, 20, "failed"), (20, 30, "processed"), (30, 35, "skipped")):
        make_range(checkpoint, start, end, kind)
    make_range(checkpoint, 35, 40)
    return checkpoint


@pytest.fixture
def lettered() -> list[DeadLetter]:
    """Two letters that could be counted now, and one that could not."""
    dimensions = list(EngagementProcessor().dimensions)
    checkpoint = make_checkpoint(3, dimensions=dimensions)
    make_range(checkpoint, 0, 1000, records=997, failed_records=3)
    return [
        make_letter(checkpoint, 5),
        make_letter(checkpoint, 6, value=b"<b>nonsense", error_code="not_json"),
        make_letter(checkpoint, 7),
    ]
