"""The findings of a tick: one for each problem that an incident is opened for. Pure.

A finding lasts as long as its cause. What resolves by itself within seconds (a rebalance, a short wait) is not one.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from offsets.monitoring import event_times, partition_findings
from offsets.monitoring.absence import Reader, refused_words, stranger_words
from offsets.monitoring.finding import SUBJECT_LENGTH, Finding, FindingLimits
from offsets.monitoring.group_state import AffectedRange, DeathState, GroupState, PartitionState, WorkerState
from offsets.monitoring.status import Status
from offsets.text import duration
from offsets.types import TopicPartition


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
            yield partition_findings.about(row, "unowned", row.verdict.detail, row.since)
    for row in state.partitions:
        yield from partition_findings.find(row, state, limits)


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
