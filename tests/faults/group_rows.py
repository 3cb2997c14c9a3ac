"""Rows of the fault table about the group itself: members that are foreign or refused, topics that end."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer

from offsets.kafka.admin import KafkaAdmin
from offsets.models import Incident, PartitionCheckpoint, Worker
from offsets.types import RETIRED
from tests.faults.scene import DEADLINE, PARTITIONS, Row, Scene
from tests.support.processes import manage_json, wait_for

FOREIGN = "kafka-console-consumer"


@contextmanager
def foreign_member(scene: Scene, strategy: str) -> Iterator[None]:
    """Another program that uses the group's id, reads its topic, and counts nothing."""
    consumer = Consumer(
        {
            "bootstrap.servers": scene.env["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": scene.group,
            "client.id": FOREIGN,
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "partition.assignment.strategy": strategy,
        }
    )
    consumer.subscribe([scene.topic])
    stopping = threading.Event()

    def poll() -> None:
        while not stopping.is_set():
            consumer.consume(100, 0.2)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        wait_for("it holds partitions", lambda: _held_by_foreign(scene), DEADLINE)
        yield
    finally:
        stopping.set()
        thread.join(10)
        consumer.close()


def _held_by_foreign(scene: Scene) -> int:
    """How many partitions it has; as the broker says, because the client answers nothing while it consumes."""
    members = KafkaAdmin().group_members(scene.group)
    return sum(len(member.partitions) for member in members if member.client_id == FOREIGN)


def member_foreign(scene: Scene) -> Row:
    """It takes some of the partitions of a group that works."""
    scene.play()
    since = scene.now()
    with foreign_member(scene, "cooperative-sticky"):
        incident = scene.incident("foreign_member")
        assert FOREIGN in incident.summary, incident.summary
        assert "is not one of our workers. Stop it, or use another group." in incident.summary
        assert "run_consumer" not in incident.summary
        status = manage_json(scene.env, "offsets_status", "--group", scene.group)
        details = [row["status_detail"] for row in status["partitions"] if row["status"] == "UNOWNED"]
        assert details, status
        assert all(FOREIGN in detail for detail in details)
    return scene.row("foreign member of the group", since, incident, "counted once it had left")


def member_refused(scene: Scene) -> Row:
    """The group has another assignment strategy: Kafka refuses our workers until its member is gone."""
    with foreign_member(scene, "range"):
        since = scene.now()
        worker = scene.worker()
        scene.manager()
        incident = scene.incident("member_refused")
        assert incident.subject == scene.worker_of(worker).pk
        assert "Inconsistent group protocol" in incident.summary
        named = Incident.objects.filter(pk=incident.pk, summary__contains=FOREIGN)
        wait_for("the member is named", named.exists, DEADLINE)
        row = scene.worker_of(worker)
        assert "Inconsistent group protocol" in row.refusal
        assert "Inconsistent group protocol" in row.last_error
    result = scene.row("member refused by Kafka", since, incident, "joined once the other had left")
    assert not Worker.objects.get(pk=row.pk).refusal
    return result


def topic_deleted(scene: Scene) -> Row:
    """A topic is deleted on purpose: its incident ends when it is retired, and its counts stay."""
    scene.play()
    scene.finish()
    since = scene.now()
    scene.kafka.delete_topics([scene.topic])[scene.topic].result(10)
    admin = KafkaAdmin()
    wait_for("it is gone", lambda: not admin.describe_topics([scene.topic]))
    incident = scene.incident("topic_missing")
    assert f"retire_partitions --topic {scene.topic}" in incident.summary
    for worker in scene.workers:
        assert worker.end() == 0, worker.output()
    arguments = ("--group", scene.group, "--topic", scene.topic, "--execute", "--reason", "deleted on purpose")
    manage_json(scene.env, "retire_partitions", *arguments)
    result = scene.row("topic deleted, retired", since, incident, "counts kept")
    kept = PartitionCheckpoint.objects.filter(group_id=scene.group, retired_reason=RETIRED)
    assert kept.count() == PARTITIONS
    assert not scene.rows().exists()
    return result


ROWS: Sequence[Callable[[Scene], Row]] = (member_foreign, member_refused, topic_deleted)
