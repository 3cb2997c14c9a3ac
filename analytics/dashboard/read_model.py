"""The read model of the page: a few statements in, one typed snapshot out.

`Dashboard` belongs to one process. It reads everything each time, except expensive parts: those rest for twenty times
as long as they took, so that a long history cannot overload the database.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Generic, TypeVar

from django.conf import settings

from analytics.dashboard import queries
from analytics.dashboard.history import series_of
from analytics.dashboard.lists import loops_of, recovery
from analytics.dashboard.partitions import partition_of, rounded, verdict_of
from analytics.dashboard.queries import GroupRow, WorkerRow
from analytics.dashboard.snapshot import (
    InvariantsSnapshot,
    PartitionSnapshot,
    RecoverySnapshot,
    SeriesSnapshot,
    Snapshot,
    TypeCounts,
    WorkerSnapshot,
)
from offsets import clock, ticks
from offsets.monitoring import headline
from offsets.monitoring.headline import GroupFacts
from offsets.monitoring.lag import longest_or_none, total_or_none
from offsets.monitoring.late_loops import late_loops
from offsets.monitoring.status import Verdict
from offsets.types import RangeKind

VERSION = 1
#: An expensive part is read at most one twentieth of the time.
REST_FACTOR = 20

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
        """The current state. It takes several statements, so each number is exact at the moment of its own."""
        rows = queries.partitions(self.group_id)
        ids = [row.checkpoint_id for row in rows]
        pieces = queries.pieces(ids)
        dead_letters = self._dead_letters.get(lambda: queries.pending_dead_letters(ids))
        totals = self._totals.get(lambda: queries.totals(self.group_id))
        worker_rows = queries.workers(self.group_id)
        group = queries.group(self.group_id)
        verdicts = [verdict_of(row) for row in rows]
        partitions = [
            partition_of(row, verdict, pieces.get(row.checkpoint_id, []), dead_letters, len(rows))
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        last_runs = ticks.last_runs(self.group_id)
        late = late_loops(last_runs)
        facts = replace(_group_facts(partitions, verdicts, group), late_loops=late)
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
            loops=loops_of(last_runs, late),
            minutes=queries.minutes(self.group_id),
            invariants=invariants,
            journal=queries.journal(self.group_id),
            series=self._series.get(lambda: series_of(rows)),
            recovery=self._recovery.get(lambda: recovery(self.group_id, ids)),
        )


@cache
def dashboard_of(group_id: str) -> Dashboard:
    """This process's dashboard of a group, so that all callers share the cached parts."""
    return Dashboard(group_id)


# --- The group ------------------------------------------------------------------------------------


def _group_facts(partitions: Sequence[PartitionSnapshot], verdicts: Sequence[Verdict], group: GroupRow) -> GroupFacts:
    uncounted: dict[str, int] = {}
    for partition in partitions:
        for kind, offsets in partition["range_offsets"].items():
            if kind != RangeKind.PROCESSED:
                uncounted[kind] = uncounted.get(kind, 0) + offsets
    invariants = _invariants(group)
    return GroupFacts(
        [
            (f"{partition['topic']}-{partition['partition']}", verdict)
            for partition, verdict in zip(partitions, verdicts, strict=True)
        ],
        lag=total_or_none([partition["lag"] for partition in partitions]),
        lag_seconds=longest_or_none([partition["lag_seconds"] for partition in partitions]),
        invariants_ok=group.invariants_ok,
        invariants_age_seconds=group.invariants_age,
        violated=[name for name, invariant in sorted(invariants["invariants"].items()) if not invariant["ok"]]
        if invariants
        else (),
        dead_letters=sum(partition["dead_letters"] for partition in partitions),
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
    """The sum over partitions; while the log is not sampled, the rates that live workers report."""
    known = [rate for partition in partitions if (rate := partition["events_per_second"]) is not None]
    if not known:
        known = [
            worker.events_per_second
            for worker in workers
            if worker.events_per_second is not None and _state(worker) != "dead"
        ]
    return rounded(sum(known)) if known else None


def _state(row: WorkerRow) -> str:
    """Dead includes a worker that was marked as stopped long after its last heartbeat."""
    silent = row.heartbeat_age if row.stopped_after is None else row.stopped_after
    return "dead" if silent > settings.HEARTBEAT_TIMEOUT_SECONDS else row.state


def _workers(rows: Sequence[WorkerRow], partitions: Sequence[PartitionSnapshot]) -> list[WorkerSnapshot]:
    owned: dict[str | None, list[str]] = {}
    for partition in partitions:
        owned.setdefault(partition["owner"], []).append(f"{partition['topic']}-{partition['partition']}")
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
            events_per_second=rounded(row.events_per_second),
            memory_bytes=row.memory_bytes,
            batch_in_hand=row.batch_in_hand,
            fenced_commits=row.fenced_commits,
            last_error=row.last_error,
            stage=row.stage if (row.stage_seconds or 0) >= 1 else "",
            stage_seconds=rounded(row.stage_seconds),
        )
        for row in rows
    ]
