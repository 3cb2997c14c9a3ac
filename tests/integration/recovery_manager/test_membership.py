"""Partitions that no worker of ours reads: what the manager finds out, and which incident it opens."""

from typing import Any

import pytest

from offsets.actions import retire
from offsets.actions.guards import Request, Seen, Source
from offsets.cluster_facts import GroupMember
from offsets.models import Incident, PartitionCheckpoint, PartitionHealth
from offsets.recovery import membership
from offsets.recovery.manager import RecoveryManager
from offsets.types import TopicPartition
from tests.support.operators import OPERATOR
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_worker
from tests.support.recovery_manager import Cluster, open_kinds, supervised

pytestmark = pytest.mark.django_db

PLACE = TopicPartition("engagement", 0)
FOREIGN = GroupMember("kafka-console-consumer", "/10.0.0.7", frozenset({PLACE}))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(membership, "MISSING_SECONDS", 0.0)


@pytest.fixture
def unowned(cluster: Cluster) -> PartitionCheckpoint:
    cluster.partitions["engagement"] = (0,)
    cluster.holds(0, 1000)
    return make_checkpoint(0)


def for_a_while(manager: RecoveryManager) -> Any:
    """Two ticks, between which the partition was without an owner for longer than a rebalance takes."""
    manager.tick()
    PartitionHealth.objects.update(since=ago(60))
    return manager.tick()


@supervised
def test_it_names_the_foreign_program_until_it_has_left(
    manager: RecoveryManager, cluster: Cluster, unowned: PartitionCheckpoint
) -> None:
    make_worker("w-1", topics=["engagement"])
    cluster.members = [GroupMember("w-1", "/10.0.0.1"), FOREIGN]

    for_a_while(manager)

    assert open_kinds() == {"foreign_member": "kafka-console-consumer /10.0.0.7"}
    health = PartitionHealth.objects.get(checkpoint=unowned)
    assert health.status == "UNOWNED"
    assert health.detail == (
        "engagement-0 is assigned to client 'kafka-console-consumer' on host /10.0.0.7, which is not one of our "
        "workers. Stop it, or use another group."
    )

    PartitionCheckpoint.objects.update(owner="w-1")
    manager.tick()

    assert open_kinds() == {}


@supervised
def test_the_group_is_not_described_while_every_partition_has_an_owner(
    manager: RecoveryManager, cluster: Cluster, unowned: PartitionCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def describe(group_id: str) -> list[GroupMember]:
        asked.append(group_id)
        return []

    monkeypatch.setattr(cluster, "group_members", describe)
    manager.tick()
    assert asked == [], "without an owner only since now"
    PartitionCheckpoint.objects.update(owner=make_worker("w-1", topics=["engagement"]))
    for_a_while(manager)
    assert asked == []

    PartitionCheckpoint.objects.update(owner=None)
    for_a_while(manager)

    assert set(asked) == {GROUP}


@supervised
def test_an_unread_topic_is_one_incident(
    manager: RecoveryManager, cluster: Cluster, unowned: PartitionCheckpoint
) -> None:
    make_worker("w-1", topics=["likes"])

    for_a_while(manager)

    assert open_kinds() == {"topic_unread": "engagement"}
    assert "they read likes" in Incident.objects.get().summary


@supervised
def test_a_missing_topic_is_one_incident_that_ends_when_it_is_retired(
    manager: RecoveryManager, cluster: Cluster, unowned: PartitionCheckpoint
) -> None:
    make_checkpoint(1)
    make_worker("w-1", topics=["engagement"])
    cluster.partitions.clear()
    cluster.bounds.clear()

    tick = for_a_while(manager)

    assert set(tick.statuses.values()) == {"TOPIC MISSING"}
    assert open_kinds() == {"topic_missing": "engagement"}

    rows = PartitionCheckpoint.objects.all()
    retire.retire(GROUP, {row.pk: Seen.of(row) for row in rows}, Request(OPERATOR, "gone", Source.API))
    tick = manager.tick()

    assert tick.statuses == {}
    assert open_kinds() == {}


@supervised
def test_a_partition_that_a_topic_lost_is_missing_and_a_retired_one_is_not_new(
    manager: RecoveryManager, cluster: Cluster, unowned: PartitionCheckpoint
) -> None:
    lost = make_checkpoint(1)

    tick = for_a_while(manager)
    assert tick.statuses["engagement-1"] == "TOPIC MISSING"
    retire.retire(GROUP, {lost.pk: Seen.of(lost)}, Request(OPERATOR, "gone", Source.API))
    cluster.partitions["engagement"] = (0, 1)
    manager.tick()

    assert "partition_new" not in open_kinds()


@supervised
def test_a_refused_worker_is_an_incident_before_anything_was_claimed(
    manager: RecoveryManager, cluster: Cluster
) -> None:
    worker = make_worker("w-1", topics=["engagement"], refusal="JoinGroup failed: Broker: Invalid session timeout")
    cluster.members = [FOREIGN]

    manager.tick()

    [incident] = Incident.objects.all()
    assert (incident.kind, incident.subject, incident.severity) == ("member_refused", "w-1", "critical")
    assert "Invalid session timeout" in incident.summary
    assert "kafka-console-consumer" in incident.summary
    worker.refusal = ""
    worker.save()
    manager.tick()
    assert open_kinds() == {}
