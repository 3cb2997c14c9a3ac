import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from analytics.dashboard.broadcast import encode, pack, unpack
from analytics.dashboard.partitions import MAX_PIECES
from analytics.dashboard.read_model import Dashboard
from analytics.models import EngagementMinute
from offsets import journal
from offsets.models import DatabaseTime, DeadLetter, InvariantReport, StoreOffset
from offsets.recovery import assessments
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_worker

pytestmark = pytest.mark.django_db


def take(group=GROUP):
    return Dashboard(group).snapshot()


def only_partition():
    (partition,) = take()["partitions"]
    return partition


def make_minute(checkpoint, minute, views=0, likes=0, comments=0, shares=0):
    EngagementMinute.objects.create(
        checkpoint=checkpoint, minute=minute, views=views, likes=likes, comments=comments, shares=shares
    )


def test_it_shows_an_empty_group_as_empty_and_unknown_not_as_zero():
    snapshot = take()

    assert snapshot["headline"] == "No partition has been claimed yet. Start a worker: manage.py run_consumer"
    assert (snapshot["partitions"], snapshot["workers"], snapshot["journal"]) == ([], [], [])
    assert snapshot["worst_status"] == "OK"
    assert [snapshot[name] for name in ("lag", "lag_seconds", "events_per_second", "log_sampled_age_seconds")] == [
        None
    ] * 4
    assert snapshot["invariants"] is None
    assert snapshot["counted"] == 0
    assert len(snapshot["minutes"]) == 60
    assert snapshot["series"] == {"at": [], "lag": [], "lag_seconds": [], "events_per_second": []}


def test_it_does_not_take_what_was_never_seen_for_just_seen():
    make_checkpoint(0)

    assert take()["log_sampled_age_seconds"] is None
    assert only_partition()["owner_heartbeat_age_seconds"] is None


def test_it_shows_one_partition_whole():
    checkpoint = make_checkpoint(
        3, owner=make_worker("w-7f2", silent_for=1), next_offset=1000, epoch=12, committed_at=DatabaseTime()
    )
    make_range(checkpoint, 0, 600)
    make_range(checkpoint, 600, 1000, failed_records=2)
    make_sample(checkpoint, 8, 500, 500)
    make_sample(checkpoint, 0, 1100, 900)
    for offset, status in ((7, "pending"), (8, "pending"), (9, "counted")):
        DeadLetter.objects.create(checkpoint=checkpoint, offset=offset, error_code="e", error_detail="", status=status)

    partition = only_partition()

    assert partition["checkpoint_id"] == checkpoint.pk
    assert (partition["topic"], partition["partition"], partition["epoch"]) == ("engagement", 3, 12)
    assert (partition["owner"], partition["status"]) == ("w-7f2", "OK")
    assert 1 <= partition["owner_heartbeat_age_seconds"] < 5
    assert (partition["next_offset"], partition["log_start_offset"], partition["log_end_offset"]) == (1000, 0, 1100)
    assert partition["lag"] == 100
    assert partition["lag_seconds"] == pytest.approx(8 / 6, abs=0.1)
    assert partition["events_per_second"] == pytest.approx(50, abs=1)
    assert partition["ranges"] == [
        {"start": 0, "end": 1000, "kind": "processed", "records": 1000, "failed_records": 2}
    ], "adjacent processed ranges are one to a reader"
    assert partition["range_offsets"] == {"processed": 1000}
    assert partition["dead_letters"] == 2
    assert (partition["semantics"], partition["duplicates"], partition["drift"]) == ("exactly_once", 0, {})
    assert datetime.fromisoformat(partition["committed_at"] or "").tzinfo is not None


def test_it_keeps_unusual_ranges_exact_and_holes_open():
    checkpoint = make_checkpoint()
    for start, end, kind in ((0, 10, "processed"), (10, 20, "skipped"), (20, 30, "skipped"), (40, 50, "processed")):
        make_range(checkpoint, start, end, kind)

    partition = only_partition()

    shown = [(piece["start"], piece["end"], piece["kind"]) for piece in partition["ranges"]]
    assert shown == [(0, 10, "processed"), (10, 20, "skipped"), (20, 30, "skipped"), (40, 50, "processed")]
    assert partition["range_offsets"] == {"processed": 20, "skipped": 20}
    InvariantReport.objects.create(group_id=GROUP, ok=True, invariants={}, duration_ms=1)
    assert "20 offsets not counted (20 skipped), nothing counted twice." in take()["headline"]


