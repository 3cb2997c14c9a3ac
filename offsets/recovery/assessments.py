"""The facts of a tick, read in a few statements, and the verdicts on them; the only writer of PartitionHealth."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection

from offsets.monitoring.absence import NOTHING_KNOWN, Absence
from offsets.monitoring.facts import (
    HIDDEN_COLUMNS,
    NEWEST_SAMPLE_JOIN,
    OWNER_COLUMNS,
    PAUSE_JOIN,
    SERVED_SINCE,
    FailedTotals,
    LogSamples,
    facts_of,
    limits,
)
from offsets.monitoring.group_state import FailedRange, PartitionState, WorkerState
from offsets.monitoring.lag import LogEnd, per_second
from offsets.monitoring.status import Limits, assess, eta_seconds
from offsets.monitoring.window import CommitPoint
from offsets.types import TopicPartition

WINDOW_SECONDS = 60
#: The log start moves in steps of whole segments, so its rate is taken over a long time.
RETENTION_HOURS = 6


class _Row(NamedTuple):
    checkpoint_id: int
    topic: str
    partition: int
    next_offset: int
    owner: str | None
    heartbeat_age: float | None
    owner_stopped: bool
    desired_state: str
    paused_reason: str
    halt_reason: str
    halt_detail: str
    halted_at: datetime | None
    claimed_at: datetime | None
    paused_by: str
    seconds_since_commit: float | None
    stage: str
    stage_seconds: float | None
    #: None without an owner; empty also for a worker that reports itself stuck.
    trouble: str | None
    #: Seconds since the epoch; earlier samples are of a former owner or of a pause.
    window_from: float
    status: str | None
    since: datetime | None
    #: The oldest sample of the last hours: when, and the log start then.
    old_at: float | None
    old_start: int | None
    high_watermark: int | None
    hidden_since: datetime | None


# A verdict from before a retirement says nothing of the partition since that was undone.
_ROWS = f"""
    SELECT c.id, c.topic, c.partition, c.next_offset, c.owner_id,
        abs(extract(epoch FROM statement_timestamp() - w.heartbeat_at))::float8, coalesce(w.state = 'stopped', false),
        c.desired_state, coalesce(pause.reason, ''), c.halt_reason, c.halt_detail, c.halted_at, c.claimed_at,
        {OWNER_COLUMNS},
        CASE WHEN c.moved_epoch > 0 AND c.epoch - c.moved_epoch <= 1 THEN 0
            ELSE coalesce(extract(epoch FROM {SERVED_SINCE}), 0) END::float8,
        h.status, h.since, extract(epoch FROM o.sampled_at)::float8, o.log_start_offset,
        {HIDDEN_COLUMNS}
    FROM offsets_partitioncheckpoint c
    LEFT JOIN offsets_worker w ON w.worker_id = c.owner_id
    LEFT JOIN offsets_operatoraction act ON act.id = c.last_action_id
    {PAUSE_JOIN}
    LEFT JOIN offsets_partitionhealth h ON h.checkpoint_id = c.id
        AND NOT (h.since < act.created_at AND coalesce(act.after->>'retired', '') = 'false')
    {NEWEST_SAMPLE_JOIN}
    LEFT JOIN LATERAL (
        SELECT sampled_at, log_start_offset FROM offsets_lagsample s WHERE s.checkpoint_id = c.id
            AND s.sampled_at > statement_timestamp() - make_interval(hours => %(hours)s)
        ORDER BY s.sampled_at LIMIT 1
    ) o ON true
    WHERE c.group_id = %(group)s AND c.retired_at IS NULL ORDER BY c.topic, c.partition
"""  # noqa: S608 - the other parts are constants

_SAMPLES = """
    SELECT checkpoint_id, array_agg(extract(epoch FROM sampled_at)::float8 ORDER BY sampled_at),
        array_agg(next_offset ORDER BY sampled_at), array_agg(log_end_offset ORDER BY sampled_at),
        array_agg(log_start_offset ORDER BY sampled_at)
    FROM offsets_lagsample WHERE checkpoint_id = ANY(%(ids)s)
        AND sampled_at BETWEEN statement_timestamp() - make_interval(secs => %(seconds)s) AND statement_timestamp()
    GROUP BY checkpoint_id
"""

_FAILED = """
    SELECT checkpoint_id, lower(offsets), upper(offsets), attempts, retry_at, detail, created_at
    FROM offsets_ledgerrange WHERE checkpoint_id = ANY(%(ids)s) AND kind = 'failed' ORDER BY 1, 2
"""

_WORKERS = """
    SELECT worker_id, least(heartbeat_at, statement_timestamp()),
        state <> 'stopped' AND abs(extract(epoch FROM statement_timestamp() - heartbeat_at)) > %(timeout)s,
        last_error, stage, stage_seconds, stack, topics, refusal
    FROM offsets_worker WHERE group_id = %(group)s AND state <> 'stopped'
"""


def now() -> datetime:
    """The database's clock, which all judgements here use."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment


def partitions(
    group_id: str,
    retention: Mapping[str, float] | None = None,
    old_below: Mapping[TopicPartition, int] | None = None,
    *,
    judged: bool = True,
    absent: Callable[[TopicPartition], Absence] = lambda _: NOTHING_KNOWN,
) -> list[PartitionState]:
    """Every live partition of the group with its verdict. `retention` is by topic, in seconds; Kafka deletes records
    below `old_below` soon. With `judged` false no owner is dead for lack of heartbeats. `absent` says why a partition
    may have no owner.
    """
    rows = [_Row(*row) for row in _all(_ROWS, {"group": group_id, "hours": RETENTION_HOURS})]
    ids = [row.checkpoint_id for row in rows]
    samples = {
        row[0]: tuple(map(CommitPoint, *row[1:])) for row in _all(_SAMPLES, {"ids": ids, "seconds": WINDOW_SECONDS})
    }
    failed: dict[int, list[FailedRange]] = {}
    for checkpoint_id, *values in _all(_FAILED, {"ids": ids}):
        failed.setdefault(checkpoint_id, []).append(FailedRange(*values))
    moment = now()
    allowed = limits() if judged else replace(limits(), heartbeat_timeout_seconds=math.inf)
    return [
        replace(
            _state(
                row,
                samples.get(row.checkpoint_id, ()),
                failed.get(row.checkpoint_id, []),
                moment,
                allowed,
                absent(TopicPartition(row.topic, row.partition)),
            ),
            retention_seconds=(retention or {}).get(row.topic),
            old_below=(old_below or {}).get(TopicPartition(row.topic, row.partition)),
        )
        for row in rows
    ]


def _all(sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _state(
    row: _Row,
    window: Sequence[CommitPoint],
    failed: Sequence[FailedRange],
    at: datetime,
    allowed: Limits,
    absence: Absence,
) -> PartitionState:
    facts = facts_of(row, _log_samples(row, window, at), _failed_totals(failed), absence)
    verdict = assess(facts, allowed)
    newest = window[-1] if window else None
    return PartitionState(
        checkpoint_id=row.checkpoint_id,
        topic=row.topic,
        partition=row.partition,
        next_offset=row.next_offset,
        verdict=verdict,
        # A moment in the future was noted before the clock was set back.
        since=row.since if row.since and row.since <= at and row.status == verdict.status else at,
        owner=row.owner,
        claimed_at=row.claimed_at,
        paused_by=row.paused_by,
        paused_reason=row.paused_reason,
        halt_reason=row.halt_reason,
        halted_at=row.halted_at,
        log_start=newest.log_start_offset if newest else None,
        log_end=newest.log_end_offset if newest else None,
        log_start_rate=_log_start_rate(row, newest),
        unread_seconds=facts.lag_time.at_least_seconds if facts.lag else None,
        failed=failed,
        eta_seconds=eta_seconds(facts, allowed),
        absence=absence,
        lost=facts.lost,
        hidden=facts.hidden,
        hidden_since=facts.hidden_since,
    )


def _log_start_rate(row: _Row, newest: CommitPoint | None) -> float | None:
    if newest is None or row.old_at is None or row.old_start is None:
        return None
    rate = per_second((row.old_at, row.old_start), (newest.at_seconds, newest.log_start_offset))
    return rate if rate and rate > 0 else None


def _log_samples(row: _Row, window: Sequence[CommitPoint], at: datetime) -> LogSamples:
    if not window:
        return LogSamples()
    return LogSamples(
        age_seconds=at.timestamp() - window[-1].at_seconds,
        ends=[LogEnd(point.at_seconds, point.log_end_offset) for point in window],
        log_start=window[-1].log_start_offset,
        high_watermark=row.high_watermark,
        hidden_since=row.hidden_since,
        hidden_seconds=(at - row.hidden_since).total_seconds() if row.hidden_since else None,
        window=[point for point in window if point.at_seconds >= row.window_from or row.window_from > at.timestamp()],
    )


def _failed_totals(failed: Sequence[FailedRange]) -> FailedTotals:
    return FailedTotals(
        ranges=len(failed),
        offsets=sum(failed_range.end - failed_range.start for failed_range in failed),
        given_up=sum(failed_range.retry_at is None for failed_range in failed),
    )


def workers(group_id: str) -> list[WorkerState]:
    """The workers that are not marked as stopped."""
    values = {"group": group_id, "timeout": settings.HEARTBEAT_TIMEOUT_SECONDS}
    return [WorkerState(*row) for row in _all(_WORKERS, values)]


def store(states: Sequence[PartitionState]) -> None:
    """Store the verdicts for all readers. In the manager's transaction."""
    rows = json.dumps(
        [
            {
                "id": state.checkpoint_id,
                "status": state.verdict.status,
                "detail": state.verdict.detail,
                "template": state.verdict.template,
                "since": state.since.astimezone(UTC).isoformat(),
                "eta": state.eta_seconds,
            }
            for state in states
        ]
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_partitionhealth (checkpoint_id, status, detail, template, since, eta_seconds,"
            " assessed_at) SELECT v.id, v.status, v.detail, v.template, v.since, v.eta, clock_timestamp()"
            " FROM jsonb_to_recordset(%s::jsonb)"
            " AS v(id bigint, status text, detail text, template text, since timestamptz, eta float8)"
            " JOIN offsets_partitioncheckpoint c ON c.id = v.id"
            " ON CONFLICT (checkpoint_id) DO UPDATE SET status = excluded.status, detail = excluded.detail,"
            " template = excluded.template,"
            " since = excluded.since, eta_seconds = excluded.eta_seconds, assessed_at = excluded.assessed_at",
            [rows],
        )
