"""What grows has a bound: each test makes it grow, and sees it purged in chunks, by the database's clock."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from pytest_django import Settings

from analytics import metrics_store, tasks
from analytics.dashboard import queries
from analytics.dashboard.ledger_strip import offsets_by_kind
from analytics.metrics_store import CARRY_MINUTE, MetricsStore
from analytics.models import EngagementDelta, EngagementMinute, EngagementTotal, ImplausibleTime
from offsets import journal, leases, ledger, purging, workers
from offsets.actions import audit, dead_letters, undo
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.guards import Actor, Request, Source
from offsets.actions.logs import Log
from offsets.actions.move_plans import Bounds
from offsets.errors import RefusedError
from offsets.models import (
    DeadLetter,
    Incident,
    JournalEntry,
    LagSample,
    Lease,
    LedgerRange,
    Notification,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
    Worker,
)
from offsets.monitoring import incidents, invariant_turns, invariants, lag_samples
from offsets.replays import rows as replay_rows
from offsets.types import Claim
from tests.support.dead_letters import act
from tests.support.ledger import GROUP, apply, assert_whole, checkpoint, claimed, commit_of, ranges
from tests.support.page_rows import ago, make_checkpoint, make_range

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

DAY = 86_400
OPERATOR = Actor("olga", allowed=True)


@pytest.fixture(autouse=True)
def _partitions() -> None:
    baseline = ledger.Baseline("topic-id", 0, "earliest")
    ledger.insert_baselines(GROUP, "t", {0: baseline, 1: baseline}, ["content", "user"])


def scattered(number: int, parts: int) -> None:
    """The partition's one processed range, as many that touch: what a long life of replays leaves."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH one AS (DELETE FROM offsets_ledgerrange WHERE checkpoint_id = %s RETURNING *)"
            " INSERT INTO offsets_ledgerrange (checkpoint_id, offsets, kind, records, failed_records, epoch, detail)"
            " SELECT checkpoint_id, int8range(n, n + 1), kind, 1, 0, epoch, '' FROM one,"
            " generate_series(lower(offsets), upper(offsets) - 1) AS n",
            [checkpoint(number).pk],
        )
    assert len(ranges(number)) == parts


# --- The ledger -----------------------------------------------------------------------------------


def test_neighbouring_ranges_become_one_in_chunks() -> None:
    claim = claimed()
    apply(commit_of(claim, 0, 500))
    scattered(0, 500)
    assert ledger.mergeable_checkpoints() == [claim.checkpoint_id]
    assert_whole(500)
    assert ledger.merge_ranges(claim.checkpoint_id, 100) == 99
    assert_whole(500)
    while ledger.merge_ranges(claim.checkpoint_id, 100):
        pass
    assert ranges() == [(0, 500, "processed", 500, 0)]
    assert ledger.mergeable_checkpoints() == []
    apply(commit_of(claim, 500, 510, poison=(505,)))
    assert ranges() == [(0, 510, "processed", 509, 1)]
    assert_whole(509)


def test_what_is_not_processed_stays_as_it_is() -> None:
    row = make_checkpoint(next_offset=60, group_id="merging")
    for start, kind in ((0, "processed"), (10, "processed"), (20, "failed"), (30, "processed"), (40, "processed")):
        make_range(row, start, start + 10, kind)
    make_range(row, 50, 60, "skipped")
    assert ledger.merge_ranges(row.pk) == 2
    found = [
        (r.offsets.lower, r.kind, r.records) for r in LedgerRange.objects.filter(checkpoint=row).order_by("offsets")
    ]
    assert found == [(0, "processed", 20), (20, "failed", 0), (30, "processed", 20), (50, "skipped", 0)]
    assert ledger.merge_ranges(row.pk) == 0


