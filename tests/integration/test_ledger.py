"""The ledger on real PostgreSQL: fences, claims, ranges, and what the database itself refuses."""

import itertools
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction

from analytics.metrics_store import MetricsStore
from analytics.models import EngagementDelta
from analytics.processor import EngagementProcessor
from offsets import failpoints, ledger, workers
from offsets.database import WorkerSession
from offsets.errors import FencedError
from offsets.ledger import Baseline
from offsets.models import DeadLetter, LedgerRange, OperatorAction, PartitionCheckpoint
from offsets.monitoring import invariants
from offsets.processing.committer import BatchCommitter, CommitOutcome
from offsets.processing.deduplication import LedgerCutter
from offsets.processing.pipeline import Pending
from offsets.types import (
    Claim,
    DesiredState,
    HaltReason,
    PartitionCommit,
    RangeKind,
    RecordBatch,
    Segment,
    Semantics,
    StoreCommit,
    TopicPartition,
)
from tests.unit.test_aggregation import Record, event

pytestmark = pytest.mark.django_db(transaction=True)

GROUP = "ledger-test"
HANDLER = EngagementProcessor()
SESSION_BOUNDS = ("idle_in_transaction_session_timeout", "lock_timeout")


@pytest.fixture(autouse=True)
def partitions() -> None:
    baselines = {number: Baseline("topic-id", 0, "earliest") for number in range(3)}
    assert ledger.insert_baselines(GROUP, "t", baselines, HANDLER.dimensions) == [0, 1, 2]


def tp(number: int) -> TopicPartition:
    return TopicPartition("t", number)


def worker() -> str:
    name = workers.new_worker_id()
    workers.register(name, GROUP)
    return name


def claimed(number: int = 0, by: str | None = None) -> Claim:
    (claim,) = ledger.claim(GROUP, by or worker(), [tp(number)])
    return claim


def commit_of(claim: Claim, start: int, end: int, *, poison: tuple[int, ...] = ()) -> PartitionCommit:
    records = [Record(n, b"bad" if n in poison else event("view", n % 3, n % 5)) for n in range(start, end)]
    return HANDLER.combine([HANDLER.decode(RecordBatch(claim, start, end, records, 0))])


def apply(*commits: PartitionCommit) -> CommitOutcome:
    committer = BatchCommitter(
        WorkerSession("test"), HANDLER, is_current=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
    )
    return committer.commit(commits)


def checkpoint(number: int = 0) -> PartitionCheckpoint:
    return PartitionCheckpoint.objects.get(group_id=GROUP, partition=number)


def ranges(number: int = 0) -> list[tuple[int, int, str, int, int]]:
    rows = LedgerRange.objects.filter(checkpoint=checkpoint(number)).order_by("offsets")
    return [(r.offsets.lower, r.offsets.upper, r.kind, r.records, r.failed_records) for r in rows]


def assert_whole(events: int) -> None:
    result = invariants.check(GROUP)
    assert result.ok, result
    assert sum(MetricsStore().totals(GROUP).values()) == events


@contextmanager
def other_session() -> Iterator[psycopg.Connection]:
    """A second connection, outside Django's."""
    values = connection.get_connection_params()
    values.pop("cursor_factory", None)
    values.pop("context", None)
    with psycopg.connect(**values) as other:
        yield other


def test_it_grows_one_range_and_sets_dead_letters_apart() -> None:
    claim = claimed()
    assert len(apply(commit_of(claim, 0, 10)).applied) == 1
    assert len(apply(commit_of(claim, 10, 20, poison=(13, 17))).applied) == 1
    assert ranges() == [(0, 20, "processed", 18, 2)]
    assert list(DeadLetter.objects.order_by("offset").values_list("offset", flat=True)) == [13, 17]
    assert checkpoint().next_offset == checkpoint().ledger_end == 20
    assert_whole(18)


def test_it_starts_a_new_range_after_one_that_was_not_processed() -> None:
    claim = claimed()
    apply(commit_of(claim, 0, 10))
    LedgerRange.objects.create(checkpoint=checkpoint(), offsets=(10, 15), kind="skipped", epoch=1)
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(next_offset=15, ledger_end=15)
    apply(commit_of(claim, 15, 20))
    apply(commit_of(claim, 20, 22))
    assert ranges() == [(0, 10, "processed", 10, 0), (10, 15, "skipped", 0, 0), (15, 22, "processed", 7, 0)]
    assert_whole(17)


