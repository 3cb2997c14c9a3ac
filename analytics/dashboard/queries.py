"""The SQL of the page: a few statements, each for all partitions of a group at once.

Every age is by the database's clock: `statement_timestamp()`, because the planner uses no index for a comparison
with the volatile `clock_timestamp()`. Rows are the named tuples below, columns in their order.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

from analytics.dashboard.ledger_strip import Piece
from analytics.dashboard.snapshot import JournalSnapshot, MinuteSnapshot, TypeCounts
from offsets.monitoring.facts import HIDDEN_COLUMNS, NEWEST_SAMPLE_JOIN, OWNER_COLUMNS, PAUSE_JOIN, SERVED_SINCE

#: Rates are over this many seconds of samples.
RATE_SECONDS = 10
SERIES_SECONDS = 300
SERIES_STEP_SECONDS = 5
#: Workers that stopped longer ago are hidden, unless they still own a partition.
STOPPED_SHOWN_SECONDS = 600
MINUTES_SHOWN = 60
#: An older offset of a store is not compared.
DRIFT_FRESH_SECONDS = 60
JOURNAL_SHOWN = 30


def fetch(sql: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    """One plain SELECT."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def _age(column: str) -> str:
    """SQL: seconds since that moment, NULL for NULL. A moment in the future was noted before the clock was set back:
    it is as far away as it lies ahead, so that it does not pass for just now.
    """
    return f"abs(extract(epoch FROM statement_timestamp() - {column})::float8)"


class PartitionRow(NamedTuple):
    checkpoint_id: int
    topic: str
    partition: int
    epoch: int
    next_offset: int
    desired_state: str
    halt_reason: str
    halt_detail: str
    committed_at: datetime | None
    owner: str | None
    heartbeat_age: float | None
    owner_stopped: bool
    # The newest sample, and the oldest of the last RATE_SECONDS.
    sample_age: float | None
    sampled_at: float | None
    log_start: int | None
    log_end: int | None
    sampled_next: int | None
    before_at: float | None
    before_end: int | None
    before_next: int | None
    # Points for the lag in seconds: the oldest sample, and those on both sides of next_offset.
    oldest_at: float | None
    oldest_end: int | None
    below_at: float | None
    below_end: int | None
    above_at: float | None
    above_end: int | None
    semantics: str
    duplicates: int
    #: JSON, store → offsets by which it is ahead; null where it holds nothing.
    drift: str | None
    #: The recovery manager's verdict, its detail without its numbers, and its age; None without one.
    health_status: str | None
    health_detail: str | None
    health_since: datetime | None
    health_eta: float | None
    health_age: float | None
    # Its owner's activity and its failures, as the recovery manager reads them.
    paused_by: str
    seconds_since_commit: float | None
    stage: str
    stage_seconds: float | None
    trouble: str | None
    failed_ranges: int
    failed_offsets: int
    failed_given_up: int
    high_watermark: int | None
    #: Since when an open transaction holds the log end, and for how long.
    hidden_since: datetime | None
    hidden_seconds: float | None
    before_start: int | None


