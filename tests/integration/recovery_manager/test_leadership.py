"""One manager leads; a standby takes over; a deposed leader writes nothing."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from offsets import leases
from offsets.actions import dead_letters
from offsets.models import (
    Incident,
    JournalEntry,
    Lease,
    OperatorAction,
    PartitionCheckpoint,
    PartitionHealth,
    Replay,
    Worker,
)
from offsets.monitoring import findings
from offsets.recovery.leadership import LostLeadershipError
from offsets.recovery.manager import RecoveryManager
from tests.support.page_rows import ago, make_checkpoint, make_range, make_worker
from tests.support.processes import wait_for
from tests.support.recovery_manager import LEADS, STACK, Cluster, expire, ranges_of, supervised, timeline

pytestmark = pytest.mark.django_db


def take_over(by: str = "B") -> None:
    """As a standby does once the leader was silent for too long."""
    expire(LEADS)
    assert leases.acquire(LEADS, by, 60)


def test_one_of_two_managers_leads_and_the_other_writes_nothing(make: Callable[..., RecoveryManager]) -> None:
    make_checkpoint(halt_reason="expired")
    assert make("A").tick().leading
    before = PartitionHealth.objects.values().get()

    tick = make("B").tick()

    assert not tick.leading
    assert tick.statuses == {}
    assert PartitionHealth.objects.values().get() == before
    assert Lease.objects.get(pk=LEADS).holder == "A"
    assert Incident.objects.count() == 1


def test_a_standby_takes_over_when_the_leaders_lease_ends_and_says_so(make: Callable[..., RecoveryManager]) -> None:
    first, second = make("A"), make("B")
    assert first.tick().leading
    expire(LEADS)

    assert second.tick().leading

    assert not first.tick().leading
    lease = Lease.objects.get(pk=LEADS)
    assert (lease.holder, lease.epoch) == ("B", 2)
    told = Incident.objects.get()
    assert (told.kind, told.severity) == ("manager_lost", "warning")
    assert told.closed_at is not None
    assert told.began_at < told.opened_at <= told.closed_at
    assert "B took over from A: the previous leader exited without releasing its lease." in told.summary
    assert timeline(told)[-1] == ("manager", "B is the leader.")


def test_a_standby_leads_at_once_where_the_leader_ends_in_peace(make: Callable[..., RecoveryManager]) -> None:
    first = make("A")
    assert first.tick().leading
    first.release()

    assert make("B").tick().leading
    assert not Incident.objects.exists()


def test_a_standby_does_not_end_the_leaders_lease_when_it_stops(make: Callable[..., RecoveryManager]) -> None:
    assert make("A").tick().leading
    make("B").release()
    assert Lease.objects.get(pk=LEADS).holder == "A"
    assert not make("B").tick().leading
    expire(LEADS)
    make("B").release()
    assert make("C").tick().leading
    assert Incident.objects.get().summary.startswith("C took over from A"), "who stood by hides nothing of it"


@supervised
def test_a_leader_deposed_while_it_looked_writes_nothing(
    manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(halt_reason="expired")
    find = findings.find

    def deposed(*arguments: Any) -> Any:
        take_over()
        return find(*arguments)

    monkeypatch.setattr(findings, "find", deposed)

    assert not manager.tick().leading

    assert not PartitionHealth.objects.exists()
    assert not Incident.objects.exists()
    assert not JournalEntry.objects.exists()


@supervised
def test_a_leader_deposed_before_it_mends_mends_nothing(
    manager: RecoveryManager, cluster: Cluster, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = make_checkpoint(0, owner=make_worker("w-dead", silent_for=60))
    stuck = make_checkpoint(1, owner=make_worker("w-stuck", stage="decoding engagement-1 [1000, 1200)", stack=STACK))
    failed = make_checkpoint(2)
    make_range(failed, 0, 990)
    make_range(failed, 990, 1000, "failed", retry_at=ago(1))
    cluster.holds(995, 2000, 2)
    repair = manager.repairs.run

    def deposed(*arguments: Any) -> None:
        take_over()
        repair(*arguments)

    monkeypatch.setattr(manager.repairs, "run", deposed)

    assert not manager.tick().leading

    owners = PartitionCheckpoint.objects.order_by("partition").values_list("owner_id", "epoch")
    assert list(owners) == [("w-dead", 3), ("w-stuck", 3), (None, 3)]
    assert set(Worker.objects.values_list("state", "evicted_at")) == {("running", None)}
    assert ranges_of(failed) == [(0, 990, "processed"), (990, 1000, "failed")]
    assert stuck.desired_state == dead.desired_state == "running"
    assert sent == []
    assert not Replay.objects.exists()
    assert not OperatorAction.objects.exists()


@supervised
@pytest.mark.parametrize("step", ["_fence_dead_worker", "_evict", "_expire_failed", "_replay_failed", "_count_again"])
def test_each_step_of_mending_compares_the_leaders_epoch(
    manager: RecoveryManager, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-dead", silent_for=60))
    make_range(checkpoint, 0, 990)
    make_range(checkpoint, 990, 1000, "failed", retry_at=ago(1))
    make_worker("w-stuck", stage="decoding engagement-0 [1000, 1200)", stack=STACK)
    cluster.holds(0 if step == "_replay_failed" else 995, 2000)
    monkeypatch.setattr(dead_letters, "counted_before_rebuild", lambda _: [1])
    deposed = leases.acquire(LEADS, "A", 5)
    assert deposed
    manager._watch.look()
    state = manager._state(judged=True)
    take_over()
    worker = {"_fence_dead_worker": state.workers[0], "_evict": state.workers[-1]}.get(step)

    with pytest.raises(LostLeadershipError):
        getattr(manager.repairs, step)(
            *[deposed, *([worker] if worker else []), *([state] if step.endswith("failed") else [])]
        )


@pytest.mark.django_db(transaction=True)
def test_a_successor_waits_for_the_end_of_what_the_leader_writes(manager: RecoveryManager) -> None:
    token = leases.acquire(LEADS, "A", 60)
    assert token
    taken: list[Any] = []

    def succeed() -> None:
        try:
            expire(LEADS)
            taken.append(leases.acquire(LEADS, "B", 60))
        finally:
            connection.close()

    successor = threading.Thread(target=succeed)
    with manager.leadership.writing(token):
        successor.start()

        def waits() -> bool:
            with connection.cursor() as cursor:
                cursor.execute(
                    # Not pg_stat_activity: inside a transaction it goes on showing what it showed first.
                    "SELECT count(*) FROM pg_locks WHERE NOT granted"
                )
                return bool(cursor.fetchone()[0])

        wait_for("the successor to wait", waits)
        assert taken == []
    successor.join(20)
    assert [token.holder for token in taken] == ["B"]
