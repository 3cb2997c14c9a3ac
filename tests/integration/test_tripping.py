"""Circuit breakers of a worker's partitions: over the limit the partition is paused, audited, and begins anew."""

import logging
from typing import Any

import pytest
from django.db import OperationalError

from offsets.actions import automatic
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.processing.circuit_breaker import CircuitBreakers
from offsets.types import BatchStats, Claim, PartitionCommit, RecordFailure
from tests.support.page_rows import make_checkpoint
from tests.support.replay_scenario import other_session

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def limits(settings: Any) -> None:
    settings.DEAD_LETTER_MAX_PERCENT = 50
    settings.DEAD_LETTER_WINDOW = 10
    settings.DEAD_LETTER_MAX_IN_A_ROW = 5
    settings.FAILED_BATCHES_MAX_IN_A_ROW = 3


@pytest.fixture
def claim() -> Claim:
    row = make_checkpoint()
    return Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset)


def breakers() -> CircuitBreakers:
    return CircuitBreakers()


def commit(claim: Claim, counted: int, *failed: int) -> PartitionCommit:
    failures = [RecordFailure(offset, "bad", "why", None, b"x", b"[]", None) for offset in failed]
    return PartitionCommit(claim, 0, 1000, BatchStats(counted, len(failed)), failures, None)


def is_paused(claim: Claim) -> bool:
    return PartitionCheckpoint.objects.get(pk=claim.checkpoint_id).desired_state == "paused"


def resume(claim: Claim) -> None:
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(desired_state="running")


def test_it_pauses_a_partition_with_the_reason_and_an_audit_row(claim: Claim) -> None:
    ours = breakers()
    ours.counted(commit(claim, 6, 11, 13, 15, 17))
    assert not is_paused(claim)
    ours.counted(commit(claim, 0, 25, 27, 29))
    assert is_paused(claim)
    action = OperatorAction.objects.get()
    assert (action.kind, action.username, action.source, action.outcome) == (
        "pause",
        automatic.BREAKER.name,
        "automatic",
        "applied",
    )
    assert action.reason == "7 of the last 13 records could not be counted"


def test_failures_need_not_come_in_order(claim: Claim) -> None:
    """A batch that was halved reports its failures piece by piece."""
    breakers().counted(commit(claim, 20, 14, 11, 13, 10, 12))
    assert OperatorAction.objects.get().reason == "5 records in a row could not be counted"


def test_it_pauses_after_so_many_batches_that_could_not_be_applied(claim: Claim) -> None:
    ours = breakers()
    ours.quarantined(commit(claim, 9))
    ours.quarantined(commit(claim, 9))
    ours.counted(commit(claim, 9))
    ours.quarantined(commit(claim, 9))
    ours.quarantined(commit(claim, 9))
    assert not is_paused(claim)
    ours.quarantined(commit(claim, 9))
    assert OperatorAction.objects.get().reason == "3 batches in a row could not be applied"


def test_a_partition_that_is_resumed_is_judged_by_what_follows(claim: Claim) -> None:
    ours = breakers()
    ours.counted(commit(claim, 0, *range(0, 20, 2)))
    assert is_paused(claim)
    resume(claim)
    ours.counted(commit(claim, 0, 30))
    assert not is_paused(claim)


def test_a_partition_that_an_operator_has_paused_already_is_judged_anew_as_well(claim: Claim) -> None:
    ours = breakers()
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(desired_state="paused")
    ours.counted(commit(claim, 0, *range(0, 20, 2)))
    resume(claim)
    ours.counted(commit(claim, 0, 30))
    assert not is_paused(claim)
    assert not OperatorAction.objects.exists()


def test_it_asks_again_when_something_holds_the_row_in_this_moment(claim: Claim, settings: Any) -> None:
    settings.CLAIM_LOCK_TIMEOUT_MS = 100
    ours = breakers()
    with other_session() as other, other.transaction():
        other.execute("SELECT 1 FROM offsets_partitioncheckpoint WHERE id = %s FOR UPDATE", [claim.checkpoint_id])
        ours.counted(commit(claim, 0, *range(0, 20, 2)))
    assert not is_paused(claim)
    ours.counted(commit(claim, 0, 30))
    assert is_paused(claim)


def test_it_asks_again_when_the_database_was_away(
    claim: Claim, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = breakers()

    def away(*_: object, **__: object) -> bool:
        raise OperationalError("gone fishing")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(automatic, "pause_automatically", away)
        ours.counted(commit(claim, 0, *range(0, 20, 2)))
    assert "engagement-0 should pause" in caplog.text
    assert "gone fishing" in caplog.text
    ours.counted(commit(claim, 0, 30))
    assert is_paused(claim)


def test_partitions_are_judged_each_for_itself_and_a_fresh_claim_goes_on_counting(claim: Claim) -> None:
    """A refused batch is claimed afresh each time: began the breaker anew with that, it would never trip."""
    row = make_checkpoint(1)
    other = Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset)
    ours = breakers()
    for bad in (claim, other):
        ours.quarantined(commit(bad, 1))
        ours.quarantined(commit(bad, 1))
    assert not is_paused(claim)
    assert not is_paused(other)
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(epoch=claim.epoch + 1)
    again = Claim(claim.checkpoint_id, claim.topic, claim.partition, claim.epoch + 1, claim.next_offset)
    ours.quarantined(commit(again, 1))
    assert is_paused(claim)
    assert not is_paused(other)


def test_a_zombie_does_not_pause_the_partition_of_its_successor(claim: Claim) -> None:
    ours = breakers()
    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(epoch=claim.epoch + 1)
    for _ in range(3):
        ours.quarantined(commit(claim, 1))
    assert not is_paused(claim)
