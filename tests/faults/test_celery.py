"""Slots on real Celery workers: supervised, fenced, and quick to stop."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from offsets import leases
from offsets.models import JournalEntry, PartitionCheckpoint, Worker
from offsets.processing.slots import slot_name
from tests.support.cases import Case
from tests.support.celery_workers import both_slots, celery, committed, running_slots
from tests.support.processes import assert_exactly_once, resume, stopped, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]
EVENTS = 40_000


@pytest.fixture
def this(case: MakeCase) -> Case:
    return case(EVENTS, COMMIT_MAX_RECORDS="300", COMMIT_INTERVAL_MS="10")


def test_it_starts_another_worker_for_the_slot_of_a_killed_process(this: Case) -> None:
    with celery(this) as processes:
        wait_for("both slots run and commit", lambda: len(running_slots(this)) == 2 and committed(this))
        victim = this.random.choice(running_slots(this))
        os.kill(victim.process_id, signal.SIGKILL)
        wait_for("everything is counted", lambda: committed(this) == EVENTS, 90)
        wait_for(
            "the slot runs again",
            lambda: {w.slot for w in running_slots(this) if w.pk != victim.pk} == both_slots(this),
        )
        wait_for("its death is told", lambda: JournalEntry.objects.filter(kind="worker_dead", worker_id=victim.pk))
        assert processes.slots.end() == 0, processes.slots.output()
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_refuses_a_slot_that_was_stopped_until_its_partitions_moved(this: Case) -> None:
    token = this.folder / "token"
    token.touch()
    with celery(this, FAILPOINTS=f"before_commit=stop#3@{token}") as processes:
        pool = wait_for("a slot stops before its commit", lambda: _stopped_child(processes.slots.pid))
        zombie = Worker.objects.get(group_id=this.group, process_id=pool)
        wait_for(
            "its slot runs elsewhere", lambda: [w for w in running_slots(this) if w.slot == zombie.slot and w != zombie]
        )
        wait_for("everything is counted by others", lambda: committed(this) == EVENTS, 90)
        resume(pool)
        wait_for("the refused commit is counted", lambda: Worker.objects.get(pk=zombie.pk).fenced_commits)
        assert JournalEntry.objects.filter(kind="fenced", worker_id=zombie.pk).exists()
        wait_for("the log tells", lambda: "Refused a stale commit" in processes.slots.output())
        wait_for("the zombie ends its task", lambda: Worker.objects.get(pk=zombie.pk).state == "stopped")
        assert processes.slots.end() == 0, processes.slots.output()
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_commits_the_batch_in_hand_on_a_warm_shutdown(this: Case) -> None:
    this.env.update(COMMIT_INTERVAL_MS="60000", COMMIT_MAX_RECORDS="100000000")
    with celery(this) as processes:
        wait_for("batches are in hand", lambda: [w for w in running_slots(this) if w.batch_in_hand])
        assert committed(this) == 0, "the commit interval is a minute: nothing can be committed yet"
        assert processes.slots.end(30) == 0, processes.slots.output()
    assert committed(this) > 0
    assert not PartitionCheckpoint.objects.filter(group_id=this.group, owner__isnull=False).exists()
    assert not leases.live(sorted(both_slots(this)))


def test_it_ends_a_second_task_for_a_live_slot(this: Case) -> None:
    holder = leases.acquire(slot_name(this.group, 0), "somebody", 60)
    assert holder is not None
    with celery(this) as processes:
        wait_for("the free slot runs", lambda: [w.slot for w in running_slots(this)] == [slot_name(this.group, 1)])
        wait_for("everything is counted", lambda: committed(this) == EVENTS, 60)
        assert {w.slot for w in Worker.objects.filter(group_id=this.group)} == {slot_name(this.group, 1)}
        assert processes.slots.end() == 0, processes.slots.output()


def _stopped_child(parent: int) -> int:
    return next((child.pid for child in psutil.Process(parent).children() if stopped(child.pid)), 0)
