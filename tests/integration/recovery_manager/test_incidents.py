"""Verdicts are stored; incidents open, tell what happened, and close."""

from typing import Any

import pytest

from analytics.models import ImplausibleTime
from offsets.actions import pause
from offsets.actions.guards import Actor, Request, Seen, Source
from offsets.actions.pause import ActionKind
from offsets.models import (
    Incident,
    InvariantReport,
    JournalEntry,
    LedgerRange,
    PartitionCheckpoint,
    PartitionHealth,
    Worker,
)
from offsets.monitoring import incidents
from offsets.monitoring.event_times import QUIET_SECONDS
from offsets.monitoring.finding import Finding
from offsets.monitoring.group_state import AffectedRange
from offsets.recovery.manager import RecoveryManager
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_worker
from tests.support.recovery_manager import STACK, Cluster, open_kinds, supervised, timeline

pytestmark = pytest.mark.django_db


OPERATOR = Actor("olga", allowed=True)


@supervised
def test_it_stores_a_verdict_for_every_live_partition_and_keeps_since(
    manager: RecoveryManager, cluster: Cluster
) -> None:
    keeps_up = make_checkpoint(0, owner=make_worker("w-1"))
    unowned = make_checkpoint(1)
    make_checkpoint(2, retired_at=ago(1), retired_reason="rebuilt")
    make_checkpoint(0, group_id="another")
    cluster.holds(0, 1000, 0)

    tick = manager.tick()

    assert tick.statuses == {"engagement-0": "OK", "engagement-1": "UNOWNED"}
    rows = {row.checkpoint_id: row for row in PartitionHealth.objects.all()}
    assert {pk: row.status for pk, row in rows.items()} == {keeps_up.pk: "OK", unowned.pk: "UNOWNED"}
    assert rows[keeps_up.pk].eta_seconds == 0.0
    assert "No worker owns it" in rows[unowned.pk].detail
    PartitionHealth.objects.update(since=ago(100))
    make_worker("w-2")
    PartitionCheckpoint.objects.filter(pk=unowned.pk).update(owner="w-2")

    manager.tick()

    again = {row.checkpoint_id: row for row in PartitionHealth.objects.all()}
    assert (again[keeps_up.pk].since - rows[keeps_up.pk].since).total_seconds() < -90, "the same status as before"
    assert again[unowned.pk].since > rows[unowned.pk].since, "another one since this tick"
    assert again[unowned.pk].status == "OK"
    assert again[keeps_up.pk].assessed_at > rows[keeps_up.pk].assessed_at


def test_it_samples_the_log_and_warns_of_a_lag_that_does_not_shrink(manager: RecoveryManager, cluster: Cluster) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"), claimed_at=ago(300), committed_at=ago(1))
    for seconds in range(55, 0, -5):
        make_sample(checkpoint, seconds, 1_000_000 + (55 - seconds) * 100, 900 + 55 - seconds)
    cluster.holds(0, 1_010_000)

    tick = manager.tick()

    assert tick.statuses == {"engagement-0": "SLOW"}
    assert not Incident.objects.exists(), "it may pass within one interval"
    PartitionHealth.objects.update(since=ago(5))
    manager.tick()
    incident = Incident.objects.get()
    assert (incident.kind, incident.severity, incident.worker_id) == ("lagging", "warning", "w-1")
    assert checkpoint.lag_samples.order_by("-sampled_at").values_list("log_end_offset", flat=True)[0] == 1_010_000


@supervised
def test_an_incident_opens_on_the_first_bad_tick_and_closes_when_it_is_well(manager: RecoveryManager) -> None:
    make_worker("w-1")
    checkpoint = make_checkpoint(owner=Worker.objects.get(), halt_reason="expired", halted_at=ago(42))

    assert manager.tick().opened == ["halted_expired engagement-0"]
    assert manager.tick().opened == []

    incident = Incident.objects.get()
    assert (incident.checkpoint_id, incident.worker_id) == (checkpoint.pk, "w-1")
    assert (incident.severity, incident.closed_at) == ("critical", None)
    assert 42 <= incidents.seconds_to_detect(incident) < 60
    assert incidents.seconds_to_recover(incident) is None
    PartitionCheckpoint.objects.update(halt_reason="", halted_at=None)

    assert manager.tick().closed == ["halted_expired engagement-0"]

    incident.refresh_from_db()
    recovered = incidents.seconds_to_recover(incident)
    assert recovered is not None
    assert 0 <= recovered < 60
    assert [text.partition(" ")[0] for _, text in timeline(incident)] == ["Detected:", "Recovered"]
    kinds = JournalEntry.objects.order_by("pk").values_list("kind", "level")
    assert list(kinds) == [("incident_opened", "error"), ("incident_closed", "info")]
    assert manager.tick().closed == []
    assert incidents.as_json(incident)["recover_seconds"] == recovered


