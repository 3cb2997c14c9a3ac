"""What is read of metric rows: exact, of the groups and topics asked for, with and without a fold in between."""

import pytest
from django.db import connection, transaction

from analytics.metrics_store import MetricsStore
from analytics.processor import EngagementProcessor
from offsets import ledger
from offsets.errors import LedgerConflictError
from offsets.ledger import Baseline
from offsets.models import DatabaseTime, PartitionCheckpoint
from offsets.monitoring import event_time_counts
from offsets.types import Claim, PartitionCommit, RecordBatch
from tests.support.records import START, Record, event

pytestmark = pytest.mark.django_db(transaction=True)

HANDLER = EngagementProcessor()
STORE = MetricsStore()
NOTHING = {"view": 0, "like": 0, "comment": 0, "share": 0}
LARGEST = 2**63 - 1


def claim_of(group: str, topic: str) -> Claim:
    ledger.insert_baselines(group, topic, {0: Baseline("id", 0, "earliest")}, HANDLER.dimensions)
    row = PartitionCheckpoint.objects.get(group_id=group, topic=topic, partition=0)
    return Claim(row.pk, topic, 0, 1, 0, HANDLER.dimensions)


def commit_of(claim: Claim, *values: bytes) -> PartitionCommit:
    records = [Record(offset, value) for offset, value in enumerate(values)]
    return HANDLER.combine([HANDLER.decode(RecordBatch(claim, 0, len(records), records, 0))])


def write(*commits: PartitionCommit) -> None:
    with transaction.atomic():
        HANDLER.insert(commits, connection)
        HANDLER.update(commits, connection)


@pytest.fixture(params=[0, 2, 1000], ids=["unfolded", "half folded", "folded"])
def counted(request: pytest.FixtureRequest) -> None:
    """Group `a` read two topics, group `b` one; content 2 was seen in all of them."""
    write(
        commit_of(claim_of("a", "t"), event("view", 1, 2), event("view", 1, 2), event("like", LARGEST, 2)),
        commit_of(claim_of("a", "u"), event("share", 1, 2), event("comment", 3, LARGEST)),
        commit_of(claim_of("b", "t"), event("view", 1, 2)),
    )
    STORE.fold(request.param)


@pytest.mark.usefixtures("counted")
def test_it_sums_one_content_over_topics_and_keeps_groups_apart() -> None:
    assert STORE.entity_totals("content", 2, "a") == {**NOTHING, "view": 2, "like": 1, "share": 1}
    assert STORE.entity_totals("content", 2, "a", "t") == {**NOTHING, "view": 2, "like": 1}
    assert STORE.entity_totals("content", 2, "b") == {**NOTHING, "view": 1}
    assert STORE.entity_totals("content", 2) == {**NOTHING, "view": 3, "like": 1, "share": 1}


@pytest.mark.usefixtures("counted")
def test_it_does_not_take_a_user_for_the_content_of_the_same_number() -> None:
    assert STORE.entity_totals("user", 2, "a") == NOTHING
    assert STORE.entity_totals("user", 1, "a") == {**NOTHING, "view": 2, "share": 1}
    assert STORE.entity_totals("user", LARGEST, "a") == {**NOTHING, "like": 1}


@pytest.mark.usefixtures("counted")
def test_its_totals_count_each_event_once_whatever_the_dimensions() -> None:
    assert STORE.totals("a") == {"view": 2, "like": 1, "comment": 1, "share": 1}
    assert STORE.totals("a", "u") == {**NOTHING, "comment": 1, "share": 1}
    assert STORE.totals("nobody") == NOTHING


@pytest.mark.usefixtures("counted")
def test_it_exports_each_entity_once_in_order() -> None:
    assert list(STORE.export("a")) == [
        ("content", 2, 2, 1, 0, 1),
        ("content", LARGEST, 0, 0, 1, 0),
        ("user", 1, 2, 0, 0, 1),
        ("user", 3, 0, 0, 1, 0),
        ("user", LARGEST, 0, 1, 0, 0),
    ]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("reason", "views"), [("rebuilt", 1), ("topic_recreated", 3)])
