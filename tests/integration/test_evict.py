"""Evicting a worker: preview, fence, audit, command."""

from typing import Any
from unittest import mock

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, transaction
from django.utils import timezone

from offsets import leases, ledger, workers
from offsets.actions import eviction
from offsets.actions.eviction import UnknownWorkerError
from offsets.actions.guards import Actor, ReasonError, Request, Source
from offsets.errors import FencedError, NotAllowedError, RefusedError, StalePreviewError
from offsets.models import (
    Incident,
    JournalEntry,
    OperatorAction,
    PartitionCheckpoint,
    Worker,
)
from offsets.types import BatchStats, Claim, PartitionCommit
from tests.support.operators import OPERATOR, VIEWER, audit, in_words, refused, run
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_worker

pytestmark = pytest.mark.django_db


def evict(
    worker_id: str = "w-1", *, actor: Actor = OPERATOR, reason: str = "stuck", owned: Any = None
) -> OperatorAction:
    return eviction.evict(worker_id, Request(actor, reason, Source.API), owned=owned)


def test_a_preview_says_what_an_eviction_does_and_changes_nothing() -> None:
    slot = f"slot:{GROUP}:0"
    first, second = make_checkpoint(0, owner=make_worker("w-1", slot=slot)), make_checkpoint(1)
    PartitionCheckpoint.objects.filter(pk=second.pk).update(owner="w-1")
    make_checkpoint(2, owner=make_worker("w-2"))

    shown = eviction.preview("w-1", OPERATOR)

    assert shown.owned == (first.pk, second.pk)
    assert "engagement-0, engagement-1 are fenced at once" in shown.text
    assert "its slot is restarted" in shown.text
    assert "it is not restarted" in eviction.preview("w-2", OPERATOR).text
    make_worker("w-3")
    assert "Evict w-3: it owns no partitions" in eviction.preview("w-3", OPERATOR).text
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
    with pytest.raises(FencedError, match=r"the current epoch is 4 \(operator action\)"), transaction.atomic():
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
    with pytest.raises(StalePreviewError, match="has just ended"):
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
    assert "Unknown worker w-9" in refused("evict_worker", "w-9", "--execute", "--reason", "r")
    assert Worker.objects.get().evicted_at is None
    assert not OperatorAction.objects.exists()

    data = run("evict_worker", "w-1", "--execute", "--reason", "stuck")

    action = OperatorAction.objects.get()
    assert (data["executed"], data["action_id"]) == (True, action.pk)
    assert (action.source, action.reason) == ("command", "stuck")
    assert action.username.startswith("os:")
    assert Worker.objects.get().evicted_at is not None
    assert "was already evicted" in refused("evict_worker", "w-1")
    with pytest.raises(CommandError):
        call_command("evict_worker")