@supervised
def test_the_same_trouble_a_second_time_is_another_incident(manager: RecoveryManager) -> None:
    make_checkpoint(owner=make_worker("w-1"), halt_reason="truncated", halted_at=ago(1))
    manager.tick()
    PartitionCheckpoint.objects.update(halt_reason="")
    manager.tick()
    PartitionCheckpoint.objects.update(halt_reason="truncated")
    manager.tick()
    assert [row.closed_at is None for row in Incident.objects.order_by("pk")] == [False, True]


@supervised
def test_an_incidents_timeline_tells_what_changed_and_what_was_done_about_it(
    manager: RecoveryManager, cluster: Cluster
) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    make_range(checkpoint, 0, 900)
    make_range(checkpoint, 900, 1000, "failed", retry_at=ago(-3600), detail="DataError: no")
    cluster.holds(0, 1000)
    manager.tick()
    incident = Incident.objects.get(kind="failed_ranges")
    assert incident.severity == "warning"
    assert incident.ranges == [{"topic": "engagement", "partition": 0, "kind": "failed", "start": 900, "end": 1000}]
    LedgerRange.objects.filter(kind="failed").update(retry_at=None)

    manager.tick()
    pause.set_paused(
        *(ActionKind.PAUSE, checkpoint.pk),
        Request(OPERATOR, "look at it", Source.API),
        seen=Seen.of(checkpoint),
    )
    cluster.holds(950, 1000)
    manager.tick()

    incident.refresh_from_db()
    assert incident.severity == "critical"
    told = timeline(incident)
    assert [source for source, _ in told] == ["manager", "manager", "operator", "manager"]
    assert told[1][1].startswith("Now critical: 100 offsets of engagement-0 could not be applied: DataError: no.")
    assert told[2][1] == "Pause by olga: look at it"
    assert told[3][1] == "engagement-0 [900, 950) failed and was deleted by Kafka before a replay: not counted."
    manager.tick()
    incident.refresh_from_db()
    assert [one["start"] for one in incident.ranges] == [950]


@supervised
def test_what_was_seen_of_an_incident_is_kept_when_it_is_seen_no_more(manager: RecoveryManager, settings: Any) -> None:
    settings.EVICT_STUCK_WORKERS = False
    make_worker("w-1", stage="decoding engagement-0 [1000, 1200)", stage_seconds=45.0, stack=STACK)
    manager.tick()
    Worker.objects.update(stack=STACK.replace("7", "8"), stage_seconds=50.0)
    manager.tick()
    assert "line 8" in Incident.objects.get().evidence
    incident = Incident.objects.get()
    finding = Finding(incident.kind, incident.subject, "w-1 is stuck, and says no more.", incident.began_at)

    incidents.reconcile(GROUP, [finding])

    incident.refresh_from_db()
    assert incident.summary == "w-1 is stuck, and says no more."
    assert "line 8" in incident.evidence


def test_an_incident_names_a_bounded_number_of_ranges_and_takes_any_text() -> None:
    affected = [AffectedRange("t", 0, "failed", n, n + 1) for n in range(incidents.MAX_RANGES + 50)]
    moment = Worker.objects.create(worker_id="w", group_id=GROUP, hostname="h", process_id=1)
    moment.refresh_from_db()
    finding = Finding("k", "s", "nul \x00", moment.started_at, ranges=affected, evidence="\x00")
    opened, _ = incidents.reconcile(GROUP, [finding])
    assert len(opened[0].ranges) == incidents.MAX_RANGES
    assert (opened[0].summary, opened[0].evidence) == ("nul \\0", "\\0")


@supervised
def test_a_violated_invariant_and_a_new_partition_are_incidents(manager: RecoveryManager, cluster: Cluster) -> None:
    make_checkpoint(owner=make_worker("w-1"))
    cluster.partitions["engagement"] = (0, 1)
    violated = {"I1": {"ok": False, "detail": "hole"}, "I2": {"ok": True, "detail": ""}}
    InvariantReport.objects.create(group_id=GROUP, ok=False, invariants=violated, duration_ms=1)

    manager.tick()

    assert open_kinds() == {"invariants": "ledger", "partition_new": "engagement-1"}
    assert "(I1)" in Incident.objects.get(kind="invariants").summary
    InvariantReport.objects.update(ok=True)
    make_checkpoint(1, owner=Worker.objects.get())
    manager.tick()
    assert open_kinds() == {}


@supervised
def test_implausible_event_times_are_an_incident_until_none_came_for_a_while(
    manager: RecoveryManager, cluster: Cluster
) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    cluster.partitions["engagement"] = (0,)
    row = ImplausibleTime.objects.create(checkpoint=checkpoint, source="record", unit="seconds", events=3000)

    manager.tick()

    assert open_kinds() == {"event_time": "engagement"}
    incident = Incident.objects.get()
    assert incident.severity == Incident.Severity.WARNING
    assert incident.summary.startswith("3,000 records of engagement: the timestamp looks like seconds.")
    ImplausibleTime.objects.filter(pk=row.pk).update(last_seen_at=ago(QUIET_SECONDS + 60))
    manager.tick()
    assert open_kinds() == {}
