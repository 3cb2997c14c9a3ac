"""Findings about a log that hides or lost records, and about what passes by itself."""

import pytest

from offsets.monitoring.group_state import AffectedRange
from offsets.monitoring.status import Status
from tests.support.findings import ago, found, only, partition


@pytest.mark.parametrize("status", [Status.LAGGING, Status.SLOW, Status.STALLED])
def test_what_passes_within_one_interval_is_none(status: Status) -> None:
    assert found(partition(status, for_seconds=4.9)) == []
    assert len(found(partition(status, for_seconds=5))) == 1


def test_a_partition_that_has_stopped_is_told_at_once() -> None:
    assert only(found(partition(Status.STOPPED, for_seconds=0))).critical


def test_a_partition_that_catches_up_is_none() -> None:
    assert found(partition(Status.CATCHING_UP)) == []


@pytest.mark.parametrize(
    ("seconds", "critical"), [(60, None), (61, False), (900, False), (901, True)], ids=["a minute", "", "", "hangs"]
)
def test_a_transaction_that_stays_open_is_one(seconds: float, critical: bool | None) -> None:
    state = partition(Status.OPEN_TRANSACTION, hidden=43_885, hidden_since=ago(seconds), log_end=1000)
    if critical is None:
        assert found(state) == []
        return
    finding = only(found(state))
    assert (finding.kind, finding.critical, finding.began_at) == ("open_transaction", critical, ago(seconds))
    assert "43,885 records of t-0 wait behind a transaction" in finding.summary
    assert ("abort --topic t --partition 0 --start-offset 1000" in finding.summary) is critical
    assert ("describe-producers --topic t --partition 0" in finding.summary) is not critical


def test_what_kafka_deleted_unread_is_lost_and_not_about_to_be() -> None:
    state = partition(
        Status.PAUSED,
        next_offset=10,
        lost=199_990,
        log_start=200_000,
        log_end=200_000,
        log_start_rate=1000.0,
        old_below=200_000,
        retention_seconds=60.0,
    )
    finding = only(found(state))
    assert (finding.kind, finding.critical) == ("retention", True)
    assert finding.summary.startswith("199,990 offsets of t-0 lost so far: Kafka deleted them before they were read; 0")
    assert "retention.ms of t: 60 s" in finding.summary
    assert list(finding.ranges) == [AffectedRange("t", 0, "expired", 10, 200_000)]
