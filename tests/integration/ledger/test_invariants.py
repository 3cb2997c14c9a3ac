"""What the ledger refuses, and what its readers see."""

import threading
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from analytics.metrics_store import MetricsStore
from analytics.models import EngagementDelta
from offsets import ledger, workers
from offsets.database import WorkerSession
from offsets.errors import FencedError
from offsets.models import LedgerRange, OperatorAction, PartitionCheckpoint
from offsets.monitoring import invariants
from offsets.types import (
    DesiredState,
    HaltReason,
)
from tests.support.ledger import GROUP, apply, assert_whole, checkpoint, claimed, commit_of, tp, worker

pytestmark = pytest.mark.django_db(transaction=True)


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
    with pytest.raises(FencedError, match="epoch 1 is stale"), transaction.atomic():
        ledger.lock_for_commit([commit_of(claim, 0, 1)])


def test_it_drops_a_session_that_fails() -> None:
    session = WorkerSession("drop-me")
    words = pytest.raises(OperationalError, match="terminating connection due to administrator command")
    with words, session.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with session.transaction(), connection.cursor() as cursor:
        cursor.execute("SHOW application_name")
        assert cursor.fetchone() == ("drop-me",)