def test_it_draws_a_wild_history_with_few_pieces_and_still_counts_it_exactly():
    checkpoint = make_checkpoint(next_offset=10_000, ledger_end=10_000)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_ledgerrange (checkpoint_id, offsets, kind, records, failed_records, epoch, detail)"
            " SELECT %s, int8range(n * 10, n * 10 + 10), CASE n %% 2 WHEN 0 THEN 'processed' ELSE 'failed' END,"
            " CASE n %% 2 WHEN 0 THEN 10 ELSE 0 END, 0, 1, '' FROM generate_series(0, 999) AS n",
            [checkpoint.pk],
        )

    partition = only_partition()

    assert 50 <= len(partition["ranges"]) <= MAX_PIECES
    assert sum(piece["records"] for piece in partition["ranges"]) == 5000
    assert partition["range_offsets"] == {"processed": 5000, "failed": 5000}


@pytest.mark.parametrize(
    ("worker", "fields", "status"),
    [
        ({"silent_for": 0}, {}, "OK"),
        ({"silent_for": 0}, {"desired_state": "paused"}, "PAUSED"),
        ({"silent_for": 12}, {}, "OWNER DEAD"),
        ({"silent_for": 3, "state": "stopped", "stopped_at": DatabaseTime()}, {}, "OWNER DEAD"),
        ({"silent_for": 0}, {"halt_reason": "expired", "halt_detail": "gone"}, "HALTED"),
        (None, {}, "UNOWNED"),
    ],
)
def test_it_judges_a_partition_by_its_row_and_its_owners_heartbeat(worker, fields, status):
    make_checkpoint(owner=make_worker(**worker) if worker else None, **fields)

    snapshot = take()

    assert snapshot["partitions"][0]["status"] == snapshot["worst_status"] == status


def test_it_says_how_long_the_owner_has_been_dead():
    make_checkpoint(owner=make_worker(silent_for=12.1))

    assert "Owner dead for 12 s" in only_partition()["status_detail"]


@pytest.mark.parametrize(("lag_before", "status"), [(500, "LAGGING"), (5000, "CATCHING UP")])
def test_it_calls_a_partition_lagging_only_while_its_lag_does_not_shrink(lag_before, status):
    checkpoint = make_checkpoint(owner=make_worker(), next_offset=1000)
    make_sample(checkpoint, 40, 900, 500)
    make_sample(checkpoint, 30, 1000, 600)
    make_sample(checkpoint, 9, 2000 - 1, 2000 - 1 - lag_before)
    make_sample(checkpoint, 0, 2000, 1000)

    partition = only_partition()

    assert partition["lag_seconds"] == pytest.approx(30, abs=0.5)
    assert partition["status"] == status


@pytest.mark.parametrize(
    ("worker", "failed", "status"),
    [
        ({}, {}, "CATCHING UP"),  # two samples: nobody knows yet
        ({"stage": "decoding engagement-0 [1000, 1200)", "stage_seconds": 42.0, "stack": "File"}, {}, "STUCK"),
        ({"last_error": "database: connection refused"}, {}, "CATCHING UP"),
        ({}, {"retry_at": None}, "FAILED"),
        ({}, {"retry_at": DatabaseTime()}, "CATCHING UP"),
        ({"silent_for": 12.3}, {}, "OWNER DEAD"),
    ],
)
def test_without_the_recovery_manager_it_judges_by_the_same_rules(worker, failed, status):
    checkpoint = make_checkpoint(owner=make_worker(**worker))
    make_sample(checkpoint, 20, 1000, 900)
    make_sample(checkpoint, 0, 1200, 1000)
    if failed:
        make_range(checkpoint, 0, 10, "failed", **failed)

    partition = only_partition()

    (judged,) = assessments.partitions(GROUP)
    assert judged.verdict.status == status
    assert (partition["status"], partition["status_detail"]) == (judged.verdict.label, judged.verdict.detail)


def test_it_does_not_pass_an_old_log_end_for_the_lag_of_now():
    checkpoint = make_checkpoint(owner=make_worker())
    make_sample(checkpoint, 70, 4000, 900)
    make_sample(checkpoint, 60, 5000, 1000)

    snapshot = take()
    (partition,) = snapshot["partitions"]

    assert (partition["lag"], partition["lag_seconds"], partition["events_per_second"]) == (None, None, None)
    assert (snapshot["lag"], snapshot["lag_seconds"]) == (None, None)
    assert partition["log_end_offset"] == 5000
    assert snapshot["log_sampled_age_seconds"] == pytest.approx(60, abs=2)
    assert "lag is unknown" in partition["status_detail"]


def test_it_leaves_the_whole_lag_unknown_while_one_partition_is():
    first, _ = make_checkpoint(0, owner=make_worker()), make_checkpoint(1)
    make_sample(first, 1, 900, 900)
    make_sample(first, 0, 1100, 1000)

    snapshot = take()

    assert snapshot["partitions"][0]["lag"] == 100
    assert snapshot["lag"] is None


