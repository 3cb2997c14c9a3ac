"""The findings of a tick: one for each problem that an incident is opened for. Pure.

A finding lasts as long as its cause. What resolves by itself within seconds (a rebalance, a short wait) is not one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from offsets.monitoring import event_times
from offsets.monitoring.absence import Reader, refused_words, stranger_words
from offsets.monitoring.group_state import AffectedRange, DeathState, GroupState, PartitionState, WorkerState
from offsets.monitoring.status import Status
from offsets.text import counted, duration
from offsets.types import CIRCUIT_BREAKER, TopicPartition

#: A longer subject would be cut when it is stored, and then not be found again.
SUBJECT_LENGTH = 300


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
    #: A transaction that is open for longer is an incident: by default Kafka aborts it after a minute.
    open_transaction_seconds: float = 60.0
    #: What passes sooner, as after an outage or a resume, is none.
    lasting_seconds: float = 5.0


#: The default of the broker's transaction.max.timeout.ms.
TRANSACTION_MAX_MINUTES = 15
TRANSACTION_MAX_SECONDS = 60.0 * TRANSACTION_MAX_MINUTES


def find(state: GroupState, limits: FindingLimits) -> list[Finding]:
    """All current problems, each cause at each subject once."""
    found = [
        *_services(state),
        *_workers(state, limits),
        *_partitions(state, limits),
        *_topics(state, limits),
        *_strangers(state, limits),
        *_unclaimed(state),
        *_invariants(state),
        *_replays(state),
        *_event_times(state),
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
        elif worker.refusal:
            yield Finding(
                "member_refused",
                worker.worker_id,
                refused_words(Reader(worker.worker_id, worker.topics, worker.refusal), state.strangers),
                worker.heartbeat_at,
                critical=not any(row.owner for row in state.partitions),
                worker_id=worker.worker_id,
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
        ranges=[_unread(row) for row in owned],
    )


_WITHOUT_OWNER = frozenset({Status.UNOWNED, Status.REFUSED, Status.OWNER_DEAD})


def _left_behind(death: DeathState, partitions: Sequence[PartitionState]) -> bool:
    """Whether a partition of the dead worker has no live owner yet."""
    return any(
        partition.checkpoint_id in death.checkpoint_ids and partition.verdict.status in _WITHOUT_OWNER
        for partition in partitions
    )


def _partitions(state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    unowned = _unowned(state)
    waited = _waited(unowned, state, limits)
    # A finding of the topic, of the worker or of the foreign program says why the others have no owner.
    plain = [row for row in waited if not row.absence.explained]
    if plain and len(plain) == len(waited) and len(unowned) == len(state.partitions):
        yield Finding(
            "no_worker",
            "group",
            f"No worker owns any partition, so nothing is counted. {_advice(waited)}",
            min(row.since for row in waited),
        )
    else:
        for row in plain:
            yield _of(row, "unowned", row.verdict.detail, row.since)
    for row in state.partitions:
        yield from _one_partition(row, state, limits)


def _advice(unowned: Sequence[PartitionState]) -> str:
    waiting = [row.verdict.detail for row in unowned if row.absence.waiting]
    return waiting[0] if waiting else "Start one: manage.py run_consumer."


def _unowned(state: GroupState) -> list[PartitionState]:
    """Also those whose owner stopped without releasing them: such a worker is not dead."""
    dead = {worker.worker_id for worker in state.workers if worker.dead}
    return [row for row in state.partitions if row.verdict.status in _WITHOUT_OWNER and row.owner not in dead]


def _waited(unowned: Sequence[PartitionState], state: GroupState, limits: FindingLimits) -> list[PartitionState]:
    """Those that a rebalance does not explain: during one, the others may still be claimed."""
    settled = max([row.claimed_at for row in state.partitions if row.owner and row.claimed_at], default=None)
    return [
        row
        for row in unowned
        if (state.now - max(row.since, settled or row.since)).total_seconds() > limits.heartbeat_timeout_seconds
    ]


def _topics(state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Topics that Kafka does not have any more, and topics that no running worker subscribes to: one finding each."""
    missing = [row for row in state.partitions if row.verdict.status is Status.TOPIC_MISSING]
    for topic, since, rows in _by_topic(missing):
        yield Finding("topic_missing", topic, rows[0].verdict.detail, since, ranges=[_unread(row) for row in rows])
    unread = [row for row in _waited(_unowned(state), state, limits) if row.absence.read_instead]
    for topic, since, rows in _by_topic(unread):
        yield Finding("topic_unread", topic, rows[0].verdict.detail, since, ranges=[_unread(row) for row in rows])


def _by_topic(rows: Sequence[PartitionState]) -> Iterator[tuple[str, datetime, list[PartitionState]]]:
    """Each topic with the time since when the first of its partitions is so."""
    for topic in sorted({row.topic for row in rows}):
        affected = [row for row in rows if row.topic == topic]
        yield topic, min(row.since for row in affected), affected


