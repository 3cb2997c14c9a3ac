"""Slots on real Celery workers: supervised, fenced, and quick to stop."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from offsets import leases
from offsets.models import JournalEntry, PartitionCheckpoint, Worker
from offsets.tasks import slot_name
from tests.cases import Case
from tests.harness import Background, assert_exactly_once, background, resume, stopped, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]
EVENTS = 40_000


@contextmanager
def celery(case: Case, **slots_env: str) -> Iterator[Background]:
    """Beat, a control worker and a slots worker with two slots and a spare process; gives the slots worker."""
    worker = ("-m", "celery", "-A", "streamsocial", "worker", "--loglevel", "INFO")
    with ExitStack() as stack:

        def start(name: str, env: dict[str, str], *arguments: str) -> Background:
            return stack.enter_context(background(env, case.folder / f"{name}.log", *arguments))

        slots = start(
            "slots",
            {**case.env, **slots_env},
            *worker,
            "-Q",
            f"slots-{case.group}",
            "-c",
            "3",
            "--prefetch-multiplier",
            "1",
            "-n",
            f"slots-{case.group}@%h",
        )
        control = ("-Q", f"control-{case.group}", "-c", "2", "-n", f"control-{case.group}@%h")
        start("control", case.env, *worker, *control)
        schedule = str(case.folder / "beat-schedule")
        start("beat", case.env, "-m", "celery", "-A", "streamsocial", "beat", "--schedule", schedule, "--pidfile=")
        yield slots


@pytest.fixture
def this(case: MakeCase) -> Case:
    made = case(EVENTS, COMMIT_MAX_RECORDS="300", COMMIT_INTERVAL_MS="10")
    made.env["CELERY_QUEUE_SUFFIX"] = f"-{made.group}"
    return made


def _slots(case: Case) -> list[Worker]:
    return list(Worker.objects.filter(group_id=case.group, state="running").exclude(slot=""))


def _next(case: Case) -> int:
    return sum(PartitionCheckpoint.objects.filter(group_id=case.group).values_list("next_offset", flat=True))


def test_it_starts_another_worker_for_the_slot_of_a_killed_process(this: Case) -> None:
    with celery(this) as slots:
        wait_for("both slots run and commit", lambda: len(_slots(this)) == 2 and _next(this))
        victim = this.random.choice(_slots(this))
        os.kill(victim.process_id, signal.SIGKILL)
        wait_for("everything is counted", lambda: _next(this) == EVENTS, 90)
        wait_for("the slot runs again", lambda: {w.slot for w in _slots(this) if w.pk != victim.pk} == _both(this))
        wait_for("its death is told", lambda: JournalEntry.objects.filter(kind="worker_dead", worker_id=victim.pk))
        assert slots.end() == 0, slots.output()
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_refuses_a_slot_that_was_stopped_until_its_partitions_moved(this: Case) -> None:
    token = this.folder / "token"
    token.touch()
    with celery(this, FAILPOINTS=f"before_commit=stop#3@{token}") as slots:
        pool = wait_for("a slot stops before its commit", lambda: _stopped_child(slots.pid))
        zombie = Worker.objects.get(group_id=this.group, process_id=pool)
        wait_for("its slot runs elsewhere", lambda: [w for w in _slots(this) if w.slot == zombie.slot and w != zombie])
        wait_for("everything is counted by others", lambda: _next(this) == EVENTS, 90)
        resume(pool)
        wait_for("the refused commit is counted", lambda: Worker.objects.get(pk=zombie.pk).fenced_commits)
        assert JournalEntry.objects.filter(kind="fenced", worker_id=zombie.pk).exists()
        wait_for("the log tells", lambda: "Refused a stale commit" in slots.output())
        wait_for("the zombie ends its task", lambda: Worker.objects.get(pk=zombie.pk).state == "stopped")
        assert slots.end() == 0, slots.output()
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_commits_the_batch_in_hand_on_a_warm_shutdown(this: Case) -> None:
    this.env.update(COMMIT_INTERVAL_MS="60000", COMMIT_MAX_RECORDS="100000000")
    with celery(this) as slots:
        wait_for("batches are in hand", lambda: [w for w in _slots(this) if w.batch_in_hand])
        assert _next(this) == 0, "the commit interval is a minute: nothing can be committed yet"
        assert slots.end(30) == 0, slots.output()
    assert _next(this) > 0
    assert not PartitionCheckpoint.objects.filter(group_id=this.group, owner__isnull=False).exists()
    assert not leases.live(sorted(_both(this)))


def test_it_ends_a_second_task_for_a_live_slot(this: Case) -> None:
    holder = leases.acquire(slot_name(this.group, 0), "somebody", 60)
    assert holder is not None
    with celery(this) as slots:
        wait_for("the free slot runs", lambda: [w.slot for w in _slots(this)] == [slot_name(this.group, 1)])
        wait_for("everything is counted", lambda: _next(this) == EVENTS, 60)
        assert {w.slot for w in Worker.objects.filter(group_id=this.group)} == {slot_name(this.group, 1)}
        assert slots.end() == 0, slots.output()


def _both(case: Case) -> set[str]:
    return {slot_name(case.group, 0), slot_name(case.group, 1)}


def _stopped_child(parent: int) -> int:
    return next((child.pid for child in psutil.Process(parent).children() if stopped(child.pid)), 0)
