"""Evicting a worker, accepting a loss, and reading incidents: by the service layer and by the commands."""

import io
import json
import uuid
from typing import Any
from unittest import mock

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, transaction
from django.utils import timezone

from offsets import leases, ledger, workers
from offsets.actions import eviction
from offsets.actions.eviction import UnknownWorkerError
from offsets.actions.guards import Actor, ReasonError, Source, UnknownPartitionError
from offsets.errors import FencedError, NotAllowedError, RefusedError, StalePreviewError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import (
    Incident,
    IncidentEvent,
    JournalEntry,
    LedgerRange,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
    ReplayRange,
    Worker,
)
from offsets.monitoring import incidents
from offsets.ranges import OffsetRange
from offsets.replays import acceptance
from offsets.replays.acceptance import Accepted
from offsets.types import BatchStats, Claim, PartitionCommit
from tests.harness import wait_for
from tests.page_rows import GROUP, ago, make_checkpoint, make_range, make_worker

pytestmark = pytest.mark.django_db

OPERATOR = Actor("olga", allowed=True)
VIEWER = Actor("victor", allowed=False)


def evict(
    worker_id: str = "w-1", *, actor: Actor = OPERATOR, reason: str = "stuck", owned: Any = None
) -> OperatorAction:
    return eviction.evict(worker_id, actor=actor, reason=reason, source=Source.API, owned=owned)