def test_it_refuses_the_former_owner_and_writes_nothing() -> None:
    zombie = claimed()
    apply(commit_of(zombie, 0, 5))
    successor = claimed()
    assert successor.epoch == zombie.epoch + 1
    outcome = apply(commit_of(zombie, 5, 9))
    assert not outcome.applied
    assert "epoch 1 is over" in outcome.fenced[zombie.checkpoint_id]
    assert len(apply(commit_of(successor, 5, 9)).applied) == 1
    again = apply(commit_of(successor, 5, 9))
    assert "next offset is 9, not 5" in again.fenced[successor.checkpoint_id]
    assert_whole(9)


def test_it_leaves_healthy_partitions_whole_when_one_is_fenced() -> None:
    name = worker()
    stale, healthy = claimed(0, name), claimed(1, name)
    claimed(0)
    outcome = apply(commit_of(stale, 0, 5), commit_of(healthy, 0, 7))
    assert [one.claim for one in outcome.applied] == [healthy]
    assert set(outcome.fenced) == {stale.checkpoint_id}
    assert EngagementDelta.objects.filter(checkpoint_id=stale.checkpoint_id).count() == 0
    assert_whole(7)


@pytest.mark.parametrize("point", ["before_sql", "before_commit", "after_commit"])
def test_it_counts_once_when_the_connection_is_lost(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_points", {point: ("error", 1, "")})
    monkeypatch.setattr(failpoints, "_passages", Counter())
    claim = claimed()

    def wait(_: float) -> None:
        failpoints._points.clear()

    committer = BatchCommitter(
        WorkerSession("test"), HANDLER, is_current=lambda _: True, wait=wait, on_trouble=lambda _: None
    )
    assert len(committer.commit([commit_of(claim, 0, 10)]).applied) == 1
    assert_whole(10)


def test_it_finds_that_another_took_over_after_an_unknown_commit() -> None:
    claim = claimed()
    commit = commit_of(claim, 0, 5)
    with transaction.atomic():
        assert not ledger.probe_commit([commit], uuid.uuid4()).applied
    claimed()
    with transaction.atomic():
        probed = ledger.probe_commit([commit], uuid.uuid4())
    assert not probed.applied
    assert set(probed.misses) == {claim.checkpoint_id}


def test_it_isolates_a_partition_whose_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = worker()
    bad, good = claimed(0, name), claimed(1, name)
    update = HANDLER.update

    def refuse(commits: list[PartitionCommit], connection: object) -> None:
        if any(one.claim == bad for one in commits):
            raise DataError("no")
        update(commits, connection)

    monkeypatch.setattr(HANDLER, "update", refuse)
    outcome = apply(commit_of(bad, 0, 5), commit_of(good, 0, 5))
    assert set(outcome.quarantined) == {bad.checkpoint_id}
    assert not outcome.refused
    assert [one.claim for one in outcome.applied] == [good]
    assert_whole(5)


def test_it_leaves_locked_rows_out_of_a_claim() -> None:
    with other_session() as other:
        other.execute("SELECT 1 FROM offsets_partitioncheckpoint WHERE partition = 1 FOR UPDATE")
        claims = ledger.claim(GROUP, worker(), [tp(0), tp(1), tp(2)])
    assert {one.partition for one in claims} == {0, 2}


def test_it_ends_the_open_transaction_of_a_former_owner() -> None:
    former = worker()
    claimed(0, former)
    with other_session() as other:
        other.execute("SELECT set_config('application_name', %s, false)", [former])
        other.commit()
        other.execute("SELECT 1 FROM offsets_partitioncheckpoint WHERE partition = 0 FOR UPDATE")
        # The lock is free once the session is gone; the claim itself may still have skipped it.
        claims: list[Claim] = []
        for _ in range(50):
            claims = claims or ledger.claim(GROUP, worker(), [tp(0)])
        assert claims
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


def test_it_starts_a_partition_by_which_the_topic_grew_at_zero() -> None:
    baselines = {3: Baseline("topic-id", 500, "latest")}
    assert ledger.insert_baselines(GROUP, "t", baselines, HANDLER.dimensions) == [3]
    assert (checkpoint(3).next_offset, checkpoint(3).baseline_kind) == (0, "grown")


def test_it_inserts_each_baseline_once_when_two_members_come_first_together() -> None:
    baselines = {number: Baseline("id", 7, "latest") for number in range(8)}
    inserted: list[list[int]] = []

    def insert() -> None:
        inserted.append(ledger.insert_baselines("both", "new", baselines, ()))
        connection.close()

    threads = [threading.Thread(target=insert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*inserted)) == list(range(8))
    rows = PartitionCheckpoint.objects.filter(group_id="both")
    assert set(rows.values_list("next_offset", "baseline_kind")) == {(7, "latest")}


def test_it_refuses_overlapping_ranges() -> None:
    apply(commit_of(claimed(), 0, 10))
    with pytest.raises(IntegrityError):
        LedgerRange.objects.create(checkpoint=checkpoint(), offsets=(9, 12), kind="skipped", epoch=1)


def test_it_refuses_to_lower_a_next_offset_without_an_action() -> None:
    claim = claimed()
    apply(commit_of(claim, 0, 10))
    row = PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id)
    with pytest.raises(IntegrityError, match="may not fall"):
        row.update(next_offset=4)
    with pytest.raises(IntegrityError, match="audited action"):
        row.update(next_offset=4, epoch=9)
    with pytest.raises(IntegrityError, match="epoch may not fall"):
        row.update(epoch=0)
    action = OperatorAction.objects.create(kind="seek", username="x", target="t-0", source="test", outcome="applied")
    assert row.update(next_offset=4, epoch=9, last_action=action) == 1