def test_the_page_reads_a_bounded_number_of_ranges_and_their_exact_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_checkpoint(next_offset=5_000, group_id="wild")
    make_range(row, 0, 1_000)
    LedgerRange.objects.bulk_create(
        LedgerRange(checkpoint=row, offsets=(n, n + 1), kind="processed" if n % 2 else "failed", records=n % 2, epoch=3)
        for n in range(1_000, 5_000)
    )
    monkeypatch.setattr(queries, "PIECE_SLOTS", 10_000)
    exact = queries.pieces([row.pk])[row.pk]
    assert len(exact) == 4_001
    monkeypatch.setattr(queries, "PIECE_SLOTS", 50)
    pieces = queries.pieces([row.pk])[row.pk]
    assert len(pieces) <= 2 * 50 + 1
    assert offsets_by_kind(pieces) == offsets_by_kind(exact) == {"processed": 3_000, "failed": 2_000}
    assert sum(piece.records for piece in pieces) == 3_000
    assert pieces[0] == exact[0]
    assert max(piece.end for piece in pieces) <= 5_000


def rebuilt(*, days_ago: float) -> OperatorAction:
    """A partition with 20 events counted, rebuilt, and 5 counted since; and a second partition beside it."""
    old = claimed()
    apply(commit_of(old, 0, 20, poison=(3,)), commit_of(claimed(1), 0, 7))
    row = checkpoint()
    action = audit.applied("rebuild", row, Request(OPERATOR, "why", Source.API), before={}, after={}, detail="")
    new = ledger.retire_and_restart(row, action=action, reason="rebuilt", baseline=0, topic_id=row.topic_id)
    audit.complete(action, audit.state_of(new))
    PartitionCheckpoint.objects.filter(pk=row.pk).update(retired_at=ago(days_ago * DAY))
    apply(commit_of(claimed(), 0, 5))
    return again(action)


def again(action: OperatorAction) -> OperatorAction:
    return OperatorAction.objects.get(pk=action.pk)


def rows_of(checkpoint_id: int) -> int:
    tables = (EngagementDelta, EngagementTotal, EngagementMinute, ImplausibleTime, LedgerRange, DeadLetter)
    return sum(table.objects.filter(checkpoint_id=checkpoint_id).count() for table in tables)


def whole_logs(rows: Iterable[PartitionCheckpoint]) -> dict[int, Log]:
    """Kafka holds all that was read."""
    return {row.pk: Log(Bounds(0, row.ledger_end), row.topic_id, complete=True) for row in rows}


def test_the_counts_from_before_a_rebuild_are_deleted_and_its_undo_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "CHUNK", 3)
    monkeypatch.setattr(undo, "logs_of", whole_logs)
    action = rebuilt(days_ago=31)
    gone = action.checkpoint_id
    assert gone is not None
    MetricsStore().fold(10)
    before = rows_of(gone)
    tasks.purge_rebuilt(MetricsStore(), 32)
    assert rows_of(gone) == before, "not yet"
    assert undo.texts([again(action)], OPERATOR)
    tasks.purge_rebuilt(MetricsStore(), 30)
    assert rows_of(gone) == 0
    assert not PartitionCheckpoint.objects.filter(pk=gone).exists()
    assert_whole(12)
    assert again(action).target.endswith("t-0"), "the audit log keeps its name"
    with pytest.raises(RefusedError, match="were deleted, 30 days after the rebuild"):
        undo.texts([again(action)], OPERATOR)


def test_a_purge_that_was_interrupted_cannot_be_undone_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "logs_of", whole_logs)
    action = rebuilt(days_ago=31)
    gone = action.checkpoint_id
    assert gone is not None
    seen = again(action)
    assert seen.checkpoint is not None, "read before the purge begins"
    assert ledger.begin_purge(30) == [gone]
    MetricsStore().purge_checkpoint(gone, 2)
    with pytest.raises(RefusedError, match="REBUILT_RETENTION_DAYS"):
        undo.undo([again(action)], Request(OPERATOR, "back", Source.API))
    with pytest.raises(RefusedError, match="REBUILT_RETENTION_DAYS"):
        undo.undo([seen], Request(OPERATOR, "back", Source.API))
    tasks.purge_rebuilt(MetricsStore(), 30)
    assert rows_of(gone) == 0
    assert_whole(12)


