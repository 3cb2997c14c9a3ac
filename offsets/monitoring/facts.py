"""The facts of one partition and the limits of its verdict, for the recovery manager and for the page alike.

Both read a row of their own and call `facts_of`, so that they cannot judge one partition by different rules. Their
statements share the columns below, too: they expect the checkpoint as `c` and its owner's row as `w`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from django.conf import settings

from offsets.monitoring.absence import NOTHING_KNOWN, Absence
from offsets.monitoring.lag import (
    SAMPLE_FRESH_SECONDS,
    LagTime,
    LogEnd,
    hidden_records,
    lag_records,
    lag_time,
    lost_records,
)
from offsets.monitoring.status import Limits, PartitionFacts
from offsets.monitoring.window import CommitPoint
from offsets.types import CIRCUIT_BREAKER

#: Who else than people pauses, as a sentence names it.
PAUSED_BY = {CIRCUIT_BREAKER: "the circuit breaker"}

#: SQL: who paused it, seconds since its last commit or claim, and what its owner is busy with and waits for.
OWNER_COLUMNS = """coalesce(pause.username, ''),
        CASE WHEN greatest(c.committed_at, c.claimed_at) <= statement_timestamp()
            THEN extract(epoch FROM statement_timestamp() - greatest(c.committed_at, c.claimed_at))::float8 END,
        coalesce(w.stage, ''), w.stage_seconds, CASE WHEN w.stack = '' THEN w.last_error ELSE '' END"""

#: SQL: the pause that holds, as `pause`. A partition that was rebuilt keeps the pause of its predecessor.
PAUSE_JOIN = """LEFT JOIN LATERAL (
        SELECT a.username, a.reason FROM offsets_operatoraction a
        JOIN offsets_partitioncheckpoint b ON b.id = a.checkpoint_id
        WHERE b.group_id = c.group_id AND b.topic = c.topic AND b.partition = c.partition
            AND a.kind = 'pause' AND a.outcome = 'applied' ORDER BY a.id DESC LIMIT 1
    ) pause ON c.desired_state = 'paused'"""


#: SQL: since when its owner has read it: the claim, or the resume `act` that came later. Before that it could not move.
SERVED_SINCE = "greatest(c.claimed_at, CASE WHEN act.kind = 'resume' THEN act.created_at END)"

#: SQL: the newest sample of a checkpoint, as `n`. One from the future was taken before the clock was set back.
NEWEST_SAMPLE_JOIN = """LEFT JOIN LATERAL (
        SELECT * FROM offsets_lagsample s WHERE s.checkpoint_id = c.id AND s.sampled_at <= statement_timestamp()
        ORDER BY s.sampled_at DESC LIMIT 1
    ) n ON true"""

#: SQL: the high watermark, and since when a transaction holds the log end: the sample after the last one at which it
#: did not, which is looked for from the newest backwards.
HIDDEN_COLUMNS = """n.high_watermark,
        (SELECT min(s.sampled_at) FROM offsets_lagsample s WHERE n.high_watermark > n.log_end_offset
            AND s.checkpoint_id = c.id AND s.sampled_at <= n.sampled_at AND s.sampled_at > coalesce((
                SELECT e.sampled_at FROM offsets_lagsample e WHERE e.checkpoint_id = c.id
                    AND e.sampled_at <= n.sampled_at
                    AND (e.log_end_offset <> n.log_end_offset OR e.high_watermark <= e.log_end_offset)
                ORDER BY e.sampled_at DESC LIMIT 1), '-infinity'))"""


class PartitionRecord(Protocol):
    """What a reader's row says of a partition and its owner."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def heartbeat_age(self) -> float | None: ...
    @property
    def owner_stopped(self) -> bool: ...
    @property
    def desired_state(self) -> str: ...
    @property
    def halt_reason(self) -> str: ...
    @property
    def halt_detail(self) -> str: ...
    @property
    def paused_by(self) -> str: ...
    @property
    def seconds_since_commit(self) -> float | None: ...
    @property
    def stage(self) -> str: ...
    @property
    def stage_seconds(self) -> float | None: ...
    @property
    def trouble(self) -> str | None: ...


class LogSamples(NamedTuple):
    """What the samples say of a partition's log."""

    #: Age of the newest sample; None without any.
    age_seconds: float | None = None
    #: Oldest first; the newest is the end of the log.
    ends: Sequence[LogEnd] = ()
    #: The last minute, where the reader knows it.
    window: Sequence[CommitPoint] = ()
    #: Between two samples, for a reader without the window.
    lag_growth_per_second: float | None = None
    log_start: int | None = None
    #: None where it was not asked: the log end moves, so nothing is hidden for long.
    high_watermark: int | None = None
    #: Since when an open transaction holds the log end.
    hidden_since: datetime | None = None
    hidden_seconds: float | None = None

    @property
    def fresh(self) -> bool:
        return self.age_seconds is not None and self.age_seconds <= SAMPLE_FRESH_SECONDS


class FailedTotals(NamedTuple):
    """What could not be applied."""

    ranges: int = 0
    offsets: int = 0
    #: Ranges without an automatic retry.
    given_up: int = 0


def limits() -> Limits:
    """The limits of every verdict, from the settings."""
    return Limits(
        settings.HEARTBEAT_TIMEOUT_SECONDS, settings.ALLOWED_LAG_SECONDS, float(settings.WORKER_STUCK_SECONDS)
    )


def lag_of(next_offset: int, samples: LogSamples) -> tuple[int | None, LagTime]:
    """The lag in records and in time. Unknown from an old sample: it would pass for the lag of now."""
    if not samples.fresh or not samples.ends:
        return None, LagTime(None, 0.0)
    lag = lag_records(samples.ends[-1].offset, next_offset, samples.log_start)
    return lag, lag_time(samples.ends, max(next_offset, samples.log_start or 0))


def hidden_of(samples: LogSamples) -> int | None:
    """The records behind an open transaction; None: unknown."""
    if not samples.fresh or not samples.ends:
        return None
    return hidden_records(samples.ends[-1].offset, samples.high_watermark)


def facts_of(
    record: PartitionRecord, samples: LogSamples, failed: FailedTotals, absence: Absence = NOTHING_KNOWN
) -> PartitionFacts:
    """The facts that a verdict is made from."""
    name = f"{record.topic}-{record.partition}"
    lag, behind = lag_of(record.next_offset, samples)
    # A worker reports one stage; it is this partition's where it names it.
    busy_here = f" {name} [" in record.stage
    return PartitionFacts(
        name=name,
        next_offset=record.next_offset,
        owner=record.owner,
        owner_heartbeat_age_seconds=record.heartbeat_age,
        owner_stopped=record.owner_stopped,
        desired_state=record.desired_state,
        paused_by=PAUSED_BY.get(record.paused_by, "an operator"),
        halt_reason=record.halt_reason,
        halt_detail=record.halt_detail,
        lag=lag,
        lag_time=behind,
        lost=lost_records(record.next_offset, samples.log_start),
        hidden=hidden_of(samples) or 0,
        hidden_since=samples.hidden_since,
        hidden_seconds=samples.hidden_seconds,
        lag_growth_per_second=samples.lag_growth_per_second,
        window=samples.window if samples.fresh else (),
        seconds_since_commit=record.seconds_since_commit,
        stage=record.stage if busy_here else "",
        stage_seconds=record.stage_seconds if busy_here else None,
        worker_trouble=record.trouble or "",
        failed_ranges=failed.ranges,
        failed_offsets=failed.offsets,
        failed_given_up=failed.given_up,
        absence=absence,
    )
