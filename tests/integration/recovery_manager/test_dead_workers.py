"""Dead workers are fenced once their silence counts, and their slots freed."""

from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection, transaction

from offsets import leases, ledger
from offsets.errors import FencedError
from offsets.models import (
    Incident,
    JournalEntry,
    PartitionCheckpoint,
    Replay,
    Worker,
)
from offsets.monitoring import incidents
from offsets.recovery import leadership
from offsets.recovery.manager import RecoveryManager
from offsets.types import BatchStats, Claim, PartitionCommit
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_worker
from tests.support.recovery_manager import STACK, Cluster, expire, other_session, supervised, timeline

pytestmark = pytest.mark.django_db


def late_commit(checkpoint: PartitionCheckpoint) -> PartitionCommit:
    """What the checkpoint's owner has in hand now."""
    at = checkpoint.next_offset
    claim = Claim(checkpoint.pk, checkpoint.topic, checkpoint.partition, checkpoint.epoch, at)
    return PartitionCommit(claim, at, at + 5, BatchStats(5), (), None)


@supervised
def test_a_dead_worker_is_fenced_its_slot_freed_and_its_late_commit_refused(
    manager: RecoveryManager, cluster: Cluster
) -> None:
    slot = f"slot:{GROUP}:0"
    leases.acquire(slot, "task", 60)
    checkpoint = make_checkpoint(owner=make_worker("w-1", silent_for=60, slot=slot))
    bystander = make_checkpoint(1, owner=make_worker("w-2"))
    cluster.holds(0, 1500)
    commit = late_commit(checkpoint)
    with transaction.atomic():
        ledger.lock_for_commit([commit])  # nobody refuses it yet

    assert manager.tick().opened == ["worker_dead w-1"]

    checkpoint.refresh_from_db()
    assert (checkpoint.owner_id, checkpoint.epoch, checkpoint.epoch_cause) == (None, 4, "claim")
    with pytest.raises(FencedError, match="epoch 3 is stale"), transaction.atomic():
        ledger.lock_for_commit([commit])
    worker = Worker.objects.get(pk="w-1")
    assert worker.state == "stopped"
    assert worker.stopped_at is not None
    assert not leases.live([slot])
    bystander.refresh_from_db()
    assert (bystander.owner_id, bystander.epoch) == ("w-2", 3)
    incident = Incident.objects.get()
    assert (incident.severity, incident.worker_id) == ("critical", "w-1")
    assert incident.ranges == [{"topic": "engagement", "partition": 0, "kind": "unread", "start": 1000, "end": 1500}]
    assert incidents.seconds_to_detect(incident) >= 59
    assert timeline(incident)[-1] == (
        "manager",
        f"w-1 sent no heartbeat for {django_settings.HEARTBEAT_TIMEOUT_SECONDS} s; 1 partition fenced.",
    )
    assert JournalEntry.objects.filter(kind="worker_dead", level="error").count() == 1


@supervised
def test_a_death_is_over_when_others_own_what_it_left(manager: RecoveryManager) -> None:
    first = make_checkpoint(0, owner=make_worker("w-1", silent_for=60))
    second = make_checkpoint(1, owner=Worker.objects.get())
    make_worker("w-2")
    manager.tick()
    assert manager.tick().closed == []
    PartitionCheckpoint.objects.filter(pk=first.pk).update(owner="w-2")
    assert manager.tick().closed == []
    PartitionCheckpoint.objects.filter(pk=second.pk).update(owner="w-2")
    assert manager.tick().closed == ["worker_dead w-1"]
    assert JournalEntry.objects.filter(kind="worker_dead").count() == 1, "it died once"


@supervised
def test_a_death_that_leaves_nothing_behind_is_a_warning_and_soon_over(manager: RecoveryManager) -> None:
    make_worker("w-1", silent_for=60)
    assert manager.tick().opened == ["worker_dead w-1"]
    assert Incident.objects.get().severity == "warning"
    assert manager.tick().closed == ["worker_dead w-1"]


