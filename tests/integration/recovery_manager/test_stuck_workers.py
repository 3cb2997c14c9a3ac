"""Stuck workers are evicted; a place where workers get stuck again and again is paused."""

import threading
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from offsets import leases, workers
from offsets.actions import automatic, eviction
from offsets.models import (
    Incident,
    OperatorAction,
    PartitionCheckpoint,
    PartitionHealth,
    Worker,
)
from offsets.monitoring import incidents
from offsets.recovery import repairs
from offsets.recovery.manager import RecoveryManager
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_worker
from tests.support.processes import wait_for
from tests.support.recovery_manager import STACK, Cluster, open_kinds, other_session, supervised, timeline

pytestmark = pytest.mark.django_db


def make_stuck(worker_id: str, checkpoint: PartitionCheckpoint, *, end: int = 1200, **fields: Any) -> Worker:
    """A worker that owns the checkpoint, and does not come back from its next batch."""
    stage = f"decoding engagement-{checkpoint.partition} [{checkpoint.next_offset}, {end})"
    worker = make_worker(worker_id, stage=stage, stage_seconds=45.0, stack=STACK, **fields)
    PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(owner=worker)
    return worker


@supervised
def test_a_stuck_worker_is_evicted_and_its_stack_kept(manager: RecoveryManager, cluster: Cluster) -> None:
    slot = f"slot:{GROUP}:0"
    leases.acquire(slot, "task", 60)
    checkpoint = make_checkpoint()
    make_stuck("w-1", checkpoint, slot=slot)
    cluster.holds(0, 5000)

    assert manager.tick().opened == ["worker_stuck w-1"]

    worker = Worker.objects.get()
    assert worker.stop_requested
    assert worker.evicted_at is not None
    checkpoint.refresh_from_db()
    assert (checkpoint.owner_id, checkpoint.epoch, checkpoint.epoch_cause) == (None, 4, "action")
    assert checkpoint.desired_state == "running"
    assert not leases.live([slot])
    action = OperatorAction.objects.get()
    assert (action.kind, action.outcome, action.username) == ("evict", "applied", "auto:recovery-manager")
    assert (action.source, action.reason) == ("automatic", f"stuck {worker.stage} for 45 s")
    assert action.before == {"owned": [f"{GROUP} engagement-0"], "stage": worker.stage}
    incident = Incident.objects.get()
    assert incident.evidence == STACK
    assert incidents.seconds_to_detect(incident) >= 45
    assert timeline(incident)[-1] == ("manager", f"Evicted by auto:recovery-manager: {action.reason}")
    # It cannot hear: nothing more is done, and nothing more is audited.
    manager.tick()
    assert OperatorAction.objects.count() == 1
    workers.mark_stopped("w-1")
    assert manager.tick().closed == ["worker_stuck w-1"]


@supervised
def test_a_stuck_worker_stays_where_eviction_is_off(manager: RecoveryManager, settings: Any) -> None:
    settings.EVICT_STUCK_WORKERS = False
    make_stuck("w-1", make_checkpoint())
    assert manager.tick().opened == ["worker_stuck w-1"]
    assert Worker.objects.get().evicted_at is None
    assert not OperatorAction.objects.exists()


@supervised
def test_a_place_where_worker_after_worker_gets_stuck_is_paused(manager: RecoveryManager, cluster: Cluster) -> None:
    checkpoint, other = make_checkpoint(0), make_checkpoint(1)
    cluster.holds(0, 9000)
    for number in range(1, repairs.STUCK_AT_ONE_PLACE):
        # More has arrived meanwhile: a batch from the same place ends somewhere else.
        make_stuck(f"w-{number}", checkpoint, end=1200 + number)
        make_stuck(f"other-{number}", other)
        manager.tick()
        workers.mark_stopped(f"w-{number}")
        workers.mark_stopped(f"other-{number}")
        PartitionCheckpoint.objects.filter(pk=other.pk).update(next_offset=1000 + number, ledger_end=1000 + number)
        other.refresh_from_db()
    states = PartitionCheckpoint.objects.order_by("partition").values_list("desired_state", flat=True)
    assert list(states) == ["running", "running"]
    make_stuck("w-9", checkpoint, end=3000)
    make_stuck("other-9", other)

    manager.tick()

    assert list(states.all()) == ["paused", "running"], "the other one got on each time"
    assert Worker.objects.get(pk="w-9").evicted_at is not None
    checkpoint.refresh_from_db()
    assert checkpoint.owner_id is None
    pause = OperatorAction.objects.get(kind="pause")
    assert (pause.username, pause.source) == ("auto:circuit-breaker", "automatic")
    assert pause.reason == "3 workers got stuck at the same offset: decoding engagement-0 [1000, 3000)"
    make_worker("w-10")
    PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(owner="w-10")
    manager.tick()
    assert Incident.objects.get(kind="circuit_breaker").subject == "engagement-0"


