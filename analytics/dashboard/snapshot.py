"""The page's only payload: everything the dashboard shows, as typed JSON. Unknown is None, never 0.

Each message is a whole snapshot with a sequence number, so that the next one repairs a lost one.
Offsets are exact integers; times are ISO 8601 in UTC by the database's clock; durations are seconds.
"""

from typing import TypedDict


class TypeCounts(TypedDict):
    view: int
    like: int
    comment: int
    share: int


class RangeSnapshot(TypedDict):
    """A piece of the ledger strip: `[start, end)`. Long histories are merged to at most a few hundred pieces."""

    start: int
    end: int
    kind: str
    records: int
    failed_records: int


class PartitionSnapshot(TypedDict):
    checkpoint_id: int
    topic: str
    partition: int
    status: str  # a word of offsets.monitoring.status.Status; STUCK says where: "STUCK AT OFFSET 812,400"
    status_detail: str  # what it means here, and what to do
    owner: str | None
    owner_heartbeat_age_seconds: float | None
    epoch: int
    next_offset: int
    log_start_offset: int | None
    log_end_offset: int | None
    lag: int | None
    lag_seconds: float | None
    events_per_second: float | None
    desired_state: str
    halt_reason: str
    ranges: list[RangeSnapshot]
    range_offsets: dict[str, int]  # kind → offsets
    dead_letters: int  # pending
    committed_at: str | None
    semantics: str
    duplicates: int  # records counted more than once: at_least_once allows it
    drift: dict[str, int | None]  # store → offsets by which it is ahead of the ledger; null where it holds nothing
    status_since: str | None  # since when it has this status; null without a recovery manager
    eta_seconds: float | None  # until it has caught up, at the rate of the last minute


class WorkerSnapshot(TypedDict):
    worker_id: str
    slot: str
    hostname: str
    process_id: int
    state: str  # running, stopping, stopped, dead
    heartbeat_age_seconds: float
    partitions: list[str]
    records: int
    events_per_second: float | None
    memory_bytes: int | None
    batch_in_hand: int
    fenced_commits: int
    last_error: str
    stage: str  # its current stage, after one second; otherwise empty
    stage_seconds: float | None


class LoopSnapshot(TypedDict):
    """A periodic loop of the application itself, as far as it ever ran."""

    name: str
    interval_seconds: float
    last_run_age_seconds: float  # since the end of its last run without an error
    duration_seconds: float | None  # of that run
    running: bool
    late: bool
    detail: str  # what does not happen while it is late, and the likely cause; otherwise empty


class MinuteSnapshot(TypedDict):
    minute: str
    counts: TypeCounts


class InvariantSnapshot(TypedDict):
    ok: bool
    detail: str


class InvariantsSnapshot(TypedDict):
    ok: bool
    checked_age_seconds: float
    invariants: dict[str, InvariantSnapshot]  # I1 … I6


class JournalSnapshot(TypedDict):
    id: int
    at: str
    level: str
    kind: str
    worker_id: str
    topic: str
    partition: int | None
    message: str


class SeriesSnapshot(TypedDict):
    """Five minutes of history for the tiles' sparklines; parallel lists, oldest first, None where unknown."""

    at: list[int]  # epoch seconds
    lag: list[int | None]
    lag_seconds: list[float | None]
    events_per_second: list[float | None]


class TimelineSnapshot(TypedDict):
    at: str
    source: str  # manager, operator
    text: str


class IncidentSnapshot(TypedDict):
    id: int
    kind: str
    subject: str
    severity: str  # warning, critical
    checkpoint_id: int | None
    worker_id: str
    summary: str
    ranges: list[dict[str, str | int]]  # topic, partition, kind, start, end
    has_evidence: bool  # a stack trace, at /api/incidents/<id>/
    began_at: str
    opened_at: str
    closed_at: str | None
    detect_seconds: float
    recover_seconds: float | None
    timeline: list[TimelineSnapshot]


class UncountedSnapshot(TypedDict):
    """Offsets `[start, end)` that were passed without being counted."""

    checkpoint_id: int
    topic: str
    partition: int
    kind: str  # failed, skipped, claimed, expired
    start: int
    end: int
    detail: str
    attempts: int
    retry_at: str | None  # null: no automatic retry
    created_at: str
    gone: bool | None  # whether Kafka has deleted all of it; null: unknown


class DeadLetterSnapshot(TypedDict):
    id: int
    checkpoint_id: int
    topic: str
    partition: int
    offset: int
    error_code: str
    error_detail: str
    value: str | None  # as text, truncated; null for a tombstone
    value_bytes: int | None
    created_at: str


class ReplaySnapshot(TypedDict):
    id: int
    status: str  # queued, running, done, failed, cancelled
    automatic: bool
    username: str
    reason: str
    done_offsets: int
    total_offsets: int
    counted: int
    deduplicated: int
    dead_letters: int
    expired_offsets: int
    starts: int
    cancel_requested: bool
    detail: str
    created_at: str
    finished_at: str | None
    offsets_per_second: float | None
    eta_seconds: float | None


class ActionSnapshot(TypedDict):
    id: int
    at: str
    kind: str
    target: str
    username: str
    source: str
    outcome: str
    reason: str
    detail: str
    undone: bool
    undoable: bool


class RecoverySnapshot(TypedDict):
    """Bounded lists, the most urgent or newest first."""

    incidents: list[IncidentSnapshot]  # open ones first, then the last that were closed
    uncounted: list[UncountedSnapshot]  # failed ones first
    dead_letters: list[DeadLetterSnapshot]  # pending
    replays: list[ReplaySnapshot]  # those that run first
    actions: list[ActionSnapshot]


class Snapshot(TypedDict):
    version: int
    sequence: int
    taken_at: str
    group: str
    headline: str  # one sentence for the whole page
    worst_status: str
    lag: int | None
    lag_seconds: float | None
    events_per_second: float | None
    log_sampled_age_seconds: float | None  # age of the newest watermark sample
    totals: TypeCounts
    counted: int  # sum of totals
    dead_letters: int  # pending, all partitions
    fenced_commits: int
    partitions: list[PartitionSnapshot]  # by topic, partition
    workers: list[WorkerSnapshot]
    loops: list[LoopSnapshot]  # late ones first
    minutes: list[MinuteSnapshot]  # the last 60, oldest first, gaps filled with zeros
    invariants: InvariantsSnapshot | None
    journal: list[JournalSnapshot]  # newest first, at most 30
    series: SeriesSnapshot
    recovery: RecoverySnapshot
