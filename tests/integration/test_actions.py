import threading
from datetime import timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.db import connection, transaction
from django.utils import timezone

from offsets import ledger
from offsets.actions import moves, pause
from offsets.actions.guards import Actor, ReasonError, Request, Seen, Source, UnknownPartitionError
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.actions.pause import ActionKind
from offsets.errors import NotAllowedError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.models import DatabaseTime, JournalEntry, LagSample, OperatorAction, PartitionCheckpoint
from tests.support.page_rows import make_checkpoint, make_sample, make_user, make_worker

pytestmark = pytest.mark.django_db

OPERATOR = Actor("olga", allowed=True)
VIEWER = Actor("victor", allowed=False)


def apply(kind, checkpoint, *, actor=OPERATOR, reason="Deploying", seen=None):
    request = Request(actor, reason, Source.API)
    return pause.set_paused(kind, checkpoint.pk, request, seen=seen or Seen.of(checkpoint))


def desired_state(checkpoint):
    return PartitionCheckpoint.objects.get(pk=checkpoint.pk).desired_state


def test_it_pauses_with_an_audit_row_and_a_journal_entry():
    checkpoint = make_checkpoint(3, owner=make_worker("w-7f2"))

    action = apply(ActionKind.PAUSE, checkpoint, reason="  Deploying  ")

    checkpoint.refresh_from_db()
    assert checkpoint.desired_state == "paused"
    assert checkpoint.last_action_id == action.pk
    assert (action.outcome, action.kind, action.username, action.source) == ("applied", "pause", "olga", "api")
    assert action.reason == "Deploying"
    assert action.target == "engagement-analytics engagement-3"
    seen = {"desired_state": "running", "next_offset": 1000, "epoch": 3, "owner": "w-7f2"}
    assert action.before == {
        **seen,
        "checkpoint_id": checkpoint.pk,
        "baseline_offset": 0,
        "ledger_end": 1000,
        "halt_reason": "",
    }
    assert action.after == {**action.before, "desired_state": "paused"}
    entry = JournalEntry.objects.get()
    assert (entry.kind, entry.topic, entry.partition) == ("paused", "engagement", 3)
    assert entry.message == "engagement-3 paused by olga: Deploying"


def test_it_resumes_what_was_paused():
    checkpoint = make_checkpoint(desired_state="paused")

    apply(ActionKind.RESUME, checkpoint)

    assert desired_state(checkpoint) == "running"
    assert JournalEntry.objects.get().kind == "resumed"


def assert_refused(checkpoint, error, detail, **given):
    before = PartitionCheckpoint.objects.values().get(pk=checkpoint.pk)

    with pytest.raises(error, match=detail):
        apply(given.pop("kind", ActionKind.PAUSE), checkpoint, **given)

    assert PartitionCheckpoint.objects.values().get(pk=checkpoint.pk) == before
    action = OperatorAction.objects.get()
    assert action.outcome == "refused"
    assert action.before == action.after
    assert action.checkpoint_id == checkpoint.pk
    assert not JournalEntry.objects.exists()
    return action


def test_it_refuses_and_audits_a_user_without_the_permission():
    action = assert_refused(make_checkpoint(), NotAllowedError, "victor may not pause", actor=VIEWER)

    assert action.username == "victor"


def test_it_locks_nothing_and_asks_kafka_nothing_for_a_user_without_the_permission(monkeypatch):
    checkpoint = make_checkpoint()
    for module, name in ((ledger, "lock_checkpoint"), (ledger, "lock_checkpoints"), (moves, "logs_of")):
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name} was called"))

    assert_refused(checkpoint, NotAllowedError, "victor may not pause", actor=VIEWER)
    with pytest.raises(NotAllowedError):
        moves.move_partitions(MoveKind.SEEK, [Move(checkpoint.pk, 5)], Request(VIEWER, "r", Source.API))

    assert list(OperatorAction.objects.values_list("kind", "outcome")) == [("pause", "refused"), ("seek", "refused")]


@pytest.mark.parametrize(
    ("reason", "detail"), [("", "Enter a reason"), (" \x00\n", "Enter a reason"), ("x" * 501, "501 characters")]
)
def test_it_refuses_and_audits_a_useless_reason(reason, detail):
    action = assert_refused(make_checkpoint(), ReasonError, detail, reason=reason)

    assert len(action.reason) <= 500


def test_it_accepts_the_longest_reason():
    assert apply(ActionKind.PAUSE, make_checkpoint(), reason="x" * 500).reason == "x" * 500


def test_it_refuses_to_pause_twice():
    assert_refused(make_checkpoint(desired_state="paused"), RefusedError, "already paused")


def test_it_refuses_to_resume_what_runs():
    assert_refused(make_checkpoint(), RefusedError, "already running", kind=ActionKind.RESUME)


def test_it_refuses_a_retired_checkpoint():
    retired = make_checkpoint(retired_at=DatabaseTime(), retired_reason="rebuilt")

    assert_refused(retired, RefusedError, r"was retired \(rebuilt\)")


@pytest.mark.parametrize(
    ("seen", "detail"),
    [
        (Seen(2, "w-1", "running"), "epoch was 2, is 3"),
        (Seen(3, "w-0", "running"), "owner was w-0, is w-1"),
        (Seen(3, None, "running"), "owner was none, is w-1"),
        (Seen(3, "w-1", "paused"), "desired_state was paused, is running"),
    ],
)
def test_it_refuses_when_the_partition_is_not_as_it_was_seen(seen, detail):
    assert_refused(make_checkpoint(owner=make_worker("w-1")), StalePreviewError, detail, seen=seen)