def _strangers(state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Programs other than our workers that hold partitions of the group."""
    waited = _waited(_unowned(state), state, limits)
    for member in state.strangers:
        # A refused worker's finding names the member already.
        held = [
            row
            for row in waited
            if TopicPartition(row.topic, row.partition) in member.partitions and not row.absence.refused
        ]
        if held:
            yield Finding(
                "foreign_member",
                f"{member.client_id} {member.host}"[:SUBJECT_LENGTH],
                stranger_words([row.name for row in held], member),
                min(row.since for row in held),
                ranges=[_unread(row) for row in held],
            )


def _unread(row: PartitionState) -> AffectedRange:
    return AffectedRange(*(row.topic, row.partition, "unread", row.next_offset), max(row.next_offset, row.log_end or 0))


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
    lasts = (state.now - partition.since).total_seconds() >= limits.lasting_seconds
    if status is Status.STOPPED or (status is Status.STALLED and lasts):
        yield _of(partition, "stalled", partition.verdict.detail, partition.since, critical=status is Status.STOPPED)
    if status in (Status.LAGGING, Status.SLOW) and lasts:
        yield _of(partition, "lagging", partition.verdict.detail, partition.since, critical=False)
    yield from _open_transaction(partition, state, limits)
    yield from _retention(partition, state, limits)


def _open_transaction(partition: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Records that no read_committed reader reaches, because a producer has not ended its transaction."""
    if not partition.hidden or partition.hidden_since is None:
        return
    seconds = (state.now - partition.hidden_since).total_seconds()
    if seconds <= limits.open_transaction_seconds:
        return
    hangs = seconds > TRANSACTION_MAX_SECONDS
    where = f"--topic {partition.topic} --partition {partition.partition}"
    advice = (
        f"That is longer than the broker's transaction.max.timeout.ms allows by default ({TRANSACTION_MAX_MINUTES} "
        "min), so it hangs. Abort it: kafka-transactions.sh --bootstrap-server … abort "
        f"{where} --start-offset {partition.log_end or 0}."
        if hangs
        else f"Find its producer: kafka-transactions.sh --bootstrap-server … describe-producers {where}. Kafka aborts "
        "it after the producer's transaction.timeout.ms."
    )
    yield _of(
        partition,
        "open_transaction",
        f"{counted(partition.hidden, 'record')} of {partition.name} wait behind a transaction that has been open for "
        f"{duration(seconds)}. {advice}",
        partition.hidden_since,
        critical=hangs,
    )


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
    """Unread or failed offsets that Kafka has deleted, or deletes soon: by the rate at which the log start moves, or
    by the topic's retention. Kafka deletes whole segments, so it may be later, never sooner.
    """
    if partition.halt_reason or partition.absence.missing:
        return
    if partition.lost:
        yield _lost(partition)
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
            f"Kafka starts deleting uncounted offsets of {partition.name} in about {duration(first)}"
            f"{_retention_limit(partition)}. Raise the topic's retention, add workers, or replay the failed ranges.",
            state.now,
            ranges=[affected for _, affected in soon],
        )


def _retention_limit(partition: PartitionState) -> str:
    """The limit by which it deletes, where it is one of time."""
    if partition.retention_seconds is None:
        return ""
    return f" (retention.ms of {partition.topic}: {duration(partition.retention_seconds)})"


def _lost(partition: PartitionState) -> Finding:
    """Nobody read it in time; it halts as expired as soon as a worker reads it."""
    end = max(partition.log_end or 0, partition.log_start or 0)
    readable = counted(end - (partition.log_start or 0), "record")
    return _of(
        partition,
        "retention",
        f"{counted(partition.lost, 'offset')} of {partition.name} lost so far: Kafka deleted them before they were "
        f"read; {readable} can still be read{_retention_limit(partition)}. Start or resume its worker, then record "
        "the loss: manage.py accept_loss.",
        partition.since,
        ranges=[
            AffectedRange(
                *(partition.topic, partition.partition, "expired", partition.next_offset),
                partition.next_offset + partition.lost,
            )
        ],
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


def _event_times(state: GroupState) -> Iterator[Finding]:
    """One for each topic that still receives events with implausible times."""
    for topic in sorted({row.topic for row in state.implausible if row.age_seconds <= event_times.QUIET_SECONDS}):
        rows = [row for row in state.implausible if row.topic == topic]
        yield Finding(
            "event_time", topic, event_times.summary(rows), min(row.first_seen_at for row in rows), critical=False
        )


def _loops(state: GroupState) -> Iterator[Finding]:
    for late in state.late_loops:
        began = state.now - timedelta(seconds=late.age_seconds)
        yield Finding("loop_late", late.name, late.detail, began, critical=False)
