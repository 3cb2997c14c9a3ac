"""What is wrong, from what is known: one finding for each thing that an incident is opened for. Pure.

A finding lasts for as long as its cause; what only takes its time (a rebalance, a short wait) is no finding.
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
    """One cause at one subject. `began_at` is when it began, as far as the database's clock tells."""

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
    #: Offsets that will be gone from Kafka sooner than this are warned of.
    retention_warn_seconds: float
    breaker: str = CIRCUIT_BREAKER


def find(state: GroupState, limits: FindingLimits) -> list[Finding]:
    """All that is wrong now, each cause at each subject once."""
    found = [
        *_services(state),
        *_workers(state, limits),
        *_partitions(state, limits),
        *_unclaimed(state),
        *_invariants(state),
        *_replays(state),
    ]
    return list({finding.key: finding for finding in found}.values())


def _services(state: GroupState) -> Iterator[Finding]:
    for name, (text, since) in state.services.items():
        yield Finding(
            f"{name}_unavailable",
            name,
            f"{name.capitalize()} does not answer: {text} Nothing is lost; work goes on by itself when it is back.",
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
                f"{worker.worker_id} sends heartbeats, but has been {worker.stage} for "
                f"{duration(worker.stage_seconds or 0.0)}. Its stack trace is kept here. Evicted, it makes room for "
                "another worker.",
                state.now - timedelta(seconds=worker.stage_seconds or 0.0),
                worker_id=worker.worker_id,
                evidence=worker.stack,
            )
        elif worker.last_error:
            yield Finding(
                "worker_trouble",
                worker.worker_id,
                f"{worker.worker_id} waits and tries again: {worker.last_error}",
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
    mine = [one for one in state.partitions if one.owner == worker.worker_id]
    names = ", ".join(one.name for one in mine)
    left = (
        f"It is fenced; {names} go to other workers as soon as Kafka's group lets it go"
        if mine
        else "Other workers have taken over what it owned"
    )
    return Finding(
        "worker_dead",
        worker.worker_id,
        f"{worker.worker_id} sends no heartbeat. {left}; its slot, if it had one, is started again.",
        worker.heartbeat_at,
        critical=bool(mine),
        worker_id=worker.worker_id,
        ranges=[
            AffectedRange(one.topic, one.partition, "unread", one.next_offset, max(one.next_offset, one.log_end or 0))
            for one in mine
        ],
    )


_WITHOUT_OWNER = frozenset({Status.UNOWNED, Status.OWNER_DEAD})


def _left_behind(death: DeathState, partitions: Sequence[PartitionState]) -> bool:
    """Whether a partition of the dead worker has no live owner yet."""
    return any(one.checkpoint_id in death.checkpoint_ids and one.verdict.status in _WITHOUT_OWNER for one in partitions)


def _partitions(state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    dead = {worker.worker_id for worker in state.workers if worker.dead}
    # Also those whose owner ended without releasing them: it said goodbye, so it is no dead worker.
    unowned = [one for one in state.partitions if one.verdict.status in _WITHOUT_OWNER and one.owner not in dead]
    # While partitions change hands, the others' turn may still come.
    settled = max([one.claimed_at for one in state.partitions if one.owner and one.claimed_at], default=None)
    waited = [
        one
        for one in unowned
        if (state.now - max(one.since, settled or one.since)).total_seconds() > limits.heartbeat_timeout_seconds
    ]
    if waited and len(unowned) == len(state.partitions):
        yield Finding(
            "no_worker",
            "group",
            "No worker owns any partition, so nothing is counted. Start one: manage.py run_consumer.",
            min(one.since for one in waited),
        )
    elif waited:
        for one in waited:
            yield _of(one, "unowned", one.verdict.detail, one.since)
    for one in state.partitions:
        yield from _one_partition(one, state, limits)


def _one_partition(one: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    status = one.verdict.status
    if status is Status.HALTED:
        lost = (
            [AffectedRange(one.topic, one.partition, "expired", one.next_offset, one.log_start)]
            if one.halt_reason == "expired" and one.log_start and one.log_start > one.next_offset
            else []
        )
        yield _of(one, f"halted_{one.halt_reason}", one.verdict.detail, one.halted_at or one.since, ranges=lost)
    if one.paused_by == limits.breaker:
        yield _of(
            one,
            "circuit_breaker",
            f"{one.name} was paused, because {one.paused_reason}. Look at its dead letters and failed ranges; resume "
            "it when the cause is gone. Nothing was dropped.",
            one.since,
        )
    if one.failed:
        yield _failed(one)
    if status in (Status.STALLED, Status.STOPPED):
        yield _of(one, "stalled", one.verdict.detail, one.since, critical=status is Status.STOPPED)
    if status in (Status.LAGGING, Status.SLOW):
        yield _of(one, "lagging", one.verdict.detail, one.since, critical=False)
    yield from _retention(one, state, limits)


def _failed(one: PartitionState) -> Finding:
    given_up = [failed for failed in one.failed if failed.retry_at is None]
    offsets = sum(failed.end - failed.start for failed in one.failed)
    then = "No retry is left: replay them when the cause is gone." if given_up else "A replay tries again by itself."
    return _of(
        one,
        "failed_ranges",
        f"{offsets:,} offsets of {one.name} could not be applied: {one.failed[0].detail.rstrip('.')}. {then}",
        min(failed.since for failed in one.failed),
        critical=bool(given_up),
        ranges=[AffectedRange(one.topic, one.partition, "failed", f.start, f.end) for f in one.failed],
    )


def _retention(one: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Unread or failed offsets that Kafka will have deleted soon: by the rate at which the log start moves, or by the
    topic's retention. Kafka deletes whole segments, so it may be later, and never sooner.
    """
    if one.halt_reason:
        return
    left = [
        ("unread", one.next_offset, one.log_end or one.next_offset, one.unread_seconds),
        *(("failed", f.start, f.end, (state.now - f.since).total_seconds()) for f in one.failed),
    ]
    soon = []
    for kind, start, end, age in left:
        seconds = _seconds_left(one, start, age, limits)
        if (
            end > start
            and seconds is not None
            and seconds <= limits.retention_warn_seconds
            and _falls_behind(kind, one)
        ):
            soon.append((seconds, AffectedRange(one.topic, one.partition, kind, start, end)))
    if soon:
        first = min(seconds for seconds, _ in soon)
        yield _of(
            one,
            "retention",
            f"Kafka begins to delete offsets of {one.name} that are not counted in about {duration(first)}. Raise the "
            "topic's retention, or add workers, or replay what failed.",
            state.now,
            ranges=[affected for _, affected in soon],
        )


def _seconds_left(one: PartitionState, offset: int, age_seconds: float | None, limits: FindingLimits) -> float | None:
    """Until Kafka may delete the offset, at most; None where nothing says that it will."""
    found = []
    if one.old_below is not None and offset < one.old_below:
        found.append(limits.retention_warn_seconds)
    if one.log_start is not None and one.log_start_rate and offset >= one.log_start:
        found.append((offset - one.log_start) / one.log_start_rate)
    if one.retention_seconds is not None and age_seconds is not None:
        found.append(max(0.0, one.retention_seconds - age_seconds))
    return min(found, default=None)


def _falls_behind(kind: str, one: PartitionState) -> bool:
    """A partition that keeps up reads on before retention comes."""
    return kind == "failed" or one.verdict.status is not Status.OK


def _of(
    one: PartitionState,
    kind: str,
    summary: str,
    began_at: datetime,
    *,
    critical: bool = True,
    ranges: Sequence[AffectedRange] = (),
) -> Finding:
    return Finding(kind, one.name, summary, began_at, critical, one.checkpoint_id, one.owner or "", ranges)


def _unclaimed(state: GroupState) -> Iterator[Finding]:
    for name in state.unclaimed or ():
        yield Finding(
            "partition_new",
            name,
            f"{name} was added to its topic and no worker has claimed it yet. Workers see it within seconds; if this "
            "stays, start one: manage.py run_consumer.",
            state.now,
            critical=False,
        )


def _invariants(state: GroupState) -> Iterator[Finding]:
    if state.violated:
        yield Finding(
            "invariants",
            "ledger",
            f"The ledger does not add up ({', '.join(state.violated)}). Run manage.py verify_offsets.",
            state.violated_at or state.now,
        )


def _replays(state: GroupState) -> Iterator[Finding]:
    for replay_id, since in state.orphaned_replays:
        yield Finding(
            "replay_orphaned",
            f"replay {replay_id}",
            f"Replay {replay_id} has begun, and the process that ran it is gone. It is started again where it was.",
            since,
            critical=False,
        )
    for replay_id, since in state.waiting_replays:
        waited = duration((state.now - since).total_seconds())
        yield Finding(
            "replay_waiting",
            f"replay {replay_id}",
            f"Replay {replay_id} has waited for {waited}, and no process has taken it. Start a worker of the queue "
            f"replays, or run it here: manage.py replay_offsets --resume {replay_id}.",
            since,
            critical=False,
        )
