"""The page's lists: incidents, uncounted offsets, dead letters, replays and actions, each of them bounded."""

import json
from collections.abc import Sequence
from typing import Any

from analytics.dashboard.queries import fetch
from analytics.dashboard.snapshot import (
    ActionSnapshot,
    DeadLetterSnapshot,
    IncidentSnapshot,
    LoopSnapshot,
    RecoverySnapshot,
    ReplaySnapshot,
    UncountedSnapshot,
)
from offsets.actions import undo
from offsets.loops import LOOPS, LastRun
from offsets.monitoring.late_loops import LateLoop
from offsets.replays.rows import rates
from offsets.text import preview_text

#: Rows of each list; the admin and the commands show the rest.
SHOWN = 30
TIMELINE_SHOWN = 12

_INCIDENTS = """
    SELECT i.id, i.kind, i.subject, i.severity, i.checkpoint_id, i.worker_id, i.summary, i.ranges::text,
        i.evidence <> '', i.began_at, i.opened_at, i.closed_at,
        greatest(0, extract(epoch FROM i.opened_at - i.began_at))::float8,
        extract(epoch FROM i.closed_at - i.opened_at)::float8,
        (SELECT jsonb_agg(jsonb_build_object('at', e.at, 'source', e.source, 'text', e.text) ORDER BY e.id)::text
            FROM (SELECT * FROM offsets_incidentevent e WHERE e.incident_id = i.id ORDER BY e.id DESC
                LIMIT %(events)s) e)
    FROM (
        SELECT * FROM offsets_incident WHERE group_id = %(group)s
        ORDER BY closed_at IS NOT NULL, id DESC LIMIT %(shown)s
    ) i ORDER BY i.closed_at IS NOT NULL, i.severity = 'warning', i.id DESC
"""

_UNCOUNTED = """
    SELECT r.checkpoint_id, c.topic, c.partition, r.kind, lower(r.offsets), upper(r.offsets), r.detail, r.attempts,
        r.retry_at, r.created_at,
        (SELECT s.log_start_offset FROM offsets_lagsample s WHERE s.checkpoint_id = c.id
            ORDER BY s.sampled_at DESC LIMIT 1)
    FROM offsets_ledgerrange r JOIN offsets_partitioncheckpoint c ON c.id = r.checkpoint_id
    WHERE c.id = ANY(%(ids)s) AND r.kind <> 'processed'
        AND (r.kind <> 'claimed' OR r.epoch <> c.epoch OR c.owner_id IS NULL)
    ORDER BY r.kind <> 'failed', r.kind = 'expired', r.id DESC LIMIT %(shown)s
"""

_DEAD_LETTERS = """
    SELECT d.id, d.checkpoint_id, c.topic, c.partition, d."offset", d.error_code, d.error_detail,
        substring(d.value FROM 1 FOR 400), octet_length(d.value), d.created_at
    FROM offsets_deadletter d JOIN offsets_partitioncheckpoint c ON c.id = d.checkpoint_id
    WHERE d.status = 'pending' AND c.id = ANY(%(ids)s) ORDER BY d.created_at DESC, d.id DESC LIMIT %(shown)s
"""

_REPLAYS = """
    SELECT id, status, automatic, username, reason, done_offsets, total_offsets, counted, deduplicated, dead_letters,
        expired_offsets, starts, cancel_requested, detail, created_at, finished_at,
        extract(epoch FROM coalesce(finished_at, statement_timestamp()) - started_at)::float8
    FROM offsets_replay WHERE group_id = %(group)s
    ORDER BY status NOT IN ('queued', 'running'), id DESC LIMIT %(shown)s
"""

_ACTIONS = """
    SELECT a.id, a.created_at, a.kind, a.target, a.username, a.source, a.outcome, a.reason, a.detail,
        u.id IS NOT NULL
    FROM offsets_operatoraction a LEFT JOIN offsets_operatoraction u ON u.undoes_id = a.id
        LEFT JOIN offsets_partitioncheckpoint c ON c.id = a.checkpoint_id
    WHERE c.group_id = %(group)s OR a.checkpoint_id IS NULL
    ORDER BY a.id DESC LIMIT %(shown)s
"""


