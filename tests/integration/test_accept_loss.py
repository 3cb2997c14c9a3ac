"""Accepting failed and expired offsets; the incidents command."""

import uuid
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings as django_settings
from django.utils import timezone

from offsets.actions.guards import Actor, ReasonError, Request, Source, UnknownPartitionError
from offsets.errors import NotAllowedError, RefusedError, StalePreviewError
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
)
from offsets.monitoring import incidents
from offsets.ranges import OffsetRange
from offsets.replays import acceptance
from offsets.replays.acceptance import Accepted
from tests.support.operators import OPERATOR, VIEWER, audit, in_words, refused, run
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_worker
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db


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
    return acceptance.accept_failed(wanted, Request(actor, reason, Source.API))


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
        with pytest.raises(RefusedError, match=f"of replay {replay.pk}, which is active"):
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
    assert "No failed offsets" in refused("accept_loss", *scope, "--execute", "--reason", "r")
    assert "Select partitions" in refused("accept_loss", "--failed")
    assert "has no engagement-7" in refused("accept_loss", "--failed", "--topic", "engagement:7")


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


def make_incident(subject: str, **fields: Any) -> Incident:
    defaults = {"group_id": GROUP, "kind": "worker_dead", "summary": f"{subject} is dead.", "began_at": timezone.now()}
    return Incident.objects.create(subject=subject, **(defaults | fields))


def test_the_incidents_command_lists_open_ones_first() -> None:
    assert "No incidents." in in_words("incidents")
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