def test_it_refuses_and_audits_an_unknown_checkpoint():
    with pytest.raises(UnknownPartitionError, match="Unknown checkpoint 987654"):
        pause.set_paused(
            ActionKind.PAUSE,
            987654,
            Request(OPERATOR, "r", Source.COMMAND),
            seen=Seen(1, None, "running"),
        )

    assert OperatorAction.objects.get().target == "checkpoint 987654"


def test_it_leaves_no_audit_row_of_success_when_the_ledger_does_not_take_the_change():
    checkpoint = make_checkpoint()

    with mock.patch.object(ledger, "set_desired_state", return_value=False), pytest.raises(StalePreviewError):
        apply(ActionKind.PAUSE, checkpoint)

    assert [action.outcome for action in OperatorAction.objects.all()] == ["refused"]


@pytest.mark.django_db(transaction=True)
def test_it_lets_only_one_of_two_operators_who_saw_the_same_act():
    checkpoint = make_checkpoint()
    seen = Seen.of(checkpoint)
    barrier = threading.Barrier(2, timeout=10)
    outcomes = []

    def act(name):
        try:
            barrier.wait()
            apply(ActionKind.PAUSE, checkpoint, actor=Actor(name, allowed=True), seen=seen)
            outcomes.append("applied")
        except RefusedError:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=act, args=(name,)) for name in ("olga", "oskar")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(outcomes) == ["applied", "refused"]
    assert sorted(OperatorAction.objects.values_list("outcome", flat=True)) == ["applied", "refused"]


@pytest.mark.django_db(transaction=True)
def test_it_does_not_wait_for_a_worker_that_was_stopped_in_mid_transaction(settings):
    settings.CLAIM_LOCK_TIMEOUT_MS = 100
    checkpoint = make_checkpoint()
    held, done = threading.Event(), threading.Event()

    def hold():
        try:
            with transaction.atomic():
                ledger.lock_checkpoint(checkpoint.pk)
                held.set()
                done.wait(20)
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(10)
        with pytest.raises(ServiceUnavailableError, match="Nothing was changed"):
            apply(ActionKind.PAUSE, checkpoint)
    finally:
        done.set()
        thread.join(20)
    assert desired_state(checkpoint) == "running"


def test_it_previews_a_pause_in_words_with_the_rate_at_which_lag_will_grow():
    checkpoint = make_checkpoint(3, owner=make_worker("w-7f2"))
    now = timezone.now()
    make_sample(checkpoint, 10, 1000, 900)
    make_sample(checkpoint, 0, 32_000, 1000)
    # Exactly ten seconds apart, however long the rows took to write.
    first, second = LagSample.objects.order_by("log_end_offset")
    LagSample.objects.filter(pk=first.pk).update(sampled_at=now - timedelta(seconds=10))
    LagSample.objects.filter(pk=second.pk).update(sampled_at=now)

    preview = pause.preview(ActionKind.PAUSE, checkpoint.pk, OPERATOR)

    assert preview.text == (
        "Pause engagement-3 at offset 1,000: its worker w-7f2 stops within 1.0 s; "
        "lag will grow by about 3,100 a second."
    )
    assert preview.seen == Seen(3, "w-7f2", "running", 1000)
    assert (preview.before["desired_state"], preview.after["desired_state"]) == ("running", "paused")
    assert not OperatorAction.objects.exists()


def test_it_previews_a_resume_with_what_waits():
    checkpoint = make_checkpoint(desired_state="paused")
    make_sample(checkpoint, 1, 12_118, 1000)

    text = pause.preview(ActionKind.RESUME, checkpoint.pk, OPERATOR).text

    assert text == (
        "Resume engagement-0 at offset 1,000: no worker owns it; the next owner will resume it; 11,118 records behind."
    )


def test_it_says_that_resuming_does_not_end_a_halt():
    checkpoint = make_checkpoint(desired_state="paused", halt_reason="expired")

    assert "it stays halted (expired)" in pause.preview(ActionKind.RESUME, checkpoint.pk, OPERATOR).text


def test_it_applies_exactly_what_was_previewed():
    checkpoint = make_checkpoint(owner=make_worker())
    preview = pause.preview(ActionKind.PAUSE, checkpoint.pk, OPERATOR)

    action = apply(ActionKind.PAUSE, checkpoint, seen=preview.seen)

    assert (action.before, action.after, action.detail) == (preview.before, preview.after, preview.text)


@pytest.mark.parametrize(
    ("fields", "actor", "error"),
    [
        ({"desired_state": "paused"}, OPERATOR, RefusedError),
        ({"retired_at": DatabaseTime(), "retired_reason": "rebuilt"}, OPERATOR, RefusedError),
        ({}, VIEWER, NotAllowedError),
    ],
)
def test_it_previews_a_refusal_as_a_refusal(fields, actor, error):
    checkpoint = make_checkpoint(**fields)

    with pytest.raises(error):
        pause.preview(ActionKind.PAUSE, checkpoint.pk, actor)


def test_it_takes_permission_from_the_operator_group_alone():
    assert Actor.of_user(make_user("o", "operator")) == Actor("o", allowed=True)
    assert Actor.of_user(make_user("v", "viewer")) == Actor("v", allowed=False)
    assert Actor.of_user(make_user("gone", "operator", is_active=False)).allowed is False
    assert Actor.of_user(AnonymousUser()).allowed is False
    assert Actor.of_operating_system().allowed is True


def test_it_gives_viewers_every_view_permission_and_operators_one_more():
    viewer = set(Group.objects.get(name="viewer").permissions.values_list("codename", flat=True))
    operator = set(Group.objects.get(name="operator").permissions.values_list("codename", flat=True))

    assert {"view_partitioncheckpoint", "view_deadletter", "view_engagementminute"} <= viewer
    assert all(name.startswith("view_") for name in viewer)
    assert operator - viewer == {"operate_partitions"}
