"""The findings of a tick: one for each problem that an incident is opened for. Pure.

A finding lasts as long as its cause. What resolves by itself within seconds (a rebalance, a short wait) is not one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from offsets.monitoring.group_state import AffectedRange, DeathState, GroupState, PartitionState, WorkerState
from offsets.monitoring.status import Status
from offsets.text import duration
from offsets.types import CIRCUIT_BREAKER


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause at one subject. `began_at` is when it began, by the database's clock."""

    kind: str
    subject: str
    summary: str
    began_at: datetime
    critical: bool = True
    checkpoint_id: int | None = None
    worker_id: str = ""
    ranges: Sequence[AffectedRange] = ()
    evidence: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class FindingLimits:
    heartbeat_timeout_seconds: float
    stuck_seconds: float
    #: Warn of offsets that Kafka deletes sooner than this.
    retention_warn_seconds: float
    breaker: str = CIRCUIT_BREAKER


def find(state: GroupState, limits: FindingLimits) -> list[Finding]:
    """All current problems, each cause at each subject once."""
    found = [
        *_services(state),
        *_workers(state, limits),
        *_partitions(state, limits),
        *_unclaimed(state),
        *_invariants(state),
        *_replays(state),
        *_loops(state),
    ]
    return list({finding.key: finding for finding in found}.values())


def _services(state: GroupState) -> Iterator[Finding]:
    for name, (text, since) in state.services.items():
        yield Finding(
            f"{name}_unavailable",
            name,
            f"{name.capitalize()} does not respond: {text} Nothing is lost; work resumes when it is back.",
            since,
        )