@supervised
def test_a_place_is_not_paused_for_a_worker_that_is_stuck_elsewhere(manager: RecoveryManager) -> None:
    here, elsewhere = make_checkpoint(0), make_checkpoint(1)
    for number in range(repairs.STUCK_AT_ONE_PLACE - 1):
        make_stuck(f"w-{number}", here)
        manager.tick()
        workers.mark_stopped(f"w-{number}")
    both = make_stuck("w-9", elsewhere)
    PartitionCheckpoint.objects.filter(pk=here.pk).update(owner=both)

    manager.tick()

    assert Worker.objects.get(pk="w-9").evicted_at is not None
    assert set(PartitionCheckpoint.objects.values_list("desired_state", flat=True)) == {"running"}


@pytest.mark.django_db(transaction=True)
@supervised
def test_a_place_is_paused_although_its_stuck_worker_holds_the_row(manager: RecoveryManager, settings: Any) -> None:
    settings.CLAIM_LOCK_TIMEOUT_MS = 500
    checkpoint = make_checkpoint()
    for number in range(repairs.STUCK_AT_ONE_PLACE - 1):
        OperatorAction.objects.create(
            kind=eviction.KIND,
            username="auto:recovery-manager",
            target=f"{GROUP} worker w-{number}",
            source="automatic",
            reason="r",
            outcome="applied",
            before={"stage": f"committing engagement-0 [1000, {1100 + number})"},
        )
    make_stuck("w-9", checkpoint)
    with other_session("w-9") as stuck:
        stuck.execute("SELECT 1 FROM offsets_partitioncheckpoint FOR UPDATE")
        manager.tick()
        with pytest.raises(psycopg.OperationalError):
            stuck.execute("SELECT 1")
    checkpoint.refresh_from_db()
    assert (checkpoint.owner_id, checkpoint.desired_state) == (None, "paused")


def test_what_happens_by_itself_goes_through_the_same_door_and_never_raises() -> None:
    checkpoint = make_checkpoint()
    assert automatic.pause_automatically(checkpoint.pk, "too many dead letters")
    assert not automatic.pause_automatically(checkpoint.pk, "too many dead letters"), "it is paused already"
    assert not automatic.pause_automatically(987654, "too many dead letters")
    (done,) = OperatorAction.objects.filter(outcome="applied")
    assert (done.username, done.source, done.reason) == ("auto:circuit-breaker", "automatic", "too many dead letters")
    checkpoint.refresh_from_db()
    assert checkpoint.desired_state == "paused"


@supervised
def test_places_of_topics_with_like_names_are_told_apart(manager: RecoveryManager) -> None:
    mine = make_checkpoint(0, topic="events", owner=make_worker("w-1", stage="decoding my-events-0 [1000, 1200)"))
    theirs = make_checkpoint(0, topic="my-events", owner=Worker.objects.get())
    Worker.objects.update(stage_seconds=3600.0)

    statuses = manager.tick().statuses

    assert {mine.topic: statuses["events-0"], theirs.topic: statuses["my-events-0"]} == {
        "events": "OK",
        "my-events": "STUCK AT OFFSET 1,000",
    }


def _sleep_in(session: psycopg.Connection) -> None:
    with suppress(psycopg.errors.QueryCanceled):
        session.execute("SELECT pg_sleep(30)")


@pytest.mark.django_db(transaction=True)
def test_a_worker_whose_statement_the_database_works_on_is_slow_and_not_evicted(manager: RecoveryManager) -> None:
    make_stuck("w-1", make_checkpoint())
    with other_session("w-1") as session:
        busy = threading.Thread(target=_sleep_in, args=(session,), daemon=True)
        busy.start()
        wait_for("the database works on it", lambda: repairs._works_in_database("w-1"))
        manager.tick()
        assert open_kinds()["worker_stuck"] == "w-1", "people are told all the same"
        assert not OperatorAction.objects.exists()
        session.cancel()
        busy.join(10)
    manager.tick()
    assert OperatorAction.objects.get().kind == "evict"


def test_a_rebuilt_partition_is_still_paused_by_the_breaker(manager: RecoveryManager) -> None:
    """Its incident must not be called over while it counts nothing."""
    worker = make_worker()
    old = make_checkpoint(owner=worker)
    assert automatic.pause_automatically(old.pk, "10 of the last 10 records could not be counted")
    assert manager.tick().opened == ["circuit_breaker engagement-0"]
    PartitionCheckpoint.objects.filter(pk=old.pk).update(retired_at=ago(0), retired_reason="rebuilt", owner=None)
    make_checkpoint(owner=worker, desired_state="paused", next_offset=0)

    assert manager.tick().closed == []

    assert open_kinds()["circuit_breaker"] == "engagement-0"
    detail = PartitionHealth.objects.get(checkpoint__retired_at__isnull=True).detail
    assert detail.startswith("Paused by the circuit breaker at offset 0")
