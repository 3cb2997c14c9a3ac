"""Both ends of a real log: what an open transaction hides, and what Kafka deleted, are told as such."""

import json
import uuid
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from analytics.dashboard.read_model import Dashboard
from offsets.kafka.admin import KafkaAdmin
from offsets.models import Incident, LagSample, PartitionCheckpoint
from offsets.monitoring import lag_samples
from offsets.recovery.manager import RecoveryManager
from offsets.types import TopicPartition
from tests.support.page_rows import make_checkpoint, make_worker
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

COMMITTED = 50
HIDDEN = 30


def servers() -> dict[str, Any]:
    return {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS}


@pytest.fixture
def place(stack: Any) -> TopicPartition:
    """A real partition with fifty committed records."""
    name = f"ends-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 1)
    wait_for("the topic", lambda: admin.describe_topics([name]))
    append(name, COMMITTED)
    return TopicPartition(name, 0)


def append(topic: str, records: int) -> None:
    producer = Producer(servers())
    for number in range(records):
        producer.produce(topic, str(number).encode(), partition=0)
    assert producer.flush(30) == 0


@pytest.fixture
def transaction(place: TopicPartition) -> Iterator[Producer]:
    """A transaction that is open, with thirty records."""
    producer = Producer({**servers(), "transactional.id": place.topic, "transaction.timeout.ms": 120_000})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(HIDDEN):
        producer.produce(place.topic, str(number).encode(), partition=0)
    producer.flush(30)
    yield producer
    producer.abort_transaction(30)


def caught_up(place: TopicPartition) -> PartitionCheckpoint:
    return make_checkpoint(
        0, topic=place.topic, group_id=place.topic, next_offset=COMMITTED, owner=make_worker(group_id=place.topic)
    )


def status_of(group: str) -> dict[str, Any]:
    out = StringIO()
    call_command("offsets_status", "--group", group, "--json", stdout=out)
    shown: dict[str, Any] = json.loads(out.getvalue())
    return shown


def make_older(seconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE offsets_lagsample SET sampled_at = sampled_at - make_interval(secs => %s)", [seconds])


def test_an_open_transaction_is_named_and_is_no_lag(place: TopicPartition, transaction: Producer) -> None:
    checkpoint = caught_up(place)
    bounds = KafkaAdmin().log_bounds_and_watermarks([place])
    assert (bounds[place].start, bounds[place].end, bounds[place].high_watermark) == (0, COMMITTED, COMMITTED + HIDDEN)
    lag_samples.sample(place.topic, bounds)
    make_older(70)
    manager = RecoveryManager(place.topic, "A", dispatch=lambda _: None)

    tick = manager.tick()

    assert tick.statuses == {f"{place.topic}-0": "OPEN TRANSACTION"}
    incident = Incident.objects.get(group_id=place.topic, kind="open_transaction")
    assert (incident.severity, incident.checkpoint_id) == ("warning", checkpoint.pk)
    assert incident.summary.startswith(f"{HIDDEN} records of {place.topic}-0 wait behind a transaction")
    shown = status_of(place.topic)
    assert shown["worst_status"] == "OPEN TRANSACTION"
    assert f"{HIDDEN} records wait behind an open transaction." in shown["headline"]
    (row,) = shown["partitions"]
    assert (row["lag"], row["high_watermark"], row["open_transaction_records"]) == (0, COMMITTED + HIDDEN, HIDDEN)
    assert row["status_detail"].startswith(f"Waiting for an open transaction: {HIDDEN} records since ")
    assert shown["advice"] == f"{place.topic}-0: {row['status_detail']}"

    transaction.commit_transaction(30)
    wait_for("it can be read", lambda: KafkaAdmin().log_bounds([place])[place].end > COMMITTED)
    transaction.begin_transaction()  # for the fixture to end
    manager.tick()

    incident.refresh_from_db()
    assert incident.closed_at is not None
    (row,) = status_of(place.topic)["partitions"]
    assert row["open_transaction_records"] == 0
    assert row["lag"] == HIDDEN + 1, "with the marker of the transaction"


def test_only_an_end_that_stands_still_costs_a_further_request(
    place: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = KafkaAdmin()
    asked: list[int] = []
    query = admin._offsets

    def counted(wanted: list[TopicPartition], *rest: Any) -> dict[TopicPartition, int]:
        asked.append(len(wanted))
        return query(wanted, *rest)

    monkeypatch.setattr(admin, "_offsets", counted)

    assert admin.log_bounds_and_watermarks([place])[place].high_watermark == COMMITTED
    append(place.topic, 5)
    moved = admin.log_bounds_and_watermarks([place])[place]
    assert (moved.end, moved.high_watermark) == (COMMITTED + 5, None)
    assert admin.log_bounds_and_watermarks([place])[place].high_watermark == COMMITTED + 5
    assert asked == [1, 1, 1, 1, 1, 0, 1, 1, 1]


def test_what_kafka_deleted_while_nobody_read_is_lost_and_no_lag(place: TopicPartition) -> None:
    make_checkpoint(0, topic=place.topic, group_id=place.topic, next_offset=10)
    client = AdminClient(servers())
    next(iter(client.delete_records([KafkaTopicPartition(place.topic, 0, COMMITTED)]).values())).result(10)

    RecoveryManager(place.topic, "A", dispatch=lambda _: None).tick()

    assert LagSample.objects.latest("pk").log_start_offset == COMMITTED
    incident = Incident.objects.get(group_id=place.topic, kind="retention")
    assert incident.summary.startswith(f"40 offsets of {place.topic}-0 lost so far: Kafka deleted them")
    assert "starts deleting" not in incident.summary
    assert incident.ranges == [{"topic": place.topic, "partition": 0, "kind": "expired", "start": 10, "end": COMMITTED}]
    shown = status_of(place.topic)
    (row,) = shown["partitions"]
    assert (row["lag"], row["lag_seconds"], row["lost_offsets"], row["status"]) == (0, 0.0, 40, "UNOWNED")
    assert "40 offsets lost so far" in row["status_detail"]
    assert "Lag 0 (0.0 s). 40 offsets lost: deleted by Kafka before they were read." in shown["headline"]
    assert Dashboard(place.topic).snapshot()["lag"] == 0