def recovery(group_id: str, checkpoint_ids: Sequence[int]) -> RecoverySnapshot:
    """The five lists, newest or most urgent first."""
    values: dict[str, Any] = {
        "group": group_id,
        "ids": list(checkpoint_ids),
        "shown": SHOWN,
        "events": TIMELINE_SHOWN,
    }
    return RecoverySnapshot(
        incidents=[_incident(row) for row in fetch(_INCIDENTS, values)],
        uncounted=[_uncounted(row) for row in fetch(_UNCOUNTED, values)],
        dead_letters=[_dead_letter(row) for row in fetch(_DEAD_LETTERS, values)],
        replays=[_replay(row) for row in fetch(_REPLAYS, values)],
        actions=[_action(row) for row in fetch(_ACTIONS, values)],
    )


def _iso(moment: Any) -> str | None:
    return None if moment is None else str(moment.isoformat())


def _incident(row: tuple[Any, ...]) -> IncidentSnapshot:
    return IncidentSnapshot(
        id=row[0],
        kind=row[1],
        subject=row[2],
        severity=row[3],
        checkpoint_id=row[4],
        worker_id=row[5],
        summary=row[6],
        ranges=json.loads(row[7]),
        has_evidence=row[8],
        began_at=row[9].isoformat(),
        opened_at=row[10].isoformat(),
        closed_at=_iso(row[11]),
        detect_seconds=round(row[12], 3),
        recover_seconds=None if row[13] is None else round(row[13], 3),
        timeline=json.loads(row[14] or "[]"),
    )


def _uncounted(row: tuple[Any, ...]) -> UncountedSnapshot:
    log_start = row[10]
    return UncountedSnapshot(
        checkpoint_id=row[0],
        topic=row[1],
        partition=row[2],
        kind=row[3],
        start=row[4],
        end=row[5],
        detail=row[6],
        attempts=row[7],
        retry_at=_iso(row[8]),
        created_at=row[9].isoformat(),
        gone=None if log_start is None else log_start >= row[5],
    )


def _dead_letter(row: tuple[Any, ...]) -> DeadLetterSnapshot:
    return DeadLetterSnapshot(
        id=row[0],
        checkpoint_id=row[1],
        topic=row[2],
        partition=row[3],
        offset=row[4],
        error_code=row[5],
        error_detail=row[6],
        value=preview_text(None if row[7] is None else bytes(row[7])),
        value_bytes=row[8],
        created_at=row[9].isoformat(),
    )


def _replay(row: tuple[Any, ...]) -> ReplaySnapshot:
    seconds = rates(row[5], row[6], row[16], ended=row[15] is not None)
    return ReplaySnapshot(
        id=row[0],
        status=row[1],
        automatic=row[2],
        username=row[3],
        reason=row[4],
        done_offsets=row[5],
        total_offsets=row[6],
        counted=row[7],
        deduplicated=row[8],
        dead_letters=row[9],
        expired_offsets=row[10],
        starts=row[11],
        cancel_requested=row[12],
        detail=row[13],
        created_at=row[14].isoformat(),
        finished_at=_iso(row[15]),
        offsets_per_second=seconds["offsets_per_second"],
        eta_seconds=seconds["eta_seconds"],
    )


def _action(row: tuple[Any, ...]) -> ActionSnapshot:
    return ActionSnapshot(
        id=row[0],
        at=row[1].isoformat(),
        kind=row[2],
        target=row[3],
        username=row[4],
        source=row[5],
        outcome=row[6],
        reason=row[7],
        detail=row[8],
        undone=row[9],
        undoable=row[6] == "applied" and not row[9] and row[2] in undo.UNDOABLE,
    )


def loops_of(runs: Sequence[LastRun], late: Sequence[LateLoop]) -> list[LoopSnapshot]:
    """The periodic loops, late ones first."""
    details = {loop.name: loop.detail for loop in late}
    return [
        LoopSnapshot(
            name=run.name,
            interval_seconds=LOOPS[run.name].interval_seconds,
            last_run_age_seconds=round(run.age_seconds, 3),
            duration_seconds=None if run.duration_seconds is None else round(run.duration_seconds, 3),
            running=run.running,
            late=run.name in details,
            detail=details.get(run.name, ""),
        )
        for run in sorted(runs, key=lambda run: (run.name not in details, run.name))
        if run.name in LOOPS
    ]
