"""Failed ranges are replayed, expired ones written off, replays sent again; services that are away are incidents."""

import io
import json
import signal
import time
import uuid
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from offsets import leases, tasks
from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import (
    Incident,
    JournalEntry,
    LedgerRange,
    LoopRun,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
    ReplayRange,
)
from offsets.recovery import assessments, repairs
from offsets.recovery.manager import RecoveryManager, Tick
from offsets.replays import requests
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_worker
from tests.support.processes import wait_for
from tests.support.recovery_manager import LEADS, Cluster, expire, open_kinds, ranges_of, supervised, timeline

pytestmark = pytest.mark.django_db


@supervised
@pytest.mark.parametrize(("hours_ago", "warns"), [(24 * 7 - 0.5, True), (24 * 7 - 1.5, False)])
def test_it_warns_of_what_kafka_deletes_soon_although_nobody_watched_it_for_so_long(
    stack: Any, sent: list[int], hours_ago: float, warns: bool
) -> None:
    name = f"retention-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 1, {"retention.ms": str(7 * 24 * 3600 * 1000)})
    wait_for("the topic", lambda: admin.describe_topics([name]))
    producer = Producer({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS})
    began = round((time.time() - hours_ago * 3600) * 1000)
    for number in range(10):
        producer.produce(name, b"x", timestamp=began if number < 5 else began + 3600_000 * 5)
    assert producer.flush(30) == 0
    checkpoint = make_checkpoint(topic=name, next_offset=0, desired_state="paused", owner=make_worker("w-1"))
    manager = RecoveryManager(GROUP, "A", dispatch=sent.append)

    manager.tick()

    assert [row.kind for row in Incident.objects.all()] == (["retention"] if warns else [])
    if warns:
        assert Incident.objects.get().ranges == [
            {"topic": name, "partition": 0, "kind": "unread", "start": 0, "end": 10}
        ]
        PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(next_offset=5, ledger_end=5)
        assert manager.tick().closed == [f"retention {name}-0"]


def make_failed(topic: str, **fields: Any) -> PartitionCheckpoint:
    """Of 40 offsets that were read, [10, 20) could not be applied, and are due."""
    topic_id = KafkaAdmin().describe_topic(topic).topic_id
    defaults: dict[str, Any] = {
        "topic": topic,
        "next_offset": 40,
        "topic_id": topic_id,
    }
    owner = make_worker(f"w-{uuid.uuid4().hex[:8]}")
    checkpoint = make_checkpoint(owner=owner, **(defaults | fields))
    make_range(checkpoint, 0, 10)
    make_range(checkpoint, 10, 20, "failed", retry_at=ago(1), detail="DataError: no")
    make_range(checkpoint, 20, 40)
    return checkpoint


@supervised
def test_failed_ranges_that_are_due_are_replayed_once(sent: list[int], topic: str) -> None:
    manager = RecoveryManager(GROUP, "A", dispatch=sent.append)  # with the real Kafka
    checkpoint = make_failed(topic)

    for _ in range(3):
        assert manager.tick().leading

    replay = Replay.objects.get()
    assert (replay.automatic, replay.username, replay.total_offsets) == (True, "auto:recovery-manager", 10)
    assert (replay.status, replay.action_id) == ("queued", None)
    only = ReplayRange.objects.get()
    assert (only.checkpoint_id, only.start, only.end) == (checkpoint.pk, 10, 20)
    assert sent == [replay.pk], "sent once, and not again before its time"
    expire(f"send-replay:{replay.pk}")
    manager.tick()
    assert sent == [replay.pk] * 2
    assert Replay.objects.count() == 1
    assert timeline(Incident.objects.get(kind="failed_ranges"))[-1] == (
        "manager",
        f"Started replay {replay.pk} of 10 failed offsets.",
    )
    assert not OperatorAction.objects.exists(), "what happens by itself again and again is in the journal"


@supervised
@pytest.mark.parametrize("retry_at", [None, ago(-3600)])
def test_failed_ranges_that_are_not_due_are_left_alone(
    manager: RecoveryManager, cluster: Cluster, sent: list[int], retry_at: Any
) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    make_range(checkpoint, 0, 990)
    make_range(checkpoint, 990, 1000, "failed", retry_at=retry_at)
    cluster.holds(0, 1000)
    manager.tick()
    assert not Replay.objects.exists()
    assert sent == []


