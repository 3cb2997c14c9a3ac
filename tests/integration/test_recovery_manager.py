"""The recovery manager, tick by tick: one leads, judges, opens and closes incidents, and mends what is safe to mend."""

import io
import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from redis.exceptions import ConnectionError as RedisConnectionError

from offsets import leases, ledger, tasks, workers
from offsets.actions import automatic, dead_letters, eviction, pause
from offsets.actions.guards import Actor, Seen, Source
from offsets.actions.pause import ActionKind
from offsets.errors import FencedError, ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.models import (
    Incident,
    InvariantReport,
    JournalEntry,
    Lease,
    LedgerRange,
    OperatorAction,
    PartitionCheckpoint,
    PartitionHealth,
    Replay,
    ReplayRange,
    Worker,
)
from offsets.monitoring import findings, incidents
from offsets.recovery import assessments, services
from offsets.recovery import manager as manager_module
from offsets.recovery.manager import RecoveryManager
from offsets.types import BatchStats, Claim, PartitionCommit, TopicPartition
from tests.harness import wait_for
from tests.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_worker

pytestmark = pytest.mark.django_db

LEADS = f"recovery-manager:{GROUP}"
OPERATOR = Actor("olga", allowed=True)
STACK = '  File "handler.py", line 7, in decode\n    while True: pass\n'


class Cluster:
    """What Kafka answers, or that it does not."""

    def __init__(self) -> None:
        self.bounds: dict[TopicPartition, LogBounds] = {}
        self.partitions: dict[str, tuple[int, ...]] = {}
        self.retention: dict[str, float] = {}
        self.error: Exception | None = None

    def log_bounds(self, partitions: Any) -> dict[TopicPartition, LogBounds]:
        if self.error:
            raise self.error
        return {tp: self.bounds[tp] for tp in partitions if tp in self.bounds}

    def describe_topics(self, topics: Any) -> dict[str, TopicDescription]:
        if self.error:
            raise self.error
        return {name: TopicDescription("topic-id", self.partitions[name]) for name in topics if name in self.partitions}

    def retention_seconds(self, topics: Any) -> dict[str, float]:
        return {name: self.retention[name] for name in topics if name in self.retention}

    def offsets_for_time(self, partitions: Any, timestamp_ms: int) -> dict[TopicPartition, int]:
        return {}

    def holds(self, start: int, end: int, partition: int = 0) -> None:
        self.bounds[TopicPartition("engagement", partition)] = LogBounds(start, end)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Stands in for Kafka where its answers are the test's matter, and not how they are got."""
    found = Cluster()
    monkeypatch.setattr(services, "KafkaAdmin", lambda timeout_seconds: found)
    return found


@pytest.fixture
def sent() -> list[int]:
    """Replays that were given to a worker."""
    return []


@pytest.fixture
def make(cluster: Cluster, sent: list[int]) -> Callable[..., RecoveryManager]:
    def made(holder: str = "A") -> RecoveryManager:
        return RecoveryManager(GROUP, holder, dispatch=sent.append)

    return made


@pytest.fixture
def manager(make: Callable[..., RecoveryManager]) -> RecoveryManager:
    return make()


@pytest.fixture
def _supervised(db: None) -> None:
    """Somebody has ticked until this moment: silence may be held against workers."""
    leases.acquire(f"supervision:{GROUP}", "manager", 60)


supervised = pytest.mark.usefixtures("_supervised")


@contextmanager
def other_session(application_name: str = "other") -> Iterator[psycopg.Connection]:
    """A second connection, outside Django's."""
    values = connection.get_connection_params()
    values.pop("cursor_factory", None)
    values.pop("context", None)
    with psycopg.connect(**values, application_name=application_name) as other:
        yield other
        if not other.closed:
            other.rollback()


def expire(name: str) -> None:
    assert Lease.objects.filter(pk=name).update(expires_at=ago(1))


def take_over(by: str = "B") -> None:
    """As a standby does once the leader was silent for too long."""
    expire(LEADS)
    assert leases.acquire(LEADS, by, 60)


def open_kinds() -> dict[str, str]:
    rows = Incident.objects.filter(closed_at__isnull=True).order_by("kind", "subject")
    return {row.kind: row.subject for row in rows}


def timeline(incident: Incident) -> list[tuple[str, str]]:
    return list(incident.events.order_by("pk").values_list("source", "text"))


def ranges_of(checkpoint: PartitionCheckpoint) -> list[tuple[int, int, str]]:
    rows = LedgerRange.objects.filter(checkpoint=checkpoint).order_by("offsets")
    return [(row.offsets.lower, row.offsets.upper, row.kind) for row in rows]


# --- One leads ------------------------------------------------------------------------------------


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
    assert "The leader A is gone, and B has taken over" in told.summary
    assert timeline(told)[-1] == ("manager", "B leads.")


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
    assert Incident.objects.get().summary.startswith("The leader A is gone"), "who stood by hides nothing of it"


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
    mend = manager._mend

    def deposed(*arguments: Any) -> None:
        take_over()
        mend(*arguments)

    monkeypatch.setattr(manager, "_mend", deposed)

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

    with pytest.raises(manager_module.LostLeadershipError):
        getattr(manager, step)(*[deposed, *([worker] if worker else []), *([state] if step.endswith("failed") else [])])


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
    with manager._writing(token):
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


# --- Verdicts -------------------------------------------------------------------------------------


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
    incident = Incident.objects.get()
    assert (incident.kind, incident.severity, incident.worker_id) == ("lagging", "warning", "w-1")
    assert checkpoint.lag_samples.order_by("-sampled_at").values_list("log_end_offset", flat=True)[0] == 1_010_000