# The search for the point below next_offset walks back from the newest sample and stops at the first match: one step
# for a partition that keeps up. Where even the oldest sample lies beyond, it is not begun.
_PARTITIONS = f"""
    SELECT c.id, c.topic, c.partition, c.epoch, c.next_offset, c.desired_state, c.halt_reason, c.halt_detail,
        c.committed_at, c.owner_id,
        {_age("w.heartbeat_at")},
        coalesce(w.state = 'stopped', false),
        {_age("n.sampled_at")},
        extract(epoch FROM n.sampled_at)::float8, n.log_start_offset, n.log_end_offset, n.next_offset,
        extract(epoch FROM p.sampled_at)::float8, p.log_end_offset, p.next_offset,
        extract(epoch FROM o.sampled_at)::float8, o.log_end_offset,
        extract(epoch FROM b.sampled_at)::float8, b.log_end_offset,
        extract(epoch FROM a.sampled_at)::float8, a.log_end_offset,
        c.semantics, c.duplicates,
        (SELECT jsonb_object_agg(d.store, d.next_offset - d.ledger_next_offset)::text FROM offsets_storeoffset d
            WHERE d.checkpoint_id = c.id
            AND d.seen_at BETWEEN statement_timestamp() - make_interval(secs => %(drift_seconds)s)
                AND statement_timestamp()),
        h.status, coalesce(nullif(h.template, ''), h.detail), h.since, h.eta_seconds,
        {_age("h.assessed_at")},
        {OWNER_COLUMNS},
        f.ranges, f.offsets, f.given_up, hidden.*,
        extract(epoch FROM statement_timestamp() - hidden.since)::float8, p.log_start_offset
    FROM offsets_partitioncheckpoint c
    LEFT JOIN offsets_worker w ON w.worker_id = c.owner_id
    LEFT JOIN offsets_partitionhealth h ON h.checkpoint_id = c.id
    {NEWEST_SAMPLE_JOIN}
    LEFT JOIN LATERAL (SELECT {HIDDEN_COLUMNS}) AS hidden(high_watermark, since) ON true
    LEFT JOIN offsets_operatoraction act ON act.id = c.last_action_id
    LEFT JOIN LATERAL (
        SELECT * FROM offsets_lagsample s WHERE s.checkpoint_id = c.id
            AND s.sampled_at >= n.sampled_at - make_interval(secs => %(rate_seconds)s) AND s.sampled_at <= n.sampled_at
            AND ({SERVED_SINCE} IS NULL OR s.sampled_at >= {SERVED_SINCE} OR {SERVED_SINCE} > statement_timestamp())
        ORDER BY s.sampled_at LIMIT 1
    ) p ON true
    LEFT JOIN LATERAL (
        SELECT * FROM offsets_lagsample s WHERE s.checkpoint_id = c.id ORDER BY s.sampled_at LIMIT 1
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT * FROM offsets_lagsample s WHERE s.checkpoint_id = c.id AND s.log_end_offset <= c.next_offset
            AND n.log_end_offset > c.next_offset AND o.log_end_offset <= c.next_offset
            AND s.sampled_at <= n.sampled_at
        ORDER BY s.sampled_at DESC LIMIT 1
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT * FROM offsets_lagsample s WHERE s.checkpoint_id = c.id AND s.sampled_at > b.sampled_at
        ORDER BY s.sampled_at LIMIT 1
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT count(*) AS ranges, coalesce(sum(upper(r.offsets) - lower(r.offsets)), 0)::bigint AS offsets,
            count(*) FILTER (WHERE r.retry_at IS NULL) AS given_up
        FROM offsets_ledgerrange r WHERE r.checkpoint_id = c.id AND r.kind <> 'processed' AND r.kind = 'failed'
    ) f ON true
    {PAUSE_JOIN}
    WHERE c.group_id = %(group)s AND c.retired_at IS NULL
    ORDER BY c.topic, c.partition
"""  # noqa: S608


def partitions(group_id: str) -> list[PartitionRow]:
    values = {"group": group_id, "rate_seconds": RATE_SECONDS, "drift_seconds": DRIFT_FRESH_SECONDS}
    return [PartitionRow(*row) for row in fetch(_PARTITIONS, values)]


# Adjacent processed ranges are one to a reader; the unusual kinds keep their own borders.
#: A partition with more pieces than this is read in so many slots: in each, the short pieces of a kind are one.
PIECE_SLOTS = 1000
_PIECES = """
    WITH islands AS (
        SELECT checkpoint_id, min(low) AS low, max(high) AS high, kind, sum(records) AS records,
            sum(failed_records) AS failed_records
        FROM (
            SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY checkpoint_id ORDER BY low) AS island
            FROM (
                SELECT r.checkpoint_id, r.kind, lower(r.offsets) AS low, upper(r.offsets) AS high, r.records,
                    r.failed_records,
                    (r.kind = 'processed' AND lag(r.kind) OVER w = 'processed'
                        AND lag(upper(r.offsets)) OVER w = lower(r.offsets)) IS NOT TRUE AS begins
                FROM offsets_ledgerrange r WHERE r.checkpoint_id = ANY(%(ids)s)
                WINDOW w AS (PARTITION BY r.checkpoint_id ORDER BY lower(r.offsets))
            ) AS marked
        ) AS numbered
        GROUP BY checkpoint_id, island, kind
    ), spans AS (
        SELECT checkpoint_id, count(*) AS pieces, min(low) AS first,
            greatest(1, (max(high) - min(low)) / %(slots)s) AS width
        FROM islands GROUP BY checkpoint_id
    )
    SELECT checkpoint_id, min(low), (min(low) + sum(high - low))::bigint, kind, sum(records)::bigint,
        sum(failed_records)::bigint
    FROM islands JOIN spans USING (checkpoint_id)
    GROUP BY checkpoint_id, kind,
        CASE WHEN pieces <= %(slots)s OR high - low >= width THEN -1 - low ELSE (low - first) / width END
    ORDER BY checkpoint_id, 2
"""