@supervised
def test_a_partition_that_cannot_be_replayed_holds_up_no_other(sent: list[int], topic: str) -> None:
    manager = RecoveryManager(GROUP, "A", dispatch=sent.append)
    recreated = make_failed(topic, partition=0, topic_id="of the topic that was there before")
    checkpoint = make_failed(topic, partition=1)

    manager.tick()
    manager.tick()

    assert list(ReplayRange.objects.values_list("checkpoint_id", "start", "end")) == [(checkpoint.pk, 10, 20)]
    assert len(sent) == 1
    told = recreated.incidents.get(kind="failed_ranges").events
    assert not told.filter(text__contains="Started replay").exists()
    left_out = recreated.ranges.get(kind="failed")
    assert left_out.attempts == 1
    assert left_out.retry_at is not None
    assert left_out.retry_at > assessments.now(), "it is not asked for again at once"


@supervised
def test_a_replay_that_is_refused_is_tried_again_at_growing_intervals(sent: list[int], topic: str) -> None:
    """A topic that was recreated would be refused at every tick, for good."""
    manager = RecoveryManager(GROUP, "A", dispatch=sent.append)
    checkpoint = make_failed(topic, partition=0, topic_id="of the topic that was there before")
    failed, delays = checkpoint.ranges.get(kind="failed"), []
    for attempts in (1, 2, 3):
        manager.tick()
        manager.tick()  # nothing is due now

        failed.refresh_from_db()
        assert failed.attempts == attempts
        assert "the topic was deleted and created again" in failed.detail
        assert failed.retry_at is not None
        delays.append((failed.retry_at - assessments.now()).total_seconds())
        LedgerRange.objects.filter(pk=failed.pk).update(retry_at=ago(1))

    first, second, third = delays
    assert 0 < first < second < third
    LedgerRange.objects.filter(pk=failed.pk).update(retry_at=ago(1), attempts=django_settings.REPLAY_ATTEMPTS - 1)
    manager.tick()
    failed.refresh_from_db()
    assert failed.retry_at is None, "an operator decides now"
    manager.tick()
    assert Incident.objects.get(kind="failed_ranges").severity == "critical"
    assert not Replay.objects.exists()
    assert sent == []


