"""The read model of the page: a handful of statements in, one typed snapshot out.

`Dashboard` belongs to one process. It reads everything afresh each time, except parts that cost much: those are read
again only when they have rested twenty times as long as they took, so that a long history cannot eat the database.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, TypeVar

from django.conf import settings

from analytics import dashboard_queries as queries
from analytics.dashboard_queries import GroupRow, PartitionRow, SweepRow, WorkerRow
from analytics.ledger_strip import Piece, fit, offsets_by_kind
from analytics.recovery_queries import recovery
from analytics.snapshot import (
    InvariantsSnapshot,
    PartitionSnapshot,
    RangeSnapshot,
    RecoverySnapshot,
    SeriesSnapshot,
    Snapshot,
    TypeCounts,
    WorkerSnapshot,
)
from offsets import clock
from offsets.monitoring import headline, status
from offsets.monitoring.headline import GroupFacts
from offsets.monitoring.lag import (
    SAMPLE_FRESH_SECONDS,
    LagTime,
    LogEnd,
    lag_records,
    lag_time,
    longest_or_none,
    per_second,
    total_or_none,
)
from offsets.monitoring.status import Limits, PartitionFacts, Verdict
from offsets.types import RangeKind

VERSION = 1
#: A costly part is read at most one twentieth of the time.
REST_FACTOR = 20
#: A verdict older than this is not the recovery manager's of now.
HEALTH_FRESH_SECONDS = 5.0
MAX_PIECES = 200
MIN_PIECES = 20
#: Pieces in one snapshot: what keeps the payload of 500 partitions with wild histories near a megabyte.
PIECES_BUDGET = 10_000

T = TypeVar("T")


class _Rested(Generic[T]):
    """A value that is read again only after it has rested for a multiple of what reading it took."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._due = 0.0

    def get(self, read: Callable[[], T]) -> T:
        started = clock.monotonic()
        if self._value is None or started >= self._due:
            self._value = read()
            finished = clock.monotonic()
            self._due = finished + REST_FACTOR * (finished - started)
        return self._value


class Dashboard:
    """Builds snapshots of one consumer group."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self._totals: _Rested[TypeCounts] = _Rested()
        self._dead_letters: _Rested[dict[int, int]] = _Rested()
        self._series: _Rested[SeriesSnapshot] = _Rested()
        self._recovery: _Rested[RecoverySnapshot] = _Rested()

    def snapshot(self) -> Snapshot:
        """What is true now, as far as separate statements can say; each number is exact when it was read."""
        rows = queries.partitions(self.group_id)
        ids = [row.checkpoint_id for row in rows]
        pieces = queries.pieces(ids)
        dead_letters = self._dead_letters.get(lambda: queries.pending_dead_letters(ids))
        totals = self._totals.get(lambda: queries.totals(self.group_id))
        worker_rows = queries.workers(self.group_id)
        group = queries.group(self.group_id)
        verdicts = [_verdict(row) for row in rows]
        partitions = [
            _partition(row, verdict, pieces.get(row.checkpoint_id, []), dead_letters, len(rows))
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        facts = _group_facts(partitions, verdicts, group)
        invariants = _invariants(group)
        return Snapshot(
            version=VERSION,
            sequence=int(group.taken_at.timestamp() * 1000),
            taken_at=group.taken_at.isoformat(),
            group=self.group_id,
            headline=headline.headline(facts),
            worst_status=headline.group_status(facts).value,
            lag=facts.lag,
            lag_seconds=facts.lag_seconds,
            events_per_second=_rate(partitions, worker_rows),
            log_sampled_age_seconds=min((row.sample_age for row in rows if row.sample_age is not None), default=None),
            totals=totals,
            counted=totals["view"] + totals["like"] + totals["comment"] + totals["share"],
            dead_letters=facts.dead_letters,
            fenced_commits=group.fenced_commits,
            partitions=partitions,
            workers=_workers(worker_rows, partitions),
            minutes=queries.minutes(self.group_id),
            invariants=invariants,
            journal=queries.journal(self.group_id),
            series=self._series.get(lambda: _series(rows)),
            recovery=self._recovery.get(lambda: recovery(self.group_id, ids)),
        )


@cache
def dashboard_of(group_id: str) -> Dashboard:
    """This process's dashboard of a group: what rests is shared by all who ask."""
    return Dashboard(group_id)


# --- Partitions -----------------------------------------------------------------------------------


def _limits() -> Limits:
    return Limits(settings.HEARTBEAT_TIMEOUT_SECONDS, settings.ALLOWED_LAG_SECONDS)


def _fresh(row: PartitionRow) -> bool:
    return row.sample_age is not None and row.sample_age <= SAMPLE_FRESH_SECONDS