def test_it_releases_and_halts_only_under_its_own_epoch() -> None:
    stale = claimed()
    current = claimed()
    assert ledger.release([stale]) == []
    assert not ledger.halt(stale.checkpoint_id, stale.epoch, HaltReason.EXPIRED, "x")
    assert ledger.halt(current.checkpoint_id, current.epoch, HaltReason.EXPIRED, "x")
    assert not ledger.halt(current.checkpoint_id, current.epoch, HaltReason.EXPIRED, "x")
    assert ledger.release([current]) == [current.checkpoint_id]
    assert checkpoint().owner is None


def test_it_changes_the_operators_wish_only_as_it_was_seen() -> None:
    claim = claimed()
    action = OperatorAction.objects.create(kind="pause", username="x", target="t", source="test", outcome="applied")
    change = (claim.checkpoint_id, "running", claim.epoch, DesiredState.PAUSED, action.pk)
    assert not ledger.set_desired_state(*change[:2], claim.epoch + 1, *change[3:])
    assert ledger.set_desired_state(*change)
    assert not ledger.set_desired_state(*change)
    assert ledger.control_states([claim.checkpoint_id])[claim.checkpoint_id].desired_state is DesiredState.PAUSED


def test_it_knows_which_partitions_another_live_worker_holds() -> None:
    mine, theirs = worker(), worker()
    claimed(0, mine)
    claimed(1, theirs)
    assert ledger.held_by_others(GROUP, mine, [tp(0), tp(1), tp(2)]) == {tp(1)}
    workers.mark_stopped(theirs)
    assert ledger.held_by_others(GROUP, mine, [tp(0), tp(1), tp(2)]) == set()


def test_it_notices_when_counts_and_ledger_differ() -> None:
    apply(commit_of(claimed(), 0, 10))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE analytics_engagementdelta SET views = views + 1 WHERE dimension = 1")
        cursor.execute("DELETE FROM analytics_engagementminute")
        cursor.execute("UPDATE offsets_ledgerrange SET failed_records = 1, offsets = '[1,10)'")
    broken = {name for name, one in invariants.check(GROUP).invariants.items() if not one.ok}
    assert broken == {"I1", "I3", "I4", "I6"}


def test_it_folds_without_a_reader_ever_seeing_a_wrong_sum() -> None:
    claim = claimed()
    for start in range(0, 200, 10):
        apply(commit_of(claim, start, start + 10))
    store, seen, done = MetricsStore(), set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(sum(sum(row[2:]) for row in MetricsStore().export(GROUP) if row[0] == "content"))
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    while store.fold(7):
        pass
    done.set()
    reader.join()
    assert seen == {200}
    assert EngagementDelta.objects.count() == 0
    assert store.entity_totals("content", 0, GROUP) == {"view": 40, "like": 0, "comment": 0, "share": 0}
    assert_whole(200)


def test_it_carries_purged_minutes_over() -> None:
    apply(commit_of(claimed(), 0, 10))
    assert MetricsStore().purge_minutes(datetime(2020, 1, 1, tzinfo=UTC)) == 1
    assert MetricsStore().purge_minutes(datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert_whole(10)


def test_it_raises_what_a_fence_found() -> None:
    claim = claimed()
    claimed()
    with pytest.raises(FencedError, match="epoch 1 is over"), transaction.atomic():
        ledger.lock_for_commit([commit_of(claim, 0, 1)])


def test_it_drops_a_session_that_fails() -> None:
    session = WorkerSession("drop-me")
    with pytest.raises(OperationalError), session.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with session.transaction(), connection.cursor() as cursor:
        cursor.execute("SHOW application_name")
        assert cursor.fetchone() == ("drop-me",)


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
        assert "nothing of [6, 10) yet" in ledger.move_within(GROUP, [over])[tp(0)]
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


# --- What is refused as data, and who waits for whom ----------------------------------------------


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
    with other_session() as other:
        shown = [other.execute(f"SHOW {name}").fetchone() for name in SESSION_BOUNDS]
    assert shown == [(bound,), (bound,)]