def test_it_knows_the_lag_in_seconds_of_a_partition_that_was_paused_an_hour_ago():
    checkpoint = make_checkpoint(owner=make_worker(), desired_state="paused", next_offset=1000)
    for minutes in range(70, 5, -1):
        make_sample(checkpoint, minutes * 60, 1000 + max(0, 60 - minutes) * 100, 1000)
    make_sample(checkpoint, 5, 7000, 1000)
    make_sample(checkpoint, 0, 7000, 1000)

    snapshot = take()

    assert snapshot["lag_seconds"] == pytest.approx(3600, abs=2)
    assert snapshot["series"]["lag"] == [6000, 6000]
    assert snapshot["series"]["lag_seconds"] == [pytest.approx(3595, abs=2), pytest.approx(3600, abs=2)]


def test_it_adds_up_all_counted_events_and_charts_the_last_hour():
    live = make_checkpoint(0)
    recreated = make_checkpoint(0, retired_at=DatabaseTime(), retired_reason="recreated", topic_id="old")
    rebuilt = make_checkpoint(1, retired_at=DatabaseTime(), retired_reason="rebuilt")
    other = make_checkpoint(0, group_id="other")
    now = timezone.now().replace(second=0, microsecond=0)
    make_minute(live, datetime(1970, 1, 1, tzinfo=UTC), views=1000)
    make_minute(live, now - timedelta(minutes=90), likes=100)
    make_minute(live, now - timedelta(minutes=10), views=1, likes=2, comments=3, shares=4)
    make_minute(recreated, now - timedelta(minutes=10), views=10)
    make_minute(rebuilt, now - timedelta(minutes=10), views=777)
    make_minute(other, now - timedelta(minutes=10), views=777)

    snapshot = take()

    assert snapshot["totals"] == {"view": 1011, "like": 102, "comment": 3, "share": 4}
    assert snapshot["counted"] == 1120
    by_minute = {entry["minute"]: entry["counts"] for entry in snapshot["minutes"]}
    assert len(by_minute) == 60
    assert list(by_minute) == sorted(by_minute)
    counted = {minute: counts for minute, counts in by_minute.items() if any(counts.values())}
    assert counted == {(now - timedelta(minutes=10)).isoformat(): {"view": 11, "like": 2, "comment": 3, "share": 4}}


def test_it_lists_workers_without_ghosts():
    make_checkpoint(0, owner=make_worker("w-live", fenced_commits=2, events_per_second=10.0, memory_bytes=5))
    make_worker("w-dead", silent_for=30)
    make_worker("w-buried", silent_for=60, state="stopped", stopped_at=ago(40), fenced_commits=1)
    make_worker("w-ended", silent_for=60, state="stopped", stopped_at=ago(60))
    make_worker("w-ghost", silent_for=7200, state="stopped", stopped_at=ago(7200), fenced_commits=4)
    make_checkpoint(
        1, owner=make_worker("w-owner", silent_for=7200, state="stopped", stopped_at=ago(7200)), next_offset=1
    )
    make_worker("w-other", group_id="other")

    snapshot = take()

    states = {worker["worker_id"]: worker["state"] for worker in snapshot["workers"]}
    assert states == {
        "w-live": "running",
        "w-dead": "dead",
        "w-buried": "dead",
        "w-ended": "stopped",
        "w-owner": "stopped",
    }
    live = next(worker for worker in snapshot["workers"] if worker["worker_id"] == "w-live")
    assert live["partitions"] == ["engagement-0"]
    assert snapshot["fenced_commits"] == 7, "of all workers, gone ones too"
    assert snapshot["events_per_second"] == 10.0, "what workers say, while nobody samples the log"


def test_it_shows_the_invariants_and_colours_the_page_by_them():
    make_checkpoint(owner=make_worker())
    invariants = {"I1": {"ok": True, "detail": "no hole"}, "I3": {"ok": False, "detail": "5 missing"}}
    InvariantReport.objects.create(group_id=GROUP, ok=False, invariants=invariants, duration_ms=3, checked_at=ago(2))

    snapshot = take()

    assert snapshot["invariants"] is not None
    assert snapshot["invariants"]["invariants"] == invariants
    assert 2 <= snapshot["invariants"]["checked_age_seconds"] < 5
    assert snapshot["worst_status"] == "HALTED"
    assert snapshot["headline"].startswith("Ledger invariants violated (I3).")


def test_it_shows_the_newest_journal_entries_first():
    for number in range(35):
        journal.record(GROUP, "claimed", f"message {number}", topic="engagement", partition=1)
    journal.record("other", "claimed", "not ours")

    shown = take()["journal"]

    assert [entry["message"] for entry in shown] == [f"message {number}" for number in range(34, 4, -1)]