def _lag(row: PartitionRow) -> tuple[int | None, LagTime]:
    """In records and in time. An old log end draws the strip; a lag made from it would pass for the lag of now."""
    lag = lag_records(row.log_end, row.next_offset) if _fresh(row) else None
    return lag, _lag_time(row) if lag is not None else LagTime(None, 0.0)


def _verdict(row: PartitionRow) -> Verdict:
    """The recovery manager's while it watches: it knows the last minute. Otherwise what can be said from here."""
    if _watched(row):
        return Verdict(
            status.Status(row.health_status or ""), row.health_detail or "", row.next_offset, row.failed_offsets
        )
    return status.assess(_facts(row, *_lag(row)), _limits())


def _watched(row: PartitionRow) -> bool:
    return row.health_age is not None and row.health_age <= HEALTH_FRESH_SECONDS


def _partition(
    row: PartitionRow, verdict: Verdict, pieces: Sequence[Piece], dead_letters: dict[int, int], count: int
) -> PartitionSnapshot:
    lag, lag_time = _lag(row)
    drawn = fit(pieces, max(MIN_PIECES, min(MAX_PIECES, PIECES_BUDGET // max(1, count))))
    return PartitionSnapshot(
        checkpoint_id=row.checkpoint_id,
        topic=row.topic,
        partition=row.partition,
        status=verdict.label,
        status_detail=verdict.detail,
        owner=row.owner,
        owner_heartbeat_age_seconds=_rounded(row.heartbeat_age),
        epoch=row.epoch,
        next_offset=row.next_offset,
        log_start_offset=row.log_start,
        log_end_offset=row.log_end,
        lag=lag,
        lag_seconds=_rounded(lag_time.seconds),
        events_per_second=_rounded(_progress(row)),
        desired_state=row.desired_state,
        halt_reason=row.halt_reason,
        ranges=[_range(piece) for piece in drawn],
        range_offsets=offsets_by_kind(pieces),
        dead_letters=dead_letters.get(row.checkpoint_id, 0),
        committed_at=row.committed_at.isoformat() if row.committed_at else None,
        semantics=row.semantics,
        duplicates=row.duplicates,
        drift=json.loads(row.drift) if row.drift else {},
        status_since=row.health_since.isoformat() if row.health_since and _watched(row) else None,
        eta_seconds=_rounded(row.health_eta) if _watched(row) else None,
    )


def _range(piece: Piece) -> RangeSnapshot:
    return RangeSnapshot(
        start=piece.start,
        end=piece.end,
        kind=piece.kind,
        records=piece.records,
        failed_records=piece.failed_records,
    )


def _facts(row: PartitionRow, lag: int | None, lag_time: LagTime) -> PartitionFacts:
    return PartitionFacts(
        name=f"{row.topic}-{row.partition}",
        next_offset=row.next_offset,
        owner=row.owner,
        owner_heartbeat_age_seconds=row.heartbeat_age,
        owner_stopped=row.owner_stopped,
        desired_state=row.desired_state,
        halt_reason=row.halt_reason,
        halt_detail=row.halt_detail,
        lag=lag,
        lag_time=lag_time,
        failed_ranges=int(row.failed_offsets > 0),
        failed_offsets=row.failed_offsets,
        lag_growth_per_second=per_second(
            _sample(row.before_at, lag_records(row.before_end, row.before_next or 0)),
            _sample(row.sampled_at, lag_records(row.log_end, row.sampled_next or 0)),
        ),
    )


def _sample(at: float | None, value: int | None) -> tuple[float, int] | None:
    return None if at is None or value is None else (at, value)


def _known_ends(row: PartitionRow) -> list[LogEnd]:
    """The samples that decide the lag in seconds, oldest first, each moment once."""
    points = {
        at: end
        for at, end in (
            (row.oldest_at, row.oldest_end),
            (row.below_at, row.below_end),
            (row.above_at, row.above_end),
            (row.sampled_at, row.log_end),
        )
        if at is not None and end is not None
    }
    return [LogEnd(at, points[at]) for at in sorted(points)]


def _lag_time(row: PartitionRow) -> LagTime:
    return lag_time(_known_ends(row), row.next_offset)


def _progress(row: PartitionRow) -> float | None:
    """Offsets a second by which the partition moved lately; unknown across a backward seek."""
    if not _fresh(row):
        return None
    rate = per_second(_sample(row.before_at, row.before_next), _sample(row.sampled_at, row.sampled_next))
    return rate if rate is not None and rate >= 0 else None


def _rounded(value: float | None) -> float | None:
    """Three digits say all a reader can use, and keep the payload small."""
    return None if value is None else round(value, 3)


# --- The group ------------------------------------------------------------------------------------


def _group_facts(partitions: Sequence[PartitionSnapshot], verdicts: Sequence[Verdict], group: GroupRow) -> GroupFacts:
    uncounted: dict[str, int] = {}
    for partition in partitions:
        for kind, offsets in partition["range_offsets"].items():
            if kind != RangeKind.PROCESSED:
                uncounted[kind] = uncounted.get(kind, 0) + offsets
    invariants = _invariants(group)
    return GroupFacts(
        [(f"{one['topic']}-{one['partition']}", verdict) for one, verdict in zip(partitions, verdicts, strict=True)],
        lag=total_or_none([one["lag"] for one in partitions]),
        lag_seconds=longest_or_none([one["lag_seconds"] for one in partitions]),
        invariants_ok=group.invariants_ok,
        invariants_age_seconds=group.invariants_age,
        violated=[name for name, one in sorted(invariants["invariants"].items()) if not one["ok"]]
        if invariants
        else (),
        dead_letters=sum(one["dead_letters"] for one in partitions),
        duplicates=group.duplicates,
        uncounted=uncounted,
    )


def _invariants(group: GroupRow) -> InvariantsSnapshot | None:
    if group.invariants_ok is None or group.invariants_age is None or group.invariants is None:
        return None
    return InvariantsSnapshot(
        ok=group.invariants_ok,
        checked_age_seconds=round(group.invariants_age, 3),
        invariants=json.loads(group.invariants),
    )


def _rate(partitions: Sequence[PartitionSnapshot], workers: Sequence[WorkerRow]) -> float | None:
    """The sum over partitions; while nobody samples the log, what live workers say of themselves."""
    known = [one["events_per_second"] for one in partitions if one["events_per_second"] is not None]
    if not known:
        known = [
            one.events_per_second for one in workers if one.events_per_second is not None and _state(one) != "dead"
        ]
    return _rounded(sum(known)) if known else None


def _state(row: WorkerRow) -> str:
    """A worker that was marked as stopped long after its last heartbeat did not stop: it died."""
    silent = row.heartbeat_age if row.stopped_after is None else row.stopped_after
    return "dead" if silent > settings.HEARTBEAT_TIMEOUT_SECONDS else row.state


def _workers(rows: Sequence[WorkerRow], partitions: Sequence[PartitionSnapshot]) -> list[WorkerSnapshot]:
    owned: dict[str | None, list[str]] = {}
    for one in partitions:
        owned.setdefault(one["owner"], []).append(f"{one['topic']}-{one['partition']}")
    return [
        WorkerSnapshot(
            worker_id=row.worker_id,
            slot=row.slot,
            hostname=row.hostname,
            process_id=row.process_id,
            state=_state(row),
            heartbeat_age_seconds=round(row.heartbeat_age, 3),
            partitions=owned.get(row.worker_id, []),
            records=row.records,
            events_per_second=_rounded(row.events_per_second),
            memory_bytes=row.memory_bytes,
            batch_in_hand=row.batch_in_hand,
            fenced_commits=row.fenced_commits,
            last_error=row.last_error,
            stage=row.stage if (row.stage_seconds or 0) >= 1 else "",
            stage_seconds=_rounded(row.stage_seconds),
        )
        for row in rows
    ]


# --- Five minutes of history ----------------------------------------------------------------------


def _older_ends(row: PartitionRow, before: float) -> list[LogEnd]:
    """The points around next_offset, where they lie before the sweeps: a partition paused for an hour needs them."""
    around = _known_ends(row._replace(oldest_at=None))
    return [point for point in around if point.at_seconds < before]


def _series(rows: Sequence[PartitionRow]) -> SeriesSnapshot:
    """Sparklines from whole sweeps. A sweep that lacks a partition has no total: a gap, not a dip."""
    moments: dict[float, list[SweepRow]] = {}
    for sample in queries.sweeps([row.checkpoint_id for row in rows]):
        moments.setdefault(sample.at, []).append(sample)
    ends = {row.checkpoint_id: _older_ends(row, min(moments, default=0.0)) for row in rows}
    series = SeriesSnapshot(at=[], lag=[], lag_seconds=[], events_per_second=[])
    before: tuple[float, int] | None = None
    for at, samples in sorted(moments.items()):
        behind = []
        for sample in samples:
            ends[sample.checkpoint_id].append(LogEnd(at, sample.log_end))
            behind.append(lag_time(ends[sample.checkpoint_id], sample.next_offset).seconds)
        whole = len(samples) == len(rows)
        progress = (at, sum(sample.next_offset for sample in samples)) if whole else None
        rate = per_second(before, progress)
        before = progress
        series["at"].append(int(at))
        series["lag"].append(sum(max(0, s.log_end - s.next_offset) for s in samples) if whole else None)
        series["lag_seconds"].append(_rounded(longest_or_none(behind)) if whole else None)
        series["events_per_second"].append(_rounded(rate) if rate is not None and rate >= 0 else None)
    return series
