"""The database's clock is set back an hour: all that was noted before lies an hour ahead."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models import F

from offsets import leases
from offsets.models import Incident, LagSample, Lease, PartitionCheckpoint, PartitionHealth, Worker
from offsets.recovery.manager import RecoveryManager
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_sample, make_worker
from tests.support.recovery_manager import LEADS, Cluster, expire

pytestmark = pytest.mark.django_db

AN_HOUR = timedelta(hours=1)


def set_clock_back() -> None:
    Lease.objects.update(expires_at=F("expires_at") + AN_HOUR)
    Worker.objects.update(heartbeat_at=F("heartbeat_at") + AN_HOUR)
    LagSample.objects.update(sampled_at=F("sampled_at") + AN_HOUR)
    PartitionHealth.objects.update(since=F("since") + AN_HOUR, assessed_at=F("assessed_at") + AN_HOUR)
    PartitionCheckpoint.objects.update(committed_at=F("committed_at") + AN_HOUR, claimed_at=F("claimed_at") + AN_HOUR)


def test_a_worker_that_died_then_is_found_after_the_workers_had_time_to_report(
    manager: RecoveryManager, cluster: Cluster
) -> None:
    make_checkpoint(0, owner=make_worker("w-dead"), claimed_at=ago(60), committed_at=ago(1))
    make_checkpoint(1, owner=make_worker("w-live"), claimed_at=ago(60), committed_at=ago(1))
    cluster.holds(0, 2311)
    manager.tick()
    set_clock_back()

    first = manager.tick()

    assert "worker_dead w-dead" not in first.opened, "those that live have not reported by the new clock yet"
    Worker.objects.filter(pk="w-live").update(heartbeat_at=ago(0))
    expire(f"supervision-grace:{GROUP}")

    assert manager.tick().opened == ["worker_dead w-dead"]

    incident = Incident.objects.get(kind="worker_dead")
    assert incident.began_at <= incident.opened_at
    assert PartitionCheckpoint.objects.get(partition=0).owner_id is None
    assert PartitionCheckpoint.objects.get(partition=1).owner_id == "w-live"


def test_the_newest_sample_is_judged_and_not_one_that_lies_ahead(manager: RecoveryManager, cluster: Cluster) -> None:
    checkpoint = make_checkpoint(0, owner=make_worker(), next_offset=2311, claimed_at=ago(60))
    for seconds_ago in range(20, 0, -1):
        make_sample(checkpoint, seconds_ago, 367, 300)
    cluster.holds(0, 2400)
    set_clock_back()
    Worker.objects.update(heartbeat_at=ago(0))

    assert manager.tick().statuses == {"engagement-0": "OK"}

    assert list(LagSample.objects.values_list("log_end_offset", flat=True)) == [2400]
    health = PartitionHealth.objects.get()
    assert health.detail.startswith("Keeping up: 89 records")


def test_a_standby_takes_over_and_says_nothing_of_the_former_leader(make: Callable[..., RecoveryManager]) -> None:
    """Nobody knows whether it is gone."""
    first, second = make("A"), make("B")
    assert first.tick().leading
    set_clock_back()

    assert second.tick().leading

    assert Lease.objects.get(pk=LEADS).holder == "B"
    assert not Incident.objects.filter(kind="manager_lost").exists()
    assert leases.live([LEADS]) == {LEADS}