def pieces(checkpoint_ids: Sequence[int]) -> dict[int, list[Piece]]:
    """The ledger's ranges by checkpoint, in offset order, adjacent processed ones joined.

    As many as there are up to PIECE_SLOTS, and a bounded number beyond; the offsets of each kind are exact.
    """
    by_checkpoint: dict[int, list[Piece]] = {}
    for checkpoint_id, *piece in fetch(_PIECES, {"ids": list(checkpoint_ids), "slots": PIECE_SLOTS}):
        by_checkpoint.setdefault(checkpoint_id, []).append(Piece(*piece))
    return by_checkpoint


_DEAD_LETTERS = """
    SELECT checkpoint_id, count(*) FROM offsets_deadletter
    WHERE status = 'pending' AND checkpoint_id = ANY(%(ids)s) GROUP BY checkpoint_id
"""


def pending_dead_letters(checkpoint_ids: Sequence[int]) -> dict[int, int]:
    return dict(fetch(_DEAD_LETTERS, {"ids": list(checkpoint_ids)}))


# A rebuilt checkpoint was replaced by another that counts the same events; a retired one of an earlier topic was not.
_COUNTED = "SELECT id FROM offsets_partitioncheckpoint WHERE group_id = %(group)s AND retired_reason <> 'rebuilt'"
_TOTALS = f"""
    SELECT coalesce(sum(views), 0)::bigint, coalesce(sum(likes), 0)::bigint, coalesce(sum(comments), 0)::bigint,
        coalesce(sum(shares), 0)::bigint
    FROM analytics_engagementminute WHERE checkpoint_id IN ({_COUNTED})
"""  # noqa: S608 - both halves are constants of this module


def totals(group_id: str) -> TypeCounts:
    """All counted events by type: minute rows and the carry row of purged minutes (I4)."""
    row = fetch(_TOTALS, {"group": group_id})[0]
    return TypeCounts(view=row[0], like=row[1], comment=row[2], share=row[3])


# The clock drives the minutes, so that gaps come back as zeros. The carry row lies at 1970 and stays out.
_MINUTES = f"""
    SELECT m.minute, coalesce(sum(e.views), 0)::bigint, coalesce(sum(e.likes), 0)::bigint,
        coalesce(sum(e.comments), 0)::bigint, coalesce(sum(e.shares), 0)::bigint
    FROM (SELECT date_trunc('minute', statement_timestamp()) - make_interval(mins => back) AS minute
        FROM generate_series(0, %(minutes)s - 1) AS back) AS m
    LEFT JOIN analytics_engagementminute e ON e.minute = m.minute AND e.checkpoint_id IN ({_COUNTED})
    GROUP BY m.minute ORDER BY m.minute
"""  # noqa: S608 - both halves are constants of this module


def minutes(group_id: str) -> list[MinuteSnapshot]:
    return [
        MinuteSnapshot(
            minute=row[0].isoformat(), counts=TypeCounts(view=row[1], like=row[2], comment=row[3], share=row[4])
        )
        for row in fetch(_MINUTES, {"group": group_id, "minutes": MINUTES_SHOWN})
    ]


class WorkerRow(NamedTuple):
    worker_id: str
    slot: str
    hostname: str
    process_id: int
    state: str
    heartbeat_age: float
    #: None while it runs; how long after its last heartbeat it was marked as stopped.
    stopped_after: float | None
    records: int
    events_per_second: float | None
    memory_bytes: int | None
    batch_in_hand: int
    fenced_commits: int
    last_error: str
    stage: str
    stage_seconds: float | None
    topics: list[str]
    refusal: str