def run(command: str, *arguments: str) -> Any:
    out = io.StringIO()
    call_command(command, *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def in_words(command: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def refused(command: str, *arguments: str, status: int = 2) -> str:
    with pytest.raises(CommandError) as error:
        call_command(command, *arguments, stdout=io.StringIO())
    assert error.value.returncode == status
    return str(error.value)


def audit() -> list[tuple[str, str, str]]:
    return list(OperatorAction.objects.order_by("pk").values_list("kind", "outcome", "username"))


# --- Evicting a worker ----------------------------------------------------------------------------


def test_a_preview_says_what_an_eviction_does_and_changes_nothing() -> None:
    slot = f"slot:{GROUP}:0"
    first, second = make_checkpoint(0, owner=make_worker("w-1", slot=slot)), make_checkpoint(1)
    PartitionCheckpoint.objects.filter(pk=second.pk).update(owner="w-1")
    make_checkpoint(2, owner=make_worker("w-2"))

    shown = eviction.preview("w-1", OPERATOR)

    assert shown.owned == (first.pk, second.pk)
    assert "engagement-0, engagement-1 are fenced at once" in shown.text
    assert "its slot is started again" in shown.text
    assert "nobody starts it again" in eviction.preview("w-2", OPERATOR).text
    make_worker("w-3")
    assert "Evict w-3: it owns nothing" in eviction.preview("w-3", OPERATOR).text
    assert not Worker.objects.exclude(evicted_at=None).exists()
    assert not OperatorAction.objects.exists()


def test_an_eviction_fences_tells_and_frees_in_one_transaction() -> None:
    slot = f"slot:{GROUP}:0"
    leases.acquire(slot, "task", 60)
    checkpoint = make_checkpoint(3, owner=make_worker("w-1", slot=slot, stage="committing engagement-3 [1000, 1200)"))
    other = make_checkpoint(4, owner=make_worker("w-2"))
    claim = Claim(checkpoint.pk, "engagement", 3, checkpoint.epoch, 1000)
    in_hand = PartitionCommit(claim, 1000, 1200, BatchStats(200), (), None)

    action = evict(owned=eviction.preview("w-1", OPERATOR).owned)

    checkpoint.refresh_from_db()
    assert (checkpoint.owner_id, checkpoint.epoch, checkpoint.epoch_cause) == (None, 4, "action")
    assert checkpoint.last_action_id == action.pk
    with pytest.raises(FencedError, match="an operator's action holds epoch 4"), transaction.atomic():
        ledger.lock_for_commit([in_hand])
    assert workers.heartbeat("w-1", workers.WorkerStats()) == (True, True), "it hears it with its next heartbeat"
    assert not leases.live([slot])
    other.refresh_from_db()
    assert (other.owner_id, other.epoch) == ("w-2", 3)
    assert (action.kind, action.outcome, action.target) == ("evict", "applied", f"{GROUP} worker w-1")
    assert action.before == {"owned": [f"{GROUP} engagement-3"], "stage": "committing engagement-3 [1000, 1200)"}
    assert action.after == {"owned": []}
    assert action.detail.startswith("Evict w-1: engagement-3 are fenced at once")
    entry = JournalEntry.objects.get()
    assert (entry.kind, entry.message, entry.worker_id) == ("evict", "w-1 evicted by olga: stuck", "w-1")


def test_an_eviction_that_does_not_come_to_its_end_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(owner=make_worker("w-1"))
    with mock.patch.object(ledger, "fence", side_effect=OperationalError("gone")), pytest.raises(OperationalError):
        evict()
    assert Worker.objects.get().evicted_at is None
    assert not OperatorAction.objects.exists()
    monkeypatch.setattr(workers, "evict", lambda _: False)
    with pytest.raises(StalePreviewError, match="in this moment"):
        evict()
    checkpoint.refresh_from_db()
    assert (checkpoint.owner_id, checkpoint.epoch) == ("w-1", 3)
    assert audit() == [("evict", "refused", "olga")]


def test_an_incident_of_the_worker_tells_who_evicted_it() -> None:
    make_worker("w-1")
    incident = Incident.objects.create(
        group_id=GROUP, kind="worker_stuck", subject="w-1", worker_id="w-1", summary="s", began_at=timezone.now()
    )
    evict(reason="does not answer")
    assert list(incident.events.values_list("source", "text")) == [
        ("operator", "Evicted by olga: does not answer"),
    ]


def test_another_assignment_than_was_seen_is_not_evicted() -> None:
    make_checkpoint(0, owner=make_worker("w-1"))
    seen = eviction.preview("w-1", OPERATOR).owned
    for change in ({"owner": None}, {"owner": "w-1", "partition": 5}):
        PartitionCheckpoint.objects.update(owner=change["owner"])
        if "partition" in change:
            make_checkpoint(5, owner=Worker.objects.get())
        with pytest.raises(StalePreviewError, match="owns other partitions than when you looked"):
            evict(owned=seen)
    assert Worker.objects.get().evicted_at is None
    assert set(PartitionCheckpoint.objects.values_list("epoch", flat=True)) == {3}
    assert audit() == [("evict", "refused", "olga")] * 2


@pytest.mark.parametrize(
    ("fields", "actor", "reason", "error"),
    [
        ({}, VIEWER, "r", NotAllowedError),
        ({}, OPERATOR, "", ReasonError),
        ({}, OPERATOR, "x" * 501, ReasonError),
        ({"state": "stopped"}, OPERATOR, "r", RefusedError),
        ({"evicted_at": ago(5)}, OPERATOR, "r", RefusedError),
        (None, OPERATOR, "r", UnknownWorkerError),
    ],
)
def test_an_eviction_is_refused_and_audited(
    fields: dict[str, Any] | None, actor: Actor, reason: str, error: type[Exception]
) -> None:
    if fields is not None:
        make_checkpoint(owner=make_worker("w-1", **fields))
    with pytest.raises(error):
        evict(actor=actor, reason=reason)
    assert not PartitionCheckpoint.objects.exclude(epoch=3).exists()
    action = OperatorAction.objects.get()
    assert (action.kind, action.outcome, action.target) == ("evict", "refused", "worker w-1")
    assert action.username == actor.name
    if error is not ReasonError:
        with pytest.raises(error):
            eviction.preview("w-1", actor)
        assert OperatorAction.objects.count() == 1, "looking is not audited"


def test_a_slot_that_another_worker_has_taken_over_stays_its_own() -> None:
    slot = f"slot:{GROUP}:0"
    make_worker("w-1", slot=slot, started_at=ago(600))
    make_worker("w-2", slot=slot)
    token = leases.acquire(slot, "the successor", 60)
    assert token
    evict("w-1")
    assert leases.renew(token, 60)


def test_the_evict_command_only_says_what_would_happen_unless_told_to_execute() -> None:
    make_checkpoint(0, owner=make_worker("w-1"))

    data = run("evict_worker", "w-1")
    assert (data["worker"], data["executed"]) == ("w-1", False)
    assert data["detail"].startswith("Evict w-1: engagement-0 are fenced")
    assert "Dry run: nothing was changed" in in_words("evict_worker", "w-1")
    assert "--execute needs --reason" in refused("evict_worker", "w-1", "--execute")
    assert "There is no worker w-9" in refused("evict_worker", "w-9", "--execute", "--reason", "r")
    assert Worker.objects.get().evicted_at is None
    assert not OperatorAction.objects.exists()

    data = run("evict_worker", "w-1", "--execute", "--reason", "stuck")

    action = OperatorAction.objects.get()
    assert (data["executed"], data["action_id"]) == (True, action.pk)
    assert (action.source, action.reason) == ("command", "stuck")
    assert action.username.startswith("os:")
    assert Worker.objects.get().evicted_at is not None
    assert "was evicted already" in refused("evict_worker", "w-1")
    with pytest.raises(CommandError):
        call_command("evict_worker")


# --- Accepting failed offsets ---------------------------------------------------------------------


@pytest.fixture
def checkpoint() -> PartitionCheckpoint:
    """[100, 200) and [300, 350) could not be applied."""
    row = make_checkpoint(0)
    make_range(row, 0, 100)
    make_range(row, 100, 200, "failed", retry_at=ago(-60), detail="DataError: no")
    make_range(row, 200, 300)
    make_range(row, 300, 350, "failed")
    make_range(row, 350, 1000)
    return row


def accept(*wanted: Accepted, actor: Actor = OPERATOR, reason: str = "worthless") -> list[OperatorAction]:
    return acceptance.accept_failed(wanted, actor=actor, reason=reason, source=Source.API)


def failed_of(row: PartitionCheckpoint) -> list[tuple[int, int]]:
    rows = LedgerRange.objects.filter(checkpoint=row, kind="failed").order_by("offsets")
    return [(one.offsets.lower, one.offsets.upper) for one in rows]


def test_accepted_offsets_are_skipped_and_nothing_tries_them_again(checkpoint: PartitionCheckpoint) -> None:
    incident = Incident.objects.create(
        group_id=GROUP, kind="failed_ranges", subject="s", checkpoint=checkpoint, summary="s", began_at=timezone.now()
    )
    wanted = Accepted(checkpoint.pk, OffsetRange(50, 310))
    shown = acceptance.preview(wanted, OPERATOR)
    assert (shown.failed, shown.target) == (110, "engagement-0")
    assert "Accept that 110 failed offsets of engagement-0 in [50, 310) are not counted" in shown.text
    assert not OperatorAction.objects.exists()

    (action,) = accept(Accepted(checkpoint.pk, shown.offsets, shown.failed))

    assert failed_of(checkpoint) == [(310, 350)]
    skipped = LedgerRange.objects.filter(checkpoint=checkpoint, kind="skipped").order_by("offsets")
    assert [(one.offsets.lower, one.offsets.upper, one.retry_at) for one in skipped] == [
        *((100, 200, None), (300, 310, None))
    ]
    assert {one.detail for one in skipped} == {f"action {action.pk}: failed, and accepted"}
    assert (action.kind, action.outcome, action.checkpoint_id) == ("accept_failed", "applied", checkpoint.pk)
    assert (action.before, action.after) == ({"start": 50, "end": 310, "failed": 110}, {"skipped": 110})
    assert list(incident.events.values_list("source", "text")) == [("operator", "Accept failed by olga: worthless")]
    assert JournalEntry.objects.get().kind == "accept_failed"
    checkpoint.refresh_from_db()
    assert (checkpoint.next_offset, checkpoint.epoch) == (1000, 3), "nothing moves"


def test_all_of_it_is_accepted_or_nothing(checkpoint: PartitionCheckpoint) -> None:
    healthy = make_checkpoint(1)
    make_range(healthy, 0, 1000)
    with pytest.raises(RefusedError, match=r"engagement-1 \[0, 10\) holds no failed offsets"):
        accept(Accepted(checkpoint.pk, OffsetRange(0, 1000)), Accepted(healthy.pk, OffsetRange(0, 10)))
    assert failed_of(checkpoint) == [(100, 200), (300, 350)]
    assert audit() == [("accept_failed", "refused", "olga")]
    assert OperatorAction.objects.get().checkpoint_id == healthy.pk
    make_range(make_checkpoint(2), 0, 5, "failed")
    other = PartitionCheckpoint.objects.get(partition=2)
    done = accept(Accepted(checkpoint.pk, OffsetRange(0, 1000)), Accepted(other.pk, OffsetRange(0, 5)))
    assert len({action.change_id for action in done}) == 1
    assert failed_of(checkpoint) == failed_of(other) == []


@pytest.mark.parametrize(
    ("wanted", "actor", "reason", "error"),
    [
        (Accepted(0, OffsetRange(0, 1000), 149), OPERATOR, "r", StalePreviewError),
        (Accepted(0, OffsetRange(0, 1000), 151), OPERATOR, "r", StalePreviewError),
        (Accepted(0, OffsetRange(0, 100)), OPERATOR, "r", RefusedError),
        (Accepted(0, OffsetRange(0, 1000)), VIEWER, "r", NotAllowedError),
        (Accepted(0, OffsetRange(0, 1000)), OPERATOR, " ", ReasonError),
        (Accepted(987654, OffsetRange(0, 1000)), OPERATOR, "r", UnknownPartitionError),
    ],
)
def test_accepting_is_refused_and_audited(
    checkpoint: PartitionCheckpoint, wanted: Accepted, actor: Actor, reason: str, error: type[Exception]
) -> None:
    at = Accepted(wanted.checkpoint_id or checkpoint.pk, wanted.offsets, wanted.failed)
    with pytest.raises(error):
        accept(at, actor=actor, reason=reason)
    assert failed_of(checkpoint) == [(100, 200), (300, 350)]
    assert audit() == [("accept_failed", "refused", actor.name)]


def test_what_a_replay_reads_now_is_not_accepted_and_a_preview_says_so(checkpoint: PartitionCheckpoint) -> None:
    replay = Replay.objects.create(group_id=GROUP, username="u", reason="r", status="running")
    ReplayRange.objects.create(replay=replay, checkpoint=checkpoint, start=100, end=200, position=150)
    wanted = Accepted(checkpoint.pk, OffsetRange(0, 1000))
    for refuses in (lambda: acceptance.preview(wanted, OPERATOR), lambda: accept(wanted)):
        with pytest.raises(RefusedError, match=f"of replay {replay.pk}, which has not ended"):
            refuses()
    assert failed_of(checkpoint) == [(100, 200), (300, 350)]
    Replay.objects.update(status="done")
    accept(wanted)
    assert failed_of(checkpoint) == []


def test_a_retired_checkpoint_is_left_as_it_is(checkpoint: PartitionCheckpoint) -> None:
    PartitionCheckpoint.objects.update(retired_at=ago(1), retired_reason="rebuilt")
    with pytest.raises(RefusedError, match="was retired"):
        accept(Accepted(checkpoint.pk, OffsetRange(0, 1000)))
    assert failed_of(checkpoint) == [(100, 200), (300, 350)]


def test_the_command_accepts_failed_offsets_of_its_scope(checkpoint: PartitionCheckpoint) -> None:
    other = make_checkpoint(1)
    make_range(other, 0, 1000, "failed")
    scope = ("--failed", "--topic", "engagement:0")

    data = run("accept_loss", *scope)

    assert (data["action"], data["executed"]) == ("accept_failed", False)
    assert data["items"] == [
        {"partition": "engagement-0", "start": 100, "end": 200, "failed": 100},
        {"partition": "engagement-0", "start": 300, "end": 350, "failed": 50},
    ]
    assert "Dry run: nothing was changed" in in_words("accept_loss", *scope)
    assert "--execute needs --reason" in refused("accept_loss", *scope, "--execute")
    assert not OperatorAction.objects.exists()

    assert run("accept_loss", *scope, "--execute", "--reason", "worthless")["executed"] is True

    assert failed_of(checkpoint) == []
    assert failed_of(other) == [(0, 1000)]
    assert set(OperatorAction.objects.values_list("source", "outcome")) == {("command", "applied")}
    assert "holds no failed offsets" in refused("accept_loss", *scope, "--execute", "--reason", "r")
    assert "Name the partitions" in refused("accept_loss", "--failed")
    assert "has no engagement-7" in refused("accept_loss", "--failed", "--topic", "engagement:7")


# --- Accepting what Kafka deleted -----------------------------------------------------------------


@pytest.fixture
def expired(stack: Any) -> PartitionCheckpoint:
    """A real partition whose records below 30 are deleted, read up to 10."""
    name = f"loss-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 1)
    wait_for("the topic", lambda: admin.describe_topics([name]))
    broker = {"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS}
    producer = Producer(broker)
    for number in range(50):
        producer.produce(name, str(number).encode())
    assert producer.flush(30) == 0
    client = AdminClient(broker)
    for deleted in client.delete_records([KafkaTopicPartition(name, 0, 30)]).values():
        deleted.result(30)
    topic_id = admin.describe_topic(name).topic_id
    row = make_checkpoint(
        topic=name, topic_id=topic_id, next_offset=10, halt_reason="expired", halted_at=ago(9), owner=make_worker("w-1")
    )
    make_range(row, 0, 10)
    return row


def test_the_command_goes_on_where_the_log_begins_and_records_the_loss(expired: PartitionCheckpoint) -> None:
    incident = Incident.objects.create(
        group_id=GROUP, kind="halted_expired", subject="s", checkpoint=expired, summary="s", began_at=timezone.now()
    )
    scope = ("--topic", expired.topic)

    (item,) = run("accept_loss", *scope)["items"]

    assert (item["before"]["next_offset"], item["after"]["next_offset"], item["log_start_offset"]) == (10, 30, 30)
    expired.refresh_from_db()
    assert expired.next_offset == 10
    assert not OperatorAction.objects.exists()

    done = run("accept_loss", *scope, "--execute", "--reason", "they are gone")

    expired.refresh_from_db()
    assert (expired.next_offset, expired.halt_reason, expired.epoch) == (30, "", 4)
    ranges = LedgerRange.objects.filter(checkpoint=expired).order_by("offsets")
    assert [(one.offsets.lower, one.offsets.upper, one.kind) for one in ranges] == [
        *((0, 10, "processed"), (10, 30, "expired"))
    ]
    action = OperatorAction.objects.get()
    assert (action.kind, str(action.change_id)) == ("accept_loss", done["change_id"])
    assert incident.events.get().source == "operator"
    assert incident.events.get().text.startswith("Accept loss by os:")
    assert "nothing" in refused("accept_loss", *scope, "--execute", "--reason", "again")


# --- Reading incidents ----------------------------------------------------------------------------


def make_incident(subject: str, **fields: Any) -> Incident:
    defaults = {"group_id": GROUP, "kind": "worker_dead", "summary": f"{subject} is dead.", "began_at": timezone.now()}
    return Incident.objects.create(subject=subject, **(defaults | fields))


def test_the_incidents_command_lists_open_ones_first() -> None:
    assert "No incident is known." in in_words("incidents")
    long_ago = make_incident("old", closed_at=ago(3600), opened_at=ago(3700))
    lately = make_incident("new", closed_at=ago(60), opened_at=ago(70))
    goes_on = make_incident(
        "open", ranges=[{"topic": "t", "partition": 0, "kind": "unread", "start": 1000, "end": 2000}]
    )
    failing = make_incident("t-0", kind="failed_ranges")
    make_incident("other", group_id="another")
    IncidentEvent.objects.create(incident=goes_on, text="Detected: it is dead.")

    data = run("incidents")

    assert data["count"] == 4
    assert [one["id"] for one in data["items"]] == [failing.pk, goes_on.pk, lately.pk, long_ago.pk]
    assert data["items"][1]["timeline"][0]["text"] == "Detected: it is dead."
    assert data["items"][1]["recover_seconds"] is None
    assert 9 < data["items"][2]["recover_seconds"] < 12
    assert [one["id"] for one in run("incidents", "--open")["items"]] == [failing.pk, goes_on.pk]
    assert [one["id"] for one in run("incidents", "--kind", "failed_ranges")["items"]] == [failing.pk]
    limited = run("incidents", "--limit", "1")
    assert (limited["count"], len(limited["items"])) == (4, 1)
    text = in_words("incidents")
    assert f"{goes_on.pk} critical worker_dead open: open, detected in" in text
    assert "t-0 [1,000, 2,000) unread" in text
    assert "recovered in 10 s" in text


def test_incidents_that_were_closed_long_ago_are_forgotten() -> None:
    kept = make_incident("new", closed_at=ago(86_400))
    make_incident("old", closed_at=ago(9 * 86_400))
    going_on = make_incident("open", began_at=timezone.now())
    IncidentEvent.objects.create(incident=Incident.objects.get(subject="old"), text="x")
    assert incidents.purge(7) == 1
    assert set(Incident.objects.values_list("pk", flat=True)) == {kept.pk, going_on.pk}
    assert not IncidentEvent.objects.exists()
