"""Seeks, baselines, and who waits for whom."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, transaction

from analytics.processor import EngagementProcessor
from offsets import ledger
from offsets.database import WorkerSession
from offsets.models import LedgerRange, OperatorAction, PartitionCheckpoint
from offsets.processing.committer import BatchCommitter
from offsets.processing.deduplication import LedgerCutter
from offsets.processing.pipeline import Pending
from offsets.types import (
    Claim,
    PartitionCommit,
    RangeKind,
    RecordBatch,
    Segment,
    Semantics,
    StoreCommit,
)
from tests.support.ledger import (
    GROUP,
    HANDLER,
    apply,
    assert_whole,
    checkpoint,
    claimed,
    commit_of,
    other_session,
    ranges,
    tp,
)
from tests.support.records import Record, event

pytestmark = pytest.mark.django_db(transaction=True)


SESSION_BOUNDS = ("idle_in_transaction_session_timeout", "lock_timeout")


def sought(target: int, *, baseline: int | None = None) -> PartitionCheckpoint:
    """Partition 0 after an operator's seek."""
    with transaction.atomic():
        row = ledger.lock_checkpoint(checkpoint().pk)
        assert row is not None
        action = OperatorAction.objects.create(kind="seek", username="x", target="t", source="test", outcome="applied")
        return ledger.seek(row, target, action=action, baseline=baseline)


def began_at(offset: int) -> None:
    PartitionCheckpoint.objects.filter(pk=checkpoint().pk).update(
        baseline_offset=offset, next_offset=offset, ledger_end=offset
    )


@pytest.mark.parametrize("counted", [0, 10])
def test_it_leaves_nothing_below_a_baseline_that_comes_back(counted: int) -> None:
    """A seek below the baseline and its undo: what lies there was never this group's, so it is not skipped either."""
    began_at(10)
    if counted:
        apply(commit_of(claimed(), 10, 20))
    before = checkpoint()
    low = sought(4)
    assert (low.baseline_offset, low.next_offset, low.ledger_end) == (4, 4, before.ledger_end if counted else 4)
    assert_whole(counted)
    assert not ledger.anything_below(low.pk, before.baseline_offset)
    undone = sought(before.next_offset, baseline=before.baseline_offset)
    assert (undone.baseline_offset, undone.next_offset, undone.ledger_end) == (10, 10 + counted, 10 + counted)
    assert_whole(counted)
    assert ranges() == ([(10, 20, "processed", 10, 0)] if counted else [])


def test_it_moves_no_offset_over_what_was_never_read() -> None:
    """A seek below the old baseline leaves a hole below the ledger's end: no store may jump over it (I1)."""
    began_at(10)
    apply(commit_of(claimed(), 10, 20))
    sought(4)
    claim = claimed()
    apply(commit_of(claim, 4, 6))
    over = StoreCommit(tp(0), 6, 15, claim.epoch)
    with transaction.atomic():
        assert "[6, 10) has not been read yet" in ledger.move_within(GROUP, [over])[tp(0)]
    assert not ledger.align_with_store(claim, 15, "redis")
    assert checkpoint().next_offset == 6
    assert_whole(12)
    assert len(apply(cut_commit(claim, 6, 20)).applied) == 1
    assert_whole(16)


def cut_commit(claim: Claim, start: int, end: int) -> PartitionCommit:
    """As the decoding thread makes it: cut where the ledger's word changes, without what is processed."""
    cutter = LedgerCutter(
        WorkerSession("test"),
        Semantics.EXACTLY_ONCE,
        wanted=lambda _: True,
        wait=lambda _: None,
        on_trouble=lambda _: None,
    )
    records = [Record(n, event("view", n % 3, n % 5)) for n in range(start, end)]
    pending = Pending(claim)
    batch = RecordBatch(claim, start, end, records, 0)
    pieces = cutter.pieces(batch)
    pending.add(batch, [(HANDLER.decode(one.batch), one.found) for one in pieces], 0)
    return replace(HANDLER.combine(pending.batches), segments=tuple(pending.segments))


class RefusesOne(EngagementProcessor):
    """The database refuses every commit that counts offset 12."""

    def update(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        super().update(commits, connection)
        if any(commit.start <= 12 < commit.end and commit.stats.records for commit in commits):
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")


def test_it_calls_failed_what_was_skipped_and_is_refused_when_it_is_read_again() -> None:
    """An operator skipped it and took that back: it was to be counted, so it must be retried, not stay skipped."""
    claim = claimed()
    apply(commit_of(claim, 0, 10))
    LedgerRange.objects.create(checkpoint=checkpoint(), offsets=(10, 20), kind="skipped", epoch=1, detail="action 1")
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(ledger_end=20)
    found = (Segment(10, 16, RangeKind.SKIPPED, 6, 0),)
    committer = BatchCommitter(
        WorkerSession("test"), RefusesOne(), is_current=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
    )

    outcome = committer.commit([replace(commit_of(claim, 10, 16), segments=found)])

    assert list(outcome.quarantined) == [claim.checkpoint_id]
    assert ranges() == [(0, 10, "processed", 10, 0), (10, 16, "failed", 0, 0), (16, 20, "skipped", 0, 0)]
    failed = LedgerRange.objects.get(kind="failed")
    assert failed.retry_at is not None
    assert "division by zero" in failed.detail
    assert checkpoint().next_offset == 16
    assert_whole(10)


def test_it_leaves_the_attempts_of_what_fails_again() -> None:
    claim = claimed()
    apply(commit_of(claim, 0, 10))
    LedgerRange.objects.create(checkpoint=checkpoint(), offsets=(10, 16), kind="failed", epoch=1, attempts=3)
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(ledger_end=16)
    committer = BatchCommitter(
        WorkerSession("test"), RefusesOne(), is_current=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
    )

    committer.commit([replace(commit_of(claim, 10, 16), segments=(Segment(10, 16, RangeKind.FAILED, 6, 0),))])

    assert LedgerRange.objects.get(kind="failed").attempts == 3
    assert_whole(10)


def test_rows_that_refer_to_a_checkpoint_do_not_wait_for_the_commit_that_holds_it() -> None:
    """The manager samples and opens incidents while a worker stands still in its transaction."""
    claim = claimed()
    with other_session() as other:
        other.execute("SET lock_timeout = 2000")
        with transaction.atomic():
            ledger.lock_for_commit([commit_of(claim, 0, 10)])
            PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(next_offset=10, ledger_end=10)
            other.execute(
                "INSERT INTO offsets_lagsample (checkpoint_id, sampled_at, log_start_offset, log_end_offset,"
                " next_offset) VALUES (%s, clock_timestamp(), 0, 10, 0)",
                [claim.checkpoint_id],
            )
            other.execute("SET CONSTRAINTS ALL IMMEDIATE")
            other.commit()


def test_no_session_holds_its_locks_for_longer_than_the_setting(settings: Any) -> None:
    """Also a leader's that is stopped in its transaction, and a command's that was suspended."""
    bound = f"{settings.IDLE_IN_TRANSACTION_TIMEOUT_MS // 1000}s"
    database: Any = connection.copy()
    # Not by `connect`, after which the tests lift one of the bounds.
    with database.get_new_connection(database.get_connection_params()) as session:
        database.connection = session
        database.init_connection_state()
        shown = [session.execute(f"SHOW {name}").fetchone() for name in SESSION_BOUNDS]
    assert shown == [(bound,), (bound,)]