_WORKERS = f"""
    SELECT worker_id, slot, hostname, process_id, state,
        {_age("heartbeat_at")},
        extract(epoch FROM stopped_at - heartbeat_at)::float8,
        records, events_per_second, memory_bytes, batch_in_hand, fenced_commits, last_error, stage, stage_seconds,
        topics, refusal
    FROM offsets_worker w
    WHERE group_id = %(group)s AND (
        state <> 'stopped'
        OR stopped_at BETWEEN statement_timestamp() - make_interval(secs => %(shown)s) AND statement_timestamp()
        OR EXISTS (SELECT 1 FROM offsets_partitioncheckpoint c
            WHERE c.owner_id = w.worker_id AND c.retired_at IS NULL))
    ORDER BY state = 'stopped', worker_id
"""  # noqa: S608


def workers(group_id: str) -> list[WorkerRow]:
    return [WorkerRow(*row) for row in fetch(_WORKERS, {"group": group_id, "shown": STOPPED_SHOWN_SECONDS})]


class GroupRow(NamedTuple):
    taken_at: datetime
    fenced_commits: int
    duplicates: int
    #: None, all three, before the first check.
    invariants_ok: bool | None
    invariants_age: float | None
    invariants: str | None
    #: Partitions that an operator retired.
    retired: int
    #: Every partition was checked in full within this time; None before the first round is complete.
    invariants_complete_age: float | None


_GROUP = f"""
    SELECT statement_timestamp(),
        (SELECT coalesce(sum(fenced_commits), 0)::bigint FROM offsets_worker WHERE group_id = %(group)s),
        (SELECT coalesce(sum(duplicates), 0)::bigint FROM offsets_partitioncheckpoint
            WHERE group_id = %(group)s AND retired_reason <> 'rebuilt'),
        i.ok, {_age("i.checked_at")}, i.invariants::text,
        (SELECT count(*) FROM offsets_partitioncheckpoint WHERE group_id = %(group)s AND retired_reason = 'retired'),
        {_age("i.complete_since")}
    FROM (SELECT 1) AS one LEFT JOIN offsets_invariantreport i ON i.group_id = %(group)s
"""  # noqa: S608

_JOURNAL = """
    SELECT id, created_at, level, kind, worker_id, topic, partition, message FROM offsets_journalentry
    WHERE group_id = %(group)s ORDER BY id DESC LIMIT %(shown)s
"""


def group(group_id: str) -> GroupRow:
    return GroupRow(*fetch(_GROUP, {"group": group_id})[0])


def journal(group_id: str) -> list[JournalSnapshot]:
    return [
        JournalSnapshot(
            id=row[0],
            at=row[1].isoformat(),
            level=row[2],
            kind=row[3],
            worker_id=row[4],
            topic=row[5],
            partition=row[6],
            message=row[7],
        )
        for row in fetch(_JOURNAL, {"group": group_id, "shown": JOURNAL_SHOWN})
    ]


class SweepRow(NamedTuple):
    """One partition in one sweep of samples (all rows of a sweep share one moment)."""

    at: float
    checkpoint_id: int
    log_end: int
    next_offset: int
    log_start: int


# A loose index scan: from each sweep the index is asked for the first one at least a step later, so that five
# minutes of dense samples cost sixty look-ups.
_SWEEPS = """
    WITH RECURSIVE sweeps(at) AS (
        SELECT min(sampled_at) FROM offsets_lagsample WHERE checkpoint_id = ANY(%(ids)s)
            AND sampled_at BETWEEN statement_timestamp() - make_interval(secs => %(seconds)s) AND statement_timestamp()
        UNION ALL
        SELECT (SELECT s.sampled_at FROM offsets_lagsample s WHERE s.checkpoint_id = ANY(%(ids)s)
                AND s.sampled_at >= sweeps.at + make_interval(secs => %(step)s)
                AND s.sampled_at <= statement_timestamp()
            ORDER BY s.sampled_at LIMIT 1)
        FROM sweeps WHERE sweeps.at IS NOT NULL
    )
    SELECT extract(epoch FROM s.sampled_at)::float8, s.checkpoint_id, s.log_end_offset, s.next_offset,
        s.log_start_offset
    FROM sweeps JOIN offsets_lagsample s ON s.sampled_at = sweeps.at AND s.checkpoint_id = ANY(%(ids)s)
    ORDER BY s.sampled_at
"""


def sweeps(checkpoint_ids: Sequence[int]) -> list[SweepRow]:
    """Samples of the last five minutes, one sweep for each step, oldest first."""
    params = {"ids": list(checkpoint_ids), "seconds": SERIES_SECONDS, "step": SERIES_STEP_SECONDS}
    return [SweepRow(*row) for row in fetch(_SWEEPS, params)]