def test_a_live_partition_is_never_purged() -> None:
    apply(commit_of(claimed(), 0, 20, poison=(3,)))
    pk = checkpoint().pk
    before = rows_of(pk)
    assert ledger.purge_rows(pk, 100) == 0
    ledger.forget(pk)
    tasks.purge_rebuilt(MetricsStore(), 1)
    assert rows_of(pk) == before


# --- Dead letters ---------------------------------------------------------------------------------


def test_the_bytes_of_resolved_dead_letters_are_deleted_and_their_numbers_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(purging, "CHUNK", 2)
    apply(commit_of(claimed(), 0, 20, poison=(1, 2, 3, 4, 5, 6, 7)))
    rows = DeadLetter.objects.order_by("offset")
    act("discard", [row.pk for row in rows[:6]])
    DeadLetter.objects.filter(offset__lt=6).update(resolved_at=ago(91 * DAY))
    assert ledger.purge_dead_letter_bytes(90) == 5
    assert ledger.purge_dead_letter_bytes(90) == 0
    kept = {row.offset: (row.value is not None, row.is_whole) for row in rows}
    assert kept == {**dict.fromkeys(range(1, 6), (False, False)), 6: (True, True), 7: (True, True)}
    assert rows[0].value_bytes == 3
    assert_whole(13)


def test_of_a_large_record_only_so_much_is_kept_and_it_is_not_requeued(settings: Settings) -> None:
    settings.DEAD_LETTER_MAX_BYTES = 64
    claim = claimed()
    commit = commit_of(claim, 0, 3, poison=(1,))
    large = commit.failures[0].value
    assert large is not None
    object.__setattr__(commit.failures[0], "value", large * 100)
    apply(commit)
    (row,) = DeadLetter.objects.all()
    assert (len(bytes(row.value or b"")), row.value_bytes, row.is_whole) == (64, 300, False)
    assert "Only the first 64 of its 300 bytes are kept" in row.error_detail
    shown = dead_letters.preview("requeue", DeadLetterFilter(GROUP, ids=(row.pk,)), OPERATOR)
    assert (shown.will_change, shown.still_fail) == (0, 1)
    assert shown.reasons == ("Only 64 of its 300 bytes are kept.",)
    assert_whole(2)


# --- The export ----------------------------------------------------------------------------------


def test_an_export_streams_and_is_of_one_moment_while_the_fold_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_store, "EXPORT_ROWS", 2)
    claim = claimed()
    apply(commit_of(claim, 0, 100))
    reading = MetricsStore().export(GROUP)
    seen = [next(reading)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors WHERE NOT is_holdable")
        assert cursor.fetchone() == (1,), "the server holds the result"
    # In sessions of their own, while the export stands after its first rows.
    with ThreadPoolExecutor(1) as other:
        other.submit(_fold_and_count, claim).result(30)
    seen += reading
    assert sum(sum(row[2:]) for row in seen if row[0] == "content") == 100
    assert [row[:2] for row in seen] == [("content", n) for n in range(5)] + [("user", n) for n in range(3)]
    assert sum(sum(row[2:]) for row in MetricsStore().export(GROUP) if row[0] == "content") == 200
    assert_whole(200)


def _fold_and_count(claim: Claim) -> None:
    try:
        while MetricsStore().fold(3):
            pass
        apply(commit_of(claim, 100, 200))
        while MetricsStore().fold(3):
            pass
    finally:
        connection.close()


# --- Minutes --------------------------------------------------------------------------------------


def test_old_minutes_are_carried_over_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "CHUNK", 4)
    apply(commit_of(claimed(), 0, 10))
    row = checkpoint()
    EngagementMinute.objects.filter(checkpoint=row).delete()
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    EngagementMinute.objects.bulk_create(
        [
            EngagementMinute(checkpoint=row, minute=now - timedelta(days=31, minutes=n) if n < 9 else now, views=1)
            for n in range(10)
        ]
    )
    assert MetricsStore().purge_minutes(30) == 9
    left = dict(EngagementMinute.objects.filter(checkpoint=row).values_list("minute", "views"))
    assert left == {CARRY_MINUTE: 9, now: 1}
    assert_whole(10)