# --- Incidents ------------------------------------------------------------------------------------


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
        actor=OPERATOR,
        reason="look at it",
        source=Source.API,
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
    assert told[3][1] == "engagement-0 [900, 950) failed, and Kafka has deleted it: lost."
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
    finding = findings.Finding(incident.kind, incident.subject, "w-1 is stuck, and says no more.", incident.began_at)

    incidents.reconcile(GROUP, [finding])

    incident.refresh_from_db()
    assert incident.summary == "w-1 is stuck, and says no more."
    assert "line 8" in incident.evidence


def test_an_incident_names_a_bounded_number_of_ranges_and_takes_any_text() -> None:
    affected = [findings.AffectedRange("t", 0, "failed", n, n + 1) for n in range(incidents.MAX_RANGES + 50)]
    moment = Worker.objects.create(worker_id="w", group_id=GROUP, hostname="h", process_id=1)
    moment.refresh_from_db()
    finding = findings.Finding("k", "s", "nul \x00", moment.started_at, ranges=affected, evidence="\x00")
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


# --- Dead workers ---------------------------------------------------------------------------------


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
    with pytest.raises(FencedError, match="epoch 3 is over"), transaction.atomic():
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
        f"w-1 sent no heartbeat for {django_settings.HEARTBEAT_TIMEOUT_SECONDS} s; 1 partitions are fenced.",
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


# --- When silence says nothing --------------------------------------------------------------------


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
    assert "OperationalError" in missed.trouble
    after = manager.tick()
    assert after.leading
    assert after.statuses == {"engagement-0": "OK"}
    assert Worker.objects.get().state == "running"
    incident = Incident.objects.get()
    assert (incident.kind, incident.subject) == ("database_unavailable", "postgresql")
    assert incident.closed_at is not None
    assert incident.began_at <= incident.opened_at < incident.closed_at
    assert timeline(incident)[-1][1] == "It answers again; work has gone on."
    manager.tick()
    assert Incident.objects.count() == 1, "one outage, told once"
    expire(f"supervision-grace:{GROUP}")
    assert manager.tick().opened == ["worker_dead w-1"]


@pytest.mark.django_db(transaction=True)
def test_an_outage_is_as_long_as_all_the_ticks_that_missed_it(
    manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(manager_module, "monotonic", lambda: now[0])
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


# --- Stuck workers --------------------------------------------------------------------------------


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
    for number in range(1, manager_module.STUCK_AT_ONE_PLACE):
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
    assert pause.reason == "3 workers got stuck there: decoding engagement-0 [1000, 3000)"
    make_worker("w-10")
    PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(owner="w-10")
    manager.tick()
    assert Incident.objects.get(kind="circuit_breaker").subject == "engagement-0"


@supervised
def test_a_place_is_not_paused_for_a_worker_that_is_stuck_elsewhere(manager: RecoveryManager) -> None:
    here, elsewhere = make_checkpoint(0), make_checkpoint(1)
    for number in range(manager_module.STUCK_AT_ONE_PLACE - 1):
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
    for number in range(manager_module.STUCK_AT_ONE_PLACE - 1):
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


# --- Retention ------------------------------------------------------------------------------------


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


# --- Failed ranges and replays --------------------------------------------------------------------


@pytest.fixture
def topic(stack: Any) -> str:
    """A real topic of two partitions with 50 records in each."""
    name = f"manager-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 2)
    wait_for("the topic", lambda: admin.describe_topics([name]))
    producer = Producer({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in range(100):
        producer.produce(name, str(number).encode(), partition=number % 2)
    assert producer.flush(30) == 0
    return name


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
        f"Replay {replay.pk} of 10 failed offsets has begun.",
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
    assert not told.filter(text__contains="has begun").exists()


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


# --- Services -------------------------------------------------------------------------------------


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


# --- How it is run --------------------------------------------------------------------------------


def test_the_celery_task_is_one_tick_and_never_two_at_once(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[str] = []

    class Stub:
        def tick(self) -> None:
            ticks.append("tick")
            tasks.recover()

    monkeypatch.setattr(tasks, "_manager", lambda group_id: Stub())
    tasks.recover()
    assert ticks == ["tick"]
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


# --- What is no reason to act, and what is still one ----------------------------------------------


def _sleep_in(session: psycopg.Connection) -> None:
    with suppress(psycopg.errors.QueryCanceled):
        session.execute("SELECT pg_sleep(30)")


@pytest.mark.django_db(transaction=True)
def test_a_worker_whose_statement_the_database_works_on_is_slow_and_not_evicted(manager: RecoveryManager) -> None:
    make_stuck("w-1", make_checkpoint())
    with other_session("w-1") as session:
        busy = threading.Thread(target=_sleep_in, args=(session,), daemon=True)
        busy.start()
        wait_for("the database works on it", lambda: manager_module._works_in_database("w-1"))
        manager.tick()
        assert open_kinds()["worker_stuck"] == "w-1", "people are told all the same"
        assert not OperatorAction.objects.exists()
        session.cancel()
        busy.join(10)
    manager.tick()
    assert OperatorAction.objects.get().kind == "evict"


def test_a_deadlock_is_no_outage(manager: RecoveryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def collide(*_: object) -> None:
        raise OperationalError("deadlock detected") from psycopg.errors.DeadlockDetected()

    with monkeypatch.context() as patched:
        patched.setattr(assessments, "store", collide)
        assert "deadlock" in manager.tick().trouble
    manager.tick()
    assert not Incident.objects.filter(kind="database_unavailable").exists()


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