def test_it_keeps_five_minutes_of_whole_sweeps():
    first, second = make_checkpoint(0, owner=make_worker()), make_checkpoint(1)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_lagsample"
            " (checkpoint_id, sampled_at, log_start_offset, log_end_offset, next_offset)"
            " SELECT id, statement_timestamp() - make_interval(secs => 400 - n), 0, n * 100, n * 100 - 50"
            " FROM generate_series(1, 400) AS n, unnest(%s::bigint[]) AS id"
            " WHERE NOT (id = %s AND n BETWEEN 150 AND 154)",
            [[first.pk, second.pk], second.pk],
        )

    series = take()["series"]

    assert 58 <= len(series["at"]) <= 60
    assert {round(after - before) for before, after in zip(series["at"], series["at"][1:], strict=False)} == {5}
    assert set(series["lag"]) == {100, None}
    assert series["lag"].count(None) == 1, "a sweep that lacks a partition is a gap, not a dip"
    assert series["lag_seconds"][-1] == pytest.approx(0.5, abs=0.6)
    assert {round(rate) for rate in series["events_per_second"] if rate is not None} == {200}
    assert series["events_per_second"].count(None) == 3, "no rate at the first sweep, in the gap, and right after it"


def test_its_sequence_grows_with_the_databases_clock():
    dashboard = Dashboard(GROUP)

    first, second = dashboard.snapshot(), dashboard.snapshot()

    assert second["sequence"] > first["sequence"]
    assert first["sequence"] == int(datetime.fromisoformat(first["taken_at"]).timestamp() * 1000)


def fill(partitions, samples):
    """A big group: every partition owned, sampled for five minutes, with history and minutes."""
    workers = [make_worker(f"w-{number}") for number in range(10)]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_partitioncheckpoint (group_id, topic, partition, topic_id, baseline_offset,"
            " baseline_kind, next_offset, ledger_end, epoch, epoch_cause, owner_id, desired_state, halt_reason,"
            " halt_detail, dimensions, duplicates, retired_reason, moved_epoch, semantics, store, mirror_requests)"
            " SELECT %s, 'engagement', n, 'id', 0, 'earliest', 1000000, 1000000, 1, 'claim', 'w-' || n %% 10,"
            " 'running', '', '', '{}', 0, '', 0, 'exactly_once', 'postgres', 0"
            " FROM generate_series(0, %s - 1) AS n RETURNING id",
            [GROUP, partitions],
        )
        ids = [row[0] for row in cursor.fetchall()]
        cursor.execute(
            "INSERT INTO offsets_lagsample (checkpoint_id, sampled_at, log_start_offset, log_end_offset, next_offset)"
            " SELECT id, statement_timestamp() - make_interval(secs => n), 0, 1000100 - n * 100, 1000000 - n * 100"
            " FROM unnest(%s::bigint[]) AS id, generate_series(0, %s - 1) AS n",
            [ids, samples],
        )
        cursor.execute(
            "INSERT INTO offsets_ledgerrange (checkpoint_id, offsets, kind, records, failed_records, epoch, detail)"
            " SELECT id, int8range(n * 250000, (n + 1) * 250000), CASE n WHEN 2 THEN 'skipped' ELSE 'processed' END,"
            " 250000, 0, 1, '' FROM unnest(%s::bigint[]) AS id, generate_series(0, 3) AS n",
            [ids],
        )
        cursor.execute(
            "INSERT INTO analytics_engagementminute (checkpoint_id, minute, views, likes, comments, shares)"
            " SELECT id, date_trunc('minute', statement_timestamp()) - make_interval(mins => n), 10, 5, 2, 1"
            " FROM unnest(%s::bigint[]) AS id, generate_series(0, 89) AS n",
            [ids],
        )
    return workers


def test_it_shows_duplicates_and_how_far_other_stores_stand():
    checkpoint = make_checkpoint(0, semantics="at_least_once", duplicates=7)
    for store, held in (("kafka", 990), ("redis", None), ("file", 1000)):
        StoreOffset.objects.create(checkpoint=checkpoint, store=store, next_offset=held, ledger_next_offset=1000)
    StoreOffset.objects.filter(store="file").update(seen_at=ago(120))

    partition = only_partition()

    assert (partition["semantics"], partition["duplicates"]) == ("at_least_once", 7)
    assert partition["drift"] == {"kafka": -10, "redis": None}


def test_it_reads_any_number_of_partitions_in_the_same_few_statements(django_assert_num_queries):
    fill(500, samples=20)

    with django_assert_num_queries(16):
        snapshot = take()

    packet = encode(snapshot)
    message = pack(packet)
    assert len(snapshot["partitions"]) == 500
    assert len(packet.text) < 750_000
    assert len(message["body"]) < 75_000, "what goes through Redis each second"
    assert unpack(message) == packet
    assert json.loads(packet.text) == snapshot
