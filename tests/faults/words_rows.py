"""Rows of the fault table about what is told: an open transaction, and a clock that is set back."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Producer
from django.db import connection

from tests.faults.scene import Row, Scene
from tests.support.processes import manage_json, wait_for

HIDDEN = 100


def _status(scene: Scene, partition: int) -> dict[str, Any]:
    shown = manage_json(scene.env, "offsets_status", "--group", scene.group)["partitions"]
    return next(row for row in shown if row["partition"] == partition)


def open_transaction(scene: Scene) -> Row:
    """A producer writes and neither commits nor aborts; what others write after it cannot be read, either."""
    scene.env |= {"ALLOWED_LAG_SECONDS": "2", "OPEN_TRANSACTION_WARN_SECONDS": "3"}
    scene.play()
    producer = Producer(
        {
            "bootstrap.servers": scene.env["KAFKA_BOOTSTRAP_SERVERS"],
            "transactional.id": scene.topic,
            "transaction.timeout.ms": 180_000,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    since = scene.now()
    for _ in range(HIDDEN):
        producer.produce(scene.topic, b"never committed", partition=0)
    producer.flush(30)
    incident = scene.incident("open_transaction", f"{scene.topic}-0")
    shown = wait_for(
        "it has read all that it can",
        lambda: (row := _status(scene, 0))["status"] == "OPEN TRANSACTION" and row,
    )
    hidden = shown["open_transaction_records"]
    assert hidden >= HIDDEN
    assert shown["open_transaction_since"]
    producer.abort_transaction(30)
    row = scene.row(
        "open transaction hides records", since, incident, f"{hidden:,} hidden, then read; aborted ones not"
    )
    assert _status(scene, 0)["open_transaction_records"] == 0
    return row


_AN_HOUR_AHEAD = (
    "UPDATE offsets_lagsample SET sampled_at = sampled_at + interval '1 hour' WHERE checkpoint_id = ANY(%(ids)s)",
    "UPDATE offsets_partitionhealth SET assessed_at = assessed_at + interval '1 hour',"
    " since = since + interval '1 hour' WHERE checkpoint_id = ANY(%(ids)s)",
    "UPDATE offsets_worker SET heartbeat_at = heartbeat_at + interval '1 hour' WHERE group_id = %(group)s",
    "UPDATE offsets_lease SET expires_at = expires_at + interval '1 hour' WHERE strpos(name, %(group)s) > 0",
    "UPDATE offsets_partitioncheckpoint SET committed_at = committed_at + interval '1 hour',"
    " claimed_at = claimed_at + interval '1 hour' WHERE id = ANY(%(ids)s)",
)


def clock_set_back(scene: Scene) -> Row:
    """The database's clock is set back an hour, which leaves all that was noted an hour ahead; a worker dies then."""
    scene.play()
    victim = scene.worker_of(scene.workers[0])
    since = scene.now()
    os.kill(victim.process_id, signal.SIGKILL)
    values: dict[str, Any] = {"group": scene.group, "ids": list(scene.rows().values_list("pk", flat=True))}
    with connection.cursor() as cursor:
        for statement in _AN_HOUR_AHEAD:
            cursor.execute(statement, values)
    incident = scene.incident("worker_dead", victim.pk)
    row = scene.row("database clock set back an hour", since, incident, "with a worker SIGKILL; the dead one is found")
    for partition in range(scene.rows().count()):
        shown = _status(scene, partition)
        assert (shown["log_end_offset"], shown["lag"], shown["status"]) == (shown["next_offset"], 0, "OK")
    return row


ROWS: Sequence[Callable[[Scene], Row]] = (open_transaction, clock_set_back)