def test_it_leaves_out_rebuilt_checkpoints_and_keeps_those_of_a_recreated_topic(reason: str, views: int) -> None:
    PartitionCheckpoint.objects.filter(group_id="a", topic="t").update(retired_reason=reason)
    assert STORE.totals()["view"] == views
    assert STORE.entity_totals("content", 2)["view"] == views
    assert next(STORE.export())[2] == views


@pytest.mark.usefixtures("counted")
def test_what_it_counts_by_dimension_and_by_time_is_the_same() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT checkpoint_id, dimension, events FROM ({HANDLER.counted_sql()}) AS c")
        by_dimension = {(row[0], row[1]): row[2] for row in cursor.fetchall()}
        cursor.execute(f"SELECT checkpoint_id, events FROM ({HANDLER.counted_by_time_sql()}) AS c")
        by_time = dict(cursor.fetchall())
    assert by_dimension == {(i, name): n for i, n in by_time.items() for name in ("content", "user")}
    assert sorted(by_time.values()) == [1, 2, 3]


def test_it_adds_to_minutes_that_are_there() -> None:
    claim = claim_of("a", "t")
    for _ in range(3):
        write(commit_of(claim, event("view", 1, 2), event("like", 1, 2)))
    assert STORE.totals("a") == {**NOTHING, "view": 3, "like": 3}
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM analytics_engagementminute")
        assert cursor.fetchone() == (1,)


def test_it_refuses_a_copy_that_wrote_another_number_of_rows() -> None:
    commit = commit_of(claim_of("a", "t"), event("view", 1, 2))
    object.__setattr__(commit.work, "delta_count", 3)
    with pytest.raises(LedgerConflictError, match="2 of 3 delta rows"):
        write(commit)
    assert list(STORE.export("a")) == []


def test_it_counts_implausible_times_with_the_events_and_by_checkpoint() -> None:
    first, second, other = claim_of("a", "t"), claim_of("a", "u"), claim_of("b", "t")
    seconds, right = event("view", 1, 2, at=START // 1000), event("view", 1, 2)
    write(commit_of(first, seconds, seconds, right), commit_of(second, right))
    write(commit_of(first, seconds, event("like", 1, 2, at=START * 1000)), commit_of(other, seconds))

    seen = {
        (row.topic, row.source, row.unit): row for row in event_time_counts.read("a", STORE.implausible_times_sql())
    }

    assert {key: row.events for key, row in seen.items()} == {
        ("t", "event", "seconds"): 3,
        ("t", "event", "microseconds"): 1,
    }
    assert all(0 <= row.age_seconds < 60 for row in seen.values())
    assert STORE.totals("a") == {**NOTHING, "view": 5, "like": 1}, "they are counted all the same"


def test_implausible_times_of_a_transaction_that_fails_are_not_counted() -> None:
    commit = commit_of(claim_of("a", "t"), event("view", 1, 2, at=START // 1000))
    with transaction.atomic():
        HANDLER.insert([commit], connection)
        HANDLER.update([commit], connection)
        transaction.set_rollback(True)

    assert event_time_counts.read("a", STORE.implausible_times_sql()) == []


def test_a_rebuild_begins_again_with_implausible_times() -> None:
    claim = claim_of("a", "t")
    write(commit_of(claim, event("view", 1, 2, at=START // 1000)))
    sql = event_time_counts.handler_sql()
    assert len(event_time_counts.read("a", sql)) == 1

    PartitionCheckpoint.objects.filter(pk=claim.checkpoint_id).update(
        retired_at=DatabaseTime(), retired_reason="rebuilt"
    )

    assert event_time_counts.read("a", sql) == []
    assert event_time_counts.read("a", "") == []