@supervised
def test_a_worker_that_speaks_in_the_last_moment_is_left_alone(
    manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = f"slot:{GROUP}:0"
    leases.acquire(slot, "task", 60)
    checkpoint = make_checkpoint(owner=make_worker("w-1", silent_for=60, slot=slot))
    reconcile = incidents.reconcile

    def speaks(*arguments: Any) -> Any:
        Worker.objects.update(heartbeat_at=ago(0))
        return reconcile(*arguments)

    monkeypatch.setattr(incidents, "reconcile", speaks)

    manager.tick()

    checkpoint.refresh_from_db()
    assert (checkpoint.owner_id, checkpoint.epoch) == ("w-1", 3)
    assert Worker.objects.get().state == "running"
    assert leases.live([slot])


@supervised
def test_a_slot_that_a_successor_runs_already_stays_its_own(manager: RecoveryManager) -> None:
    """The lease of a dead worker's slot runs out with its heartbeats: whoever holds it later is another."""
    slot = f"slot:{GROUP}:0"
    make_worker("w-1", silent_for=60, slot=slot, started_at=ago(600))
    make_worker("w-2", slot=slot)
    token = leases.acquire(slot, "the successor's task", 60)
    assert token

    manager.tick()

    assert Worker.objects.get(pk="w-1").state == "stopped"
    assert leases.renew(token, 60), "a healthy worker must not lose its slot"


@pytest.mark.django_db(transaction=True)
@supervised
def test_the_open_transaction_of_a_dead_worker_does_not_hold_it_back(manager: RecoveryManager, settings: Any) -> None:
    settings.CLAIM_LOCK_TIMEOUT_MS = 300
    checkpoint = make_checkpoint(owner=make_worker("w-1", silent_for=60))
    with other_session("w-1") as zombie:
        zombie.execute("SELECT 1 FROM offsets_partitioncheckpoint FOR UPDATE")
        manager.tick()
        with pytest.raises(psycopg.OperationalError):
            zombie.execute("SELECT 1")
    checkpoint.refresh_from_db()
    assert checkpoint.owner_id is None


@pytest.mark.django_db(transaction=True)
@supervised
def test_a_row_that_somebody_holds_delays_one_mending_and_nothing_else(
    manager: RecoveryManager, sent: list[int], settings: Any
) -> None:
    settings.CLAIM_LOCK_TIMEOUT_MS = 100
    held = make_checkpoint(0, owner=make_worker("w-1", silent_for=60))
    free = make_checkpoint(1, owner=make_worker("w-2", silent_for=60))
    stuck = make_worker("w-3", stage="committing engagement-2 [0, 5)", stage_seconds=45.0, stack=STACK)
    make_checkpoint(2, owner=stuck)
    replay = Replay.objects.create(group_id=GROUP, username="u", reason="r")
    with other_session() as other:
        other.execute("SELECT 1 FROM offsets_partitioncheckpoint WHERE partition IN (0, 2) FOR UPDATE")

        assert manager.tick().leading

        assert Worker.objects.get(pk="w-1").state == "running"
        assert Worker.objects.get(pk="w-3").evicted_at is None
        free.refresh_from_db()
        assert free.owner_id is None
        assert sent == [replay.pk]
    manager.tick()
    held.refresh_from_db()
    assert held.owner_id is None
    assert Worker.objects.get(pk="w-3").evicted_at is not None
    assert not Incident.objects.filter(kind="database_unavailable").exists()


def test_no_worker_is_dead_right_after_a_gap_in_the_ticks(manager: RecoveryManager) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1", silent_for=600))

    for _ in range(2):
        assert manager.tick().statuses == {"engagement-0": "OK"}

    checkpoint.refresh_from_db()
    assert checkpoint.owner_id == "w-1"
    assert Worker.objects.get().state == "running"
    assert not Incident.objects.exists()
    # One heartbeat timeout later it has still said nothing.
    expire(f"supervision-grace:{GROUP}")
    assert manager.tick().opened == ["worker_dead w-1"]


@pytest.mark.django_db(transaction=True)
@supervised
def test_no_worker_is_dead_right_after_the_database_was_away_and_the_outage_is_told(manager: RecoveryManager) -> None:
    make_checkpoint(owner=make_worker("w-1", silent_for=600))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with other_session() as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])

    missed = manager.tick()

    assert not missed.leading
    assert "PostgreSQL refuses requests: terminating connection" in missed.trouble
    after = manager.tick()
    assert after.leading
    assert after.statuses == {"engagement-0": "OK"}
    assert Worker.objects.get().state == "running"
    incident = Incident.objects.get()
    assert (incident.kind, incident.subject) == ("database_unavailable", "postgresql")
    assert incident.closed_at is not None
    assert incident.began_at <= incident.opened_at < incident.closed_at
    assert timeline(incident)[-1][1] == "It responds again; work has resumed."
    manager.tick()
    assert Incident.objects.count() == 1, "one outage, told once"
    expire(f"supervision-grace:{GROUP}")
    assert manager.tick().opened == ["worker_dead w-1"]


@pytest.mark.django_db(transaction=True)
def test_an_outage_is_as_long_as_all_the_ticks_that_missed_it(
    manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(leadership, "monotonic", lambda: now[0])
    manager.tick()
    with monkeypatch.context() as patch:

        def away(*_: Any) -> None:
            raise OperationalError("connection\nrefused")

        patch.setattr(leases, "acquire", away)
        manager.tick()
        now[0] += 30
        manager.tick()
    manager.tick()
    incident = Incident.objects.get()
    assert incident.closed_at is not None
    assert 30 <= (incident.closed_at - incident.began_at).total_seconds() < 60
    assert "connection refused" in incident.summary