@supervised
def test_a_replay_that_waits_for_kafka_costs_no_attempt_and_asks_ever_more_seldom(
    manager: RecoveryManager, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    make_range(checkpoint, 0, 990)
    make_range(checkpoint, 990, 1000, "failed", retry_at=ago(1))
    cluster.holds(0, 1000)
    cluster.partitions["engagement"] = (0,)
    asked, now = [], [0.0]

    def away(wanted: object) -> Any:
        asked.append(now[0])
        raise ServiceUnavailableError("No broker answers.")

    monkeypatch.setattr(requests, "logs_for", away)
    monkeypatch.setattr(repairs, "monotonic", lambda: now[0])

    for _ in range(200):
        manager.tick()
        now[0] += 1.0

    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert checkpoint.ranges.get(kind="failed").attempts == 0


@supervised
def test_failed_offsets_that_kafka_has_deleted_become_expired(manager: RecoveryManager, cluster: Cluster) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    make_range(checkpoint, 0, 100)
    make_range(checkpoint, 100, 200, "failed", retry_at=ago(-3600), detail="DataError: no", attempts=2)
    make_range(checkpoint, 200, 300)
    make_range(checkpoint, 300, 310, "failed", retry_at=None)
    make_range(checkpoint, 310, 1000)
    cluster.holds(150, 1000)

    manager.tick()

    assert ranges_of(checkpoint) == [
        (0, 100, "processed"),
        (100, 150, "expired"),
        (150, 200, "failed"),
        (200, 300, "processed"),
        (300, 310, "failed"),
        (310, 1000, "processed"),
    ]
    expired, left = LedgerRange.objects.filter(offsets__overlap=(100, 200)).order_by("offsets")
    assert expired.detail == "failed (DataError: no), then deleted by Kafka"
    assert (left.attempts, left.detail) == (2, "DataError: no")
    assert left.retry_at is not None
    cluster.holds(1000, 1000)
    manager.tick()
    assert {kind for _, _, kind in ranges_of(checkpoint)} == {"processed", "expired"}
    assert manager.tick().closed == ["failed_ranges engagement-0"]
    assert JournalEntry.objects.filter(kind="expired", level="error").count() == 3


@supervised
def test_an_orphaned_replay_is_told_and_sent_again(manager: RecoveryManager, sent: list[int]) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    replay = Replay.objects.create(group_id=GROUP, username="u", reason="r", status="running", started_at=ago(60))
    ReplayRange.objects.create(replay=replay, checkpoint=checkpoint, start=0, end=10, position=5)
    runner = leases.acquire(f"replay:{replay.pk}", "the process", 60)
    assert runner
    manager.tick()
    assert sent == []
    assert not Incident.objects.exists(), "somebody runs it"
    expire(f"replay:{replay.pk}")

    assert manager.tick().opened == [f"replay_orphaned replay {replay.pk}"]

    assert sent == [replay.pk]
    assert Incident.objects.get().severity == "warning"
    leases.acquire(f"replay:{replay.pk}", "another process", 60)
    assert manager.tick().closed == [f"replay_orphaned replay {replay.pk}"]
    assert sent == [replay.pk]


@supervised
def test_a_kafka_that_does_not_answer_is_an_incident_until_it_does(manager: RecoveryManager, cluster: Cluster) -> None:
    make_checkpoint(owner=make_worker("w-1"))
    cluster.error = ServiceUnavailableError("No broker answers.")
    assert manager.tick().opened == ["kafka_unavailable kafka"]
    first = Incident.objects.get()
    assert "No broker answers." in first.summary
    assert manager.tick().opened == []
    cluster.error = None
    assert manager.tick().closed == ["kafka_unavailable kafka"]


@supervised
def test_a_redis_that_does_not_answer_is_an_incident_until_it_does(
    manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RedisConnectionError("Connection refused.")

    with monkeypatch.context() as patch:
        patch.setattr(manager._watch._redis, "ping", refuse)
        assert manager.tick().opened == ["redis_unavailable redis"]
        assert manager.tick().leading, "work goes on without it"
    assert manager.tick().closed == ["redis_unavailable redis"]


@supervised
def test_the_real_services_answer_and_a_partition_that_is_new_is_seen(sent: list[int], topic: str) -> None:
    make_checkpoint(0, topic=topic, next_offset=50, owner=make_worker("w-1"))
    manager = RecoveryManager(GROUP, "A", dispatch=sent.append)
    assert manager.tick().statuses == {f"{topic}-0": "OK"}
    assert open_kinds() == {"partition_new": f"{topic}-1"}


def test_the_celery_task_is_one_tick_and_never_two_at_once(
    manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[str] = []

    class Stub:
        leadership = manager.leadership

        def tick(self) -> Tick:
            ticks.append("tick")
            tasks.recover()
            return Tick(leading=True)

    monkeypatch.setattr(tasks, "_manager", lambda group_id: Stub())
    tasks.recover()
    assert ticks == ["tick"]
    LoopRun.objects.update(started_at=ago(1))
    tasks.recover()
    assert ticks == ["tick"] * 2


def test_the_command_tells_one_tick_and_lets_a_standby_lead(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process's signals are the test run's
    make_checkpoint(halt_reason="expired", halted_at=ago(1))
    out = io.StringIO()

    call_command("run_recovery_manager", "--once", "--json", stdout=out)

    told = json.loads(out.getvalue())
    assert told["leading"] is True
    assert told["statuses"] == {"engagement-0": "HALTED"}
    assert told["opened"] == ["halted_expired engagement-0"]
    assert not leases.live([LEADS])
    out = io.StringIO()
    call_command("run_recovery_manager", "--once", stdout=out)
    assert "engagement-0: HALTED" in out.getvalue()


def test_a_deadlock_is_no_outage(manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def collide(*_: object) -> None:
        raise OperationalError("deadlock detected") from psycopg.errors.DeadlockDetected()

    with monkeypatch.context() as patched:
        patched.setattr(assessments, "store", collide)
        assert "deadlock" in manager.tick().trouble
    manager.tick()
    assert not Incident.objects.filter(kind="database_unavailable").exists()


def test_a_replay_that_no_process_takes_is_told(manager: RecoveryManager) -> None:
    make_checkpoint(owner=make_worker())
    replay = Replay.objects.create(group_id=GROUP, username="olga", reason="r", total_offsets=1)
    manager.tick()
    assert "replay_waiting" not in open_kinds()
    Replay.objects.filter(pk=replay.pk).update(created_at=ago(120))
    manager.tick()
    told = Incident.objects.get(kind="replay_waiting")
    assert f"replay_offsets --resume {replay.pk}" in told.summary
    Replay.objects.filter(pk=replay.pk).update(status="done", finished_at=ago(0))
    assert manager.tick().closed == [f"replay_waiting replay {replay.pk}"]
