"""Commits, fences and unknown outcomes."""

import itertools
import threading
import uuid
from collections import Counter

import psycopg
import pytest
from django.db import DataError, connection, transaction

from analytics.models import EngagementDelta
from offsets import failpoints, ledger
from offsets.database import WorkerSession
from offsets.ledger import Baseline
from offsets.models import DeadLetter, LedgerRange, PartitionCheckpoint
from offsets.processing.committer import BatchCommitter
from offsets.types import (
    Claim,
    PartitionCommit,
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
    worker,
)

pytestmark = pytest.mark.django_db(transaction=True)


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
    assert "epoch 1 is stale" in outcome.fenced[zombie.checkpoint_id]
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
