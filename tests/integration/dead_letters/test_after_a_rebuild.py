"""Dead letters of a partition that was rebuilt."""

from collections.abc import Sequence

import pytest
from django.db import transaction

from offsets import leases, ledger
from offsets.actions import audit, dead_letters
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.guards import Request, Source
from offsets.errors import RefusedError
from offsets.models import DeadLetter, OperatorAction, PartitionCheckpoint
from offsets.recovery.manager import RecoveryManager
from tests.support.dead_letters import (
    OPERATOR,
    PENDING,
    act,
    assert_whole,
    big,
    live,
    offsets_of,
    partitions,
    read,
    statuses,
)
from tests.support.page_rows import GROUP
from tests.support.records import event

pytestmark = pytest.mark.django_db


def rebuild(*, reason: str = "rebuilt") -> PartitionCheckpoint:
    """Begin the partition again at 0, as the operator's action does."""
    row = live()
    action = audit.applied("rebuild", row, Request(OPERATOR, "r", Source.API), before={}, after={}, detail="")
    with transaction.atomic():
        return ledger.retire_and_restart(row, action=action, reason=reason, baseline=0, topic_id=row.topic_id)


@partitions
def test_letters_whose_counts_a_rebuild_has_replaced_are_left_alone() -> None:
    ids = read([big()])
    rebuild()

    assert offsets_of(DeadLetterFilter(GROUP, ids=tuple(ids))) == []
    with pytest.raises(RefusedError, match="counts that a rebuild has replaced"):
        act(dead_letters.REQUEUE, ids)

    assert statuses() == {0: "pending"}
    assert_whole()


@partitions
def test_letters_of_a_topic_that_was_there_before_can_still_be_counted() -> None:
    ids = read([event("view", 1, 1), big()])
    rebuild(reason="topic_recreated")
    assert offsets_of(PENDING) == [(0, 1)]
    act(dead_letters.REQUEUE, ids)
    assert_whole(view=1, share=1)


def tick_count_again() -> None:
    manager = RecoveryManager(GROUP, "A", dispatch=lambda _: None)
    leases.drop(f"count-again:{GROUP}")
    token = leases.acquire(manager.leadership.lease_name, "A", 5)
    assert token
    manager.repairs._count_again(token)


@partitions
def test_a_letter_that_was_counted_before_a_rebuild_counts_again_after_it() -> None:
    values = [event("view", 1, 1), big(), b"nonsense", big("like")]
    ids = read(values)
    act(dead_letters.REQUEUE, [ids[0]])
    assert_whole(view=1, share=1)
    rebuild()
    tick_count_again()
    assert_whole()
    again = read(values)
    assert_whole(view=1)
    assert dead_letters.counted_before_rebuild(GROUP) == [again[0]]

    tick_count_again()

    assert_whole(view=1, share=1)
    automatic = OperatorAction.objects.get(source="automatic")
    assert (automatic.kind, automatic.outcome, automatic.username) == ("requeue", "applied", "auto:recovery-manager")
    assert automatic.reason == "it was counted before the partition was rebuilt"
    assert dead_letters.counted_before_rebuild(GROUP) == []
    tick_count_again()
    assert_whole(view=1, share=1)
    assert OperatorAction.objects.filter(source="automatic").count() == 1


@partitions
def test_what_cannot_count_again_is_tried_once_and_told() -> None:
    ids = read([big()])
    act(dead_letters.REQUEUE, ids)
    rebuild()
    again = read([big()])
    DeadLetter.objects.filter(pk__in=again).update(value=b"nonsense")

    tick_count_again()
    tick_count_again()

    refused = OperatorAction.objects.get(source="automatic")
    assert (refused.outcome, refused.target) == ("refused", f"{GROUP} t-0")
    assert "It still cannot be counted" in refused.detail
    assert DeadLetter.objects.get(pk=again[0]).status == "pending"
    assert_whole()


@partitions
def test_what_somebody_else_counted_in_this_moment_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    act(dead_letters.REQUEUE, read([big(), big("like")]))
    rebuild()
    again = read([big(), big("like")])
    lock = ledger.lock_dead_letters
    with monkeypatch.context() as patch:

        def too_late(ids: Sequence[int]) -> list[DeadLetter]:
            patch.setattr(ledger, "lock_dead_letters", lock)
            act(dead_letters.REQUEUE, again[:1])
            return lock(ids)

        patch.setattr(ledger, "lock_dead_letters", too_late)
        tick_count_again()
    assert not OperatorAction.objects.filter(source="automatic").exists()
    tick_count_again()
    assert_whole(share=1, like=1)


@partitions
def test_letters_of_another_topic_id_are_not_taken_for_the_same() -> None:
    act(dead_letters.REQUEUE, read([big()]))
    PartitionCheckpoint.objects.update(topic_id="the former topic")
    rebuild()
    PartitionCheckpoint.objects.filter(retired_at__isnull=True).update(topic_id="topic-id")
    read([big()])
    assert dead_letters.counted_before_rebuild(GROUP) == []


@partitions
def test_a_partition_whose_letters_cannot_count_again_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    act(dead_letters.REQUEUE, read([big(), big("like")]))
    rebuild()
    again = read([big(), big("like")])
    first = DeadLetter.objects.get(pk=again[0]).checkpoint_id
    other = live(1)
    OperatorAction.objects.create(
        kind=dead_letters.REQUEUE,
        checkpoint=other,
        username="auto:recovery-manager",
        target="t",
        source="automatic",
        reason="r",
        outcome="refused",
        detail="It still cannot be counted.",
    )
    assert dead_letters.counted_before_rebuild(GROUP) == again
    OperatorAction.objects.update(checkpoint_id=first)
    assert dead_letters.counted_before_rebuild(GROUP) == []
