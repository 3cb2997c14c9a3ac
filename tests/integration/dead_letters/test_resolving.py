"""Dead letters are requeued, discarded and reopened."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DataError, connection

from analytics.metrics_store import MetricsStore
from analytics.models import EngagementMinute
from analytics.processor import EngagementProcessor
from offsets import ledger
from offsets.actions import dead_letters, undo
from offsets.actions.guards import Actor, Request, Source
from offsets.errors import LedgerConflictError, RefusedError
from offsets.models import DeadLetter, JournalEntry, OperatorAction
from tests.support.dead_letters import (
    OPERATOR,
    PENDING,
    act,
    assert_whole,
    big,
    live,
    partitions,
    read,
    statuses,
    totals,
)
from tests.support.page_rows import GROUP
from tests.support.records import HOUR, START, event

pytestmark = pytest.mark.django_db


@partitions
def test_a_requeued_letter_is_counted_once_in_every_dimension() -> None:
    ids = read([event("view", 1, 5), big("share", 7, 9), event("view", 2, 5), big("like", 7, 5)])
    assert_whole(view=2)

    done = act(dead_letters.REQUEUE, ids)

    assert_whole(view=2, share=1, like=1)
    store = MetricsStore()
    assert store.entity_totals("content", 5, GROUP) == {"view": 2, "like": 1, "comment": 0, "share": 0}
    assert store.entity_totals("content", 9, GROUP) == {"view": 0, "like": 0, "comment": 0, "share": 1}
    assert store.entity_totals("user", 7, GROUP) == {"view": 0, "like": 1, "comment": 0, "share": 1}
    assert statuses() == {1: "counted", 3: "counted"}
    assert (done.changed, done.still_fail, done.reasons) == (2, 0, ())
    for letter in DeadLetter.objects.all():
        assert letter.action_id == done.action.pk
        assert letter.resolved_at is not None
    action = OperatorAction.objects.get()
    assert (action.kind, action.outcome, action.username, action.source) == ("requeue", "applied", "olga", "api")
    assert (action.before, action.after) == ({"ids": ids}, {"changed": 2, "still_fail": 0})
    assert action.target == f"{GROUP} t-0: 2 dead letters"
    assert JournalEntry.objects.get().message.startswith("olga: Requeue 2 dead letters: counted now")
    assert live().next_offset == 4, "the live offset does not move"


@partitions
def test_a_letter_is_counted_and_marked_in_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = read([event("view", 1, 5), big()])
    monkeypatch.setattr(ledger, "settle_dead_letters", lambda *_: 0)

    with pytest.raises(LedgerConflictError):
        act(dead_letters.REQUEUE, ids)

    assert_whole(view=1)
    assert statuses() == {1: "pending"}
    assert not OperatorAction.objects.exists()


@partitions
def test_it_counts_the_bytes_and_the_time_that_were_kept() -> None:
    wild = START - 365 * 24 * HOUR
    ids = read([big("share", 7, 9, at=wild)], time=START + 20 * HOUR)
    DeadLetter.objects.update(value=event("comment", 8, 11, wild))

    act(dead_letters.REQUEUE, ids)

    assert_whole(comment=1)
    minute = EngagementMinute.objects.get().minute
    assert minute == datetime.fromtimestamp((START + 20 * HOUR) / 1000, UTC), (
        "a wild clock counts in the record's own minute"
    )


@partitions
def test_letters_of_several_partitions_are_requeued_together() -> None:
    ids = read([big()], 1) + read([event("view", 1, 1), big(), big("like")], 0)
    done = act(dead_letters.REQUEUE, ids)
    assert_whole(view=1, share=2, like=1)
    assert done.action.checkpoint_id is None
    assert done.action.target == "3 dead letters"


@partitions
def test_what_still_cannot_be_decoded_stays_pending_and_is_told() -> None:
    ids = read([big(), b"nonsense", big("like"), None])

    shown = dead_letters.preview(dead_letters.REQUEUE, PENDING, OPERATOR)

    assert (shown.ids, shown.will_change, shown.still_fail) == (tuple(ids), 2, 2)
    assert "Requeue 2 dead letters: counted now" in shown.text
    assert "2 would fail again" in shown.text
    assert len(shown.reasons) == 2
    assert shown.reasons[0].startswith(f"{DeadLetter.objects.get(pk=ids[1]).error_code}: ")
    assert not totals()
    assert not OperatorAction.objects.exists(), "a preview changes nothing"

    done = act(dead_letters.REQUEUE, shown.ids)

    assert_whole(share=1, like=1)
    assert statuses() == {0: "counted", 1: "pending", 2: "counted", 3: "pending"}
    assert (done.changed, done.still_fail, done.reasons) == (2, 2, shown.reasons)
    action = OperatorAction.objects.get()
    assert action.after == {"changed": 2, "still_fail": 2}
    assert action.detail == done.text == shown.text, "the audit tells what was done, not what was asked"


@partitions
def test_it_is_refused_where_nothing_of_it_can_be_counted() -> None:
    ids = read([b"nonsense", event("view", 1, 1)])

    with pytest.raises(RefusedError, match=r"It still cannot be counted: .* Nothing was changed"):
        act(dead_letters.REQUEUE, ids)

    assert_whole(view=1)
    assert statuses() == {0: "pending"}
    action = OperatorAction.objects.get()
    assert (action.outcome, action.target) == ("refused", f"dead letter {ids[0]}")
    assert "It still cannot be counted" in action.detail


@partitions
@pytest.mark.parametrize("unfit", [{0}, {5}, {7}, {2, 3}, {0, 4, 7}])
def test_what_the_database_refuses_is_found_by_halving(monkeypatch: pytest.MonkeyPatch, unfit: set[int]) -> None:
    ids = read([big()] * 8)
    update = EngagementProcessor.update

    def refuse(self: EngagementProcessor, commits: Any, on: Any) -> None:
        update(self, commits, on)
        if any(one.start <= offset < one.end for one in commits for offset in unfit):
            raise DataError("out of range")

    monkeypatch.setattr(EngagementProcessor, "update", refuse)

    done = act(dead_letters.REQUEUE, ids)

    assert_whole(share=8 - len(unfit))
    assert {offset for offset, status in statuses().items() if status == "pending"} == unfit
    assert done.still_fail == len(unfit)
    assert all("DataError: out of range" in reason for reason in done.reasons)


@partitions
def test_what_was_requeued_is_not_requeued_again() -> None:
    ids = read([big(), big()])
    act(dead_letters.REQUEUE, ids[:1])

    for again in (ids[:1], ids):
        with pytest.raises(RefusedError, match=r"\(t-0 offset 0\) is already counted; nothing was changed"):
            act(dead_letters.REQUEUE, again)

    assert_whole(share=1)
    assert statuses() == {0: "counted", 1: "pending"}
    assert list(OperatorAction.objects.order_by("pk").values_list("outcome", flat=True)) == [
        *("applied", "refused", "refused")
    ]


@partitions
@pytest.mark.django_db(transaction=True)
def test_of_two_operators_who_requeue_the_same_one_counts_it() -> None:
    ids = read([big(), big("like")])
    barrier = threading.Barrier(2, timeout=10)
    outcomes = []

    def requeue(name: str) -> None:
        try:
            barrier.wait()
            act(dead_letters.REQUEUE, ids, actor=Actor(name, allowed=True))
            outcomes.append("applied")
        except RefusedError:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=requeue, args=(name,)) for name in ("olga", "oskar")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["applied", "refused"]
    assert_whole(share=1, like=1)


@partitions
def test_a_discarded_letter_is_never_counted_and_can_be_reopened() -> None:
    ids = read([event("view", 1, 1), big()])

    done = act(dead_letters.DISCARD, ids)

    assert_whole(view=1)
    letter = DeadLetter.objects.get()
    assert (letter.status, letter.action_id) == ("discarded", done.action.pk)
    assert letter.resolved_at is not None
    for kind in (dead_letters.REQUEUE, dead_letters.DISCARD):
        with pytest.raises(RefusedError, match="is already discarded"):
            act(kind, ids)
    act(dead_letters.REOPEN, ids)
    assert statuses() == {1: "pending"}
    assert DeadLetter.objects.filter(action=None, resolved_at=None).exists()
    with pytest.raises(RefusedError, match="is already pending"):
        act(dead_letters.REOPEN, ids)
    act(dead_letters.REQUEUE, ids)
    assert_whole(view=1, share=1)


@partitions
def test_a_discard_is_undone_for_what_it_discarded_and_nothing_else() -> None:
    ids = read([big(), big("like"), big("comment")])
    mine, other = act(dead_letters.DISCARD, ids[:2]), act(dead_letters.DISCARD, ids[2:])
    undone = undo.find(str(mine.action.pk))
    assert undo.texts(undone, OPERATOR) == ["Reopen 2 discarded dead letters: pending again."]

    (action,) = undo.undo(undone, Request(OPERATOR, "too soon", Source.API))

    assert statuses() == {0: "pending", 1: "pending", 2: "discarded"}
    assert (action.kind, action.undoes_id) == ("reopen", mine.action.pk)
    assert action.reason == "too soon"
    with pytest.raises(RefusedError, match="was already undone"):
        undo.find(str(mine.action.pk))
    act(dead_letters.REOPEN, ids[2:])
    with pytest.raises(RefusedError, match="nothing left to undo"):
        undo.texts(undo.find(str(other.action.pk)), OPERATOR)
    assert_whole()


@partitions
def test_a_requeue_cannot_be_undone() -> None:
    done = act(dead_letters.REQUEUE, read([big()]))
    with pytest.raises(RefusedError, match="cannot be undone"):
        undo.texts(undo.find(str(done.action.pk)), OPERATOR)
    with pytest.raises(RefusedError):
        undo.undo(undo.find(str(done.action.pk)), Request(OPERATOR, "r", Source.API))
    assert_whole(share=1)