def _workers(state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    for worker in state.workers:
        if worker.dead:
            yield _dead(worker, state)
        elif worker.stack:
            yield Finding(
                "worker_stuck",
                worker.worker_id,
                f"{worker.worker_id} sends heartbeats but has been {worker.stage} for "
                f"{duration(worker.stage_seconds or 0.0)}. Its stack trace is saved with this incident. Evict it so "
                "that another worker takes over.",
                state.now - timedelta(seconds=worker.stage_seconds or 0.0),
                worker_id=worker.worker_id,
                evidence=worker.stack,
            )
        elif worker.last_error:
            yield Finding(
                "worker_trouble",
                worker.worker_id,
                f"{worker.worker_id} is waiting and retries: {worker.last_error}",
                worker.heartbeat_at,
                critical=False,
                worker_id=worker.worker_id,
            )
    dead = {worker.worker_id for worker in state.workers if worker.dead}
    for death in state.deaths:
        if death.worker_id not in dead and _left_behind(death, state.partitions):
            yield Finding(
                "worker_dead",
                death.worker_id,
                death.summary,
                death.began_at,
                worker_id=death.worker_id,
                ranges=death.ranges,
            )


def _dead(worker: WorkerState, state: GroupState) -> Finding:
    owned = [partition for partition in state.partitions if partition.owner == worker.worker_id]
    names = ", ".join(partition.name for partition in owned)
    left = (
        f"It is fenced; other workers take over {names} when Kafka removes it from the group"
        if owned
        else "Other workers have taken over its partitions"
    )
    return Finding(
        "worker_dead",
        worker.worker_id,
        f"{worker.worker_id} sends no heartbeat. {left}. Its slot, if any, is restarted.",
        worker.heartbeat_at,
        critical=bool(owned),
        worker_id=worker.worker_id,
        ranges=[
            AffectedRange(
                *(row.topic, row.partition, "unread", row.next_offset), max(row.next_offset, row.log_end or 0)
            )
            for row in owned
        ],
    )


_WITHOUT_OWNER = frozenset({Status.UNOWNED, Status.OWNER_DEAD})


def _left_behind(death: DeathState, partitions: Sequence[PartitionState]) -> bool:
    """Whether a partition of the dead worker has no live owner yet."""
    return any(
        partition.checkpoint_id in death.checkpoint_ids and partition.verdict.status in _WITHOUT_OWNER
        for partition in partitions
    )


def _partitions(state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    dead = {worker.worker_id for worker in state.workers if worker.dead}
    # Also those whose owner stopped without releasing them: such a worker is not dead.
    unowned = [row for row in state.partitions if row.verdict.status in _WITHOUT_OWNER and row.owner not in dead]
    # During a rebalance the others may still be claimed.
    settled = max([row.claimed_at for row in state.partitions if row.owner and row.claimed_at], default=None)
    waited = [
        row
        for row in unowned
        if (state.now - max(row.since, settled or row.since)).total_seconds() > limits.heartbeat_timeout_seconds
    ]
    if waited and len(unowned) == len(state.partitions):
        yield Finding(
            "no_worker",
            "group",
            "No worker owns any partition, so nothing is counted. Start one: manage.py run_consumer.",
            min(row.since for row in waited),
        )
    elif waited:
        for row in waited:
            yield _of(row, "unowned", row.verdict.detail, row.since)
    for row in state.partitions:
        yield from _one_partition(row, state, limits)


def _one_partition(partition: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    status = partition.verdict.status
    if status is Status.HALTED:
        lost = (
            [AffectedRange(partition.topic, partition.partition, "expired", partition.next_offset, partition.log_start)]
            if partition.halt_reason == "expired"
            and partition.log_start
            and partition.log_start > partition.next_offset
            else []
        )
        yield _of(
            partition,
            f"halted_{partition.halt_reason}",
            partition.verdict.detail,
            partition.halted_at or partition.since,
            ranges=lost,
        )
    if partition.paused_by == limits.breaker:
        yield _of(
            partition,
            "circuit_breaker",
            f"{partition.name} was paused because {partition.paused_reason}. Check its dead letters and failed "
            "ranges, fix the cause, then resume it. Nothing was dropped.",
            partition.since,
        )
    if partition.failed:
        yield _failed(partition)
    if status in (Status.STALLED, Status.STOPPED):
        yield _of(partition, "stalled", partition.verdict.detail, partition.since, critical=status is Status.STOPPED)
    if status in (Status.LAGGING, Status.SLOW):
        yield _of(partition, "lagging", partition.verdict.detail, partition.since, critical=False)
    yield from _retention(partition, state, limits)


def _failed(partition: PartitionState) -> Finding:
    given_up = [failed for failed in partition.failed if failed.retry_at is None]
    offsets, detail = sum(failed.end - failed.start for failed in partition.failed), partition.failed[0].detail
    then = "No retries left: fix the cause, then replay them." if given_up else "An automatic replay retries."
    return _of(
        partition,
        "failed_ranges",
        f"{offsets:,} offsets of {partition.name} could not be applied: {detail.rstrip('.')}. {then}",
        min(failed.since for failed in partition.failed),
        critical=bool(given_up),
        ranges=[
            AffectedRange(partition.topic, partition.partition, "failed", f.start, f.end) for f in partition.failed
        ],
    )


def _retention(partition: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Unread or failed offsets that Kafka deletes soon: by the rate at which the log start moves, or by the topic's
    retention. Kafka deletes whole segments, so it may be later, never sooner.
    """
    if partition.halt_reason:
        return
    left = [
        ("unread", partition.next_offset, partition.log_end or partition.next_offset, partition.unread_seconds),
        *(("failed", f.start, f.end, (state.now - f.since).total_seconds()) for f in partition.failed),
    ]
    soon = []
    for kind, start, end, age in left:
        seconds = _seconds_left(partition, start, age, limits)
        if (
            end > start
            and seconds is not None
            and seconds <= limits.retention_warn_seconds
            and _falls_behind(kind, partition)
        ):
            soon.append((seconds, AffectedRange(partition.topic, partition.partition, kind, start, end)))
    if soon:
        first = min(seconds for seconds, _ in soon)
        yield _of(
            partition,
            "retention",
            f"Kafka starts deleting uncounted offsets of {partition.name} in about {duration(first)}. Raise the "
            "topic's retention, add workers, or replay the failed ranges.",
            state.now,
            ranges=[affected for _, affected in soon],
        )


def _seconds_left(
    partition: PartitionState, offset: int, age_seconds: float | None, limits: FindingLimits
) -> float | None:
    """Until Kafka may delete the offset, at most; None where nothing indicates that it will."""
    found = []
    if partition.old_below is not None and offset < partition.old_below:
        found.append(limits.retention_warn_seconds)
    if partition.log_start is not None and partition.log_start_rate and offset >= partition.log_start:
        found.append((offset - partition.log_start) / partition.log_start_rate)
    if partition.retention_seconds is not None and age_seconds is not None:
        found.append(max(0.0, partition.retention_seconds - age_seconds))
    return min(found, default=None)


def _falls_behind(kind: str, partition: PartitionState) -> bool:
    """A partition that keeps up reads on before retention comes."""
    return kind == "failed" or partition.verdict.status is not Status.OK


def _of(
    partition: PartitionState,
    kind: str,
    summary: str,
    began_at: datetime,
    *,
    critical: bool = True,
    ranges: Sequence[AffectedRange] = (),
) -> Finding:
    return Finding(
        kind, partition.name, summary, began_at, critical, partition.checkpoint_id, partition.owner or "", ranges
    )


def _unclaimed(state: GroupState) -> Iterator[Finding]:
    for name in state.unclaimed or ():
        yield Finding(
            "partition_new",
            name,
            f"{name} was added to its topic and is not claimed yet. Workers detect it within seconds; if this "
            "persists, start one: manage.py run_consumer.",
            state.now,
            critical=False,
        )


def _invariants(state: GroupState) -> Iterator[Finding]:
    if state.violated:
        yield Finding(
            "invariants",
            "ledger",
            f"Ledger invariants violated ({', '.join(state.violated)}). Run manage.py verify_offsets.",
            state.violated_at or state.now,
        )


def _replays(state: GroupState) -> Iterator[Finding]:
    for replay_id, since in state.orphaned_replays:
        yield Finding(
            "replay_orphaned",
            f"replay {replay_id}",
            f"Replay {replay_id} was interrupted: the process that ran it is gone. It resumes where it stopped.",
            since,
            critical=False,
        )
    for replay_id, since in state.waiting_replays:
        waited = duration((state.now - since).total_seconds())
        yield Finding(
            "replay_waiting",
            f"replay {replay_id}",
            f"Replay {replay_id} has been queued for {waited} and no process has taken it. Start a worker for the "
            f"queue replays, or run it here: manage.py replay_offsets --resume {replay_id}.",
            since,
            critical=False,
        )


def _loops(state: GroupState) -> Iterator[Finding]:
    for late in state.late_loops:
        began = state.now - timedelta(seconds=late.age_seconds)
        yield Finding("loop_late", late.name, late.detail, began, critical=False)