# --- Everything else ------------------------------------------------------------------------------


def grow_journal(age: float) -> None:
    JournalEntry.objects.create(group_id=GROUP, kind="k", message="m", created_at=ago(age))


def grow_workers(age: float) -> None:
    name = workers.new_worker_id()
    workers.register(name, GROUP)
    Worker.objects.filter(pk=name).update(state="stopped", stopped_at=ago(age))


def grow_leases(age: float) -> None:
    Lease.objects.create(name=f"replay:{Lease.objects.count()}", holder="h", epoch=1, expires_at=ago(age))


def grow_refusals(age: float) -> None:
    action = OperatorAction.objects.create(
        kind="pause", username="u", target="t", source="api", reason="r", outcome="refused"
    )
    OperatorAction.objects.filter(pk=action.pk).update(created_at=ago(age))


def grow_incidents(age: float) -> None:
    incident = Incident.objects.create(
        group_id=GROUP,
        kind="k",
        subject=f"s{Incident.objects.count()}",
        summary="s",
        began_at=ago(age),
        closed_at=ago(age),
    )
    Notification.objects.create(incident=incident, event="opened", channel="webhook")


def grow_replays(age: float) -> None:
    Replay.objects.create(group_id=GROUP, status="done", username="u", reason="r", finished_at=ago(age))


def grow_sessions(age: float) -> None:
    expires = datetime.now(UTC) - timedelta(seconds=age - 8 * DAY)
    Session.objects.create(session_key=f"k{Session.objects.count()}", session_data="", expire_date=expires)


def grow_samples(age: float) -> None:
    LagSample.objects.create(
        checkpoint=checkpoint(), sampled_at=ago(age), log_start_offset=0, log_end_offset=0, next_offset=0
    )


@pytest.mark.parametrize(
    ("grow", "purge", "table"),
    [
        (grow_journal, journal.purge, JournalEntry),
        (grow_workers, lambda: workers.purge(7), Worker),
        (grow_leases, lambda: leases.purge(7), Lease),
        (grow_refusals, lambda: audit.purge_refused(7), OperatorAction),
        (grow_incidents, lambda: incidents.purge(7), Incident),
        (grow_replays, lambda: replay_rows.purge(7), Replay),
        (grow_sessions, purging.purge_sessions, Session),
        (grow_samples, lag_samples.thin, LagSample),
    ],
    ids=["journal", "workers", "leases", "refusals", "incidents", "replays", "sessions", "samples"],
)
def test_it_is_purged_in_chunks(
    monkeypatch: pytest.MonkeyPatch, grow: Callable[[float], None], purge: Callable[[], int], table: type
) -> None:
    monkeypatch.setattr(purging, "CHUNK", 3)
    before = table.objects.count()  # type: ignore[attr-defined]
    for _ in range(10):
        grow(100 * DAY)
    grow(60.0)
    assert purge() == 10
    assert table.objects.count() == before + 1  # type: ignore[attr-defined]
    assert purge() == 0


def test_the_hourly_purge_does_all_of_it(settings: Settings) -> None:
    for grow in (grow_journal, grow_workers, grow_leases, grow_refusals, grow_incidents, grow_replays, grow_sessions):
        grow(100 * DAY)
    rebuilt(days_ago=31)
    tasks.purge()
    for table in (Incident, Replay, Session):
        assert not table.objects.exists()
    assert not OperatorAction.objects.filter(outcome="refused").exists()
    assert not PartitionCheckpoint.objects.filter(retired_reason="rebuilt").exists()
    assert_whole(12)


def test_the_running_check_reads_nothing_of_what_was_rebuilt() -> None:
    action = rebuilt(days_ago=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE offsets_ledgerrange SET records = 0 WHERE checkpoint_id = %s", [action.checkpoint_id])
    assert invariant_turns.check_in_turn(GROUP).ok
    assert invariants.check(GROUP).ok
