"""Ownership of checkpoints: claims, releases, control state, halts (R1, R4, R5, R15, R16)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from offsets.ledger.columns import columns
from offsets.ledger.moves import uncovered
from offsets.models import PartitionCheckpoint
from offsets.ranges import OffsetRange
from offsets.types import Claim, DesiredState, EpochCause, HaltReason, Semantics, TopicPartition


@dataclass(frozen=True, slots=True)
class Baseline:
    """The start of a partition that the group has never read."""

    topic_id: str
    offset: int
    kind: str  # earliest, latest, group, grown


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """A partition's progress, whoever owns it. `held` is why it does not advance: "paused", "halted" or empty."""

    next_offset: int
    held: str


@dataclass(frozen=True, slots=True)
class ControlState:
    """The current control columns of a checkpoint, which its owner polls (R5)."""

    checkpoint_id: int
    epoch: int
    next_offset: int
    desired_state: DesiredState
    halt_reason: HaltReason
    owner: str | None
    epoch_cause: EpochCause = EpochCause.CLAIM
    mirror_requests: int = 0


_CLAIMED = (
    "id, topic, partition, epoch, next_offset, dimensions, topic_id, leader_epoch, desired_state, halt_reason,"
    " ledger_end, moved_epoch, store, committed_at IS NOT NULL"
)


def _claim(row: Sequence[Any]) -> Claim:
    return Claim(
        checkpoint_id=row[0],
        topic=row[1],
        partition=row[2],
        epoch=row[3],
        next_offset=row[4],
        dimensions=tuple(row[5]),
        topic_id=row[6],
        leader_epoch=row[7],
        paused=row[8] == DesiredState.PAUSED,
        halt_reason=HaltReason(row[9]),
        ledger_end=row[10],
        moved_epoch=row[11],
        store=row[12],
        committed=row[13],
    )


def known_partitions(group_id: str, topic: str) -> set[int]:
    """Partitions of the topic that have a live checkpoint."""
    live = PartitionCheckpoint.objects.live(group_id).filter(topic=topic)
    return set(live.values_list("partition", flat=True))


def partition_progress(group_id: str, topics: Iterable[str]) -> dict[TopicPartition, PartitionProgress]:
    """Progress of every live checkpoint of these topics."""
    rows = PartitionCheckpoint.objects.live(group_id).filter(topic__in=list(topics))
    return {
        TopicPartition(row.topic, row.partition): PartitionProgress(
            row.next_offset,
            "halted" if row.halt_reason else "paused" if row.desired_state == DesiredState.PAUSED else "",
        )
        for row in rows.only("topic", "partition", "next_offset", "halt_reason", "desired_state")
    }


def insert_baselines(
    group_id: str, topic: str, baselines: Mapping[int, Baseline], dimensions: Sequence[str]
) -> list[int]:
    """Insert checkpoints for partitions that have none (R15). Returns these partitions.

    The group's first claim of a topic inserts all partitions with `baselines`. A partition that is missing later was
    added to the topic since, and starts at 0 whatever its baseline. An advisory lock serializes members that claim at
    the same time, so that only one is first.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{group_id}\n{topic}"])
        known = known_partitions(group_id, topic)
        missing = sorted(set(baselines) - known)
        for partition in missing:
            baseline = baselines[partition]
            offset, kind = (0, "grown") if known else (baseline.offset, baseline.kind)
            PartitionCheckpoint.objects.create(
                group_id=group_id,
                topic=topic,
                partition=partition,
                topic_id=baseline.topic_id,
                baseline_offset=offset,
                baseline_kind=kind,
                next_offset=offset,
                ledger_end=offset,
                dimensions=list(dimensions),
            )
    return missing


def claim(
    group_id: str,
    worker_id: str,
    partitions: Iterable[TopicPartition],
    *,
    semantics: Semantics = Semantics.EXACTLY_ONCE,
) -> list[Claim]:
    """Become the owner of those `partitions` whose rows can be locked at once (R1). The caller retries the others.

    Open transactions of previous owners that did not release are terminated: a process that is stopped within a
    transaction would keep its row locks indefinitely.
    """
    wanted = sorted(set(partitions))
    if not wanted:
        return []
    topics, numbers = [tp.topic for tp in wanted], [tp.partition for tp in wanted]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(settings.CLAIM_LOCK_TIMEOUT_MS)])
        cursor.execute(
            "SELECT DISTINCT c.owner_id FROM offsets_partitioncheckpoint c"
            " JOIN unnest(%s::text[], %s::int[]) AS w(topic, partition) USING (topic, partition)"
            " WHERE c.group_id = %s AND c.retired_at IS NULL AND c.owner_id IS NOT NULL AND c.owner_id <> %s",
            [topics, numbers, group_id, worker_id],
        )
        _end_transactions_of([row[0] for row in cursor.fetchall()])
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET epoch = epoch + 1, epoch_cause = 'claim', owner_id = %s,"
            " semantics = %s, claimed_at = clock_timestamp() WHERE id IN ("
            "SELECT c.id FROM offsets_partitioncheckpoint c"
            " JOIN unnest(%s::text[], %s::int[]) AS w(topic, partition) USING (topic, partition)"
            " WHERE c.group_id = %s AND c.retired_at IS NULL ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED)"
            f" RETURNING {_CLAIMED}",
            [worker_id, semantics, topics, numbers, group_id],
        )
        return [_claim(row) for row in cursor.fetchall()]


def _end_transactions_of(workers: Sequence[str]) -> None:
    """Terminate the sessions of these workers that have an open transaction. `application_name` is the worker id."""
    if not workers:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)"
            " AND datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()",
            [list(workers)],
        )


def release(claims: Iterable[Claim]) -> list[int]:
    """Give up ownership where the epoch is still that of the claim. Returns the released checkpoints."""
    held = list(claims)
    if not held:
        return []
    ids, epochs = columns((c.checkpoint_id, c.epoch) for c in held)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET owner_id = NULL WHERE id IN ("
            "SELECT c.id FROM offsets_partitioncheckpoint c"
            " JOIN unnest(%s::bigint[], %s::bigint[]) AS held(id, epoch) USING (id)"
            " WHERE c.epoch = held.epoch ORDER BY c.id FOR NO KEY UPDATE OF c) RETURNING id",
            [ids, epochs],
        )
        return [row[0] for row in cursor.fetchall()]


def held_by_others(group_id: str, worker_id: str, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
    """The partitions whose checkpoint is owned by another worker that still sends heartbeats (R4)."""
    wanted = sorted(set(partitions))
    if not wanted:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.topic, c.partition FROM offsets_partitioncheckpoint c"
            " JOIN unnest(%s::text[], %s::int[]) AS w(topic, partition) USING (topic, partition)"
            " JOIN offsets_worker o ON o.worker_id = c.owner_id"
            " WHERE c.group_id = %s AND c.retired_at IS NULL AND c.owner_id <> %s AND o.state <> 'stopped'"
            " AND o.heartbeat_at > clock_timestamp() - make_interval(secs => %s)",
            [
                [tp.topic for tp in wanted],
                [tp.partition for tp in wanted],
                group_id,
                worker_id,
                settings.HEARTBEAT_TIMEOUT_SECONDS,
            ],
        )
        return {TopicPartition(*row) for row in cursor.fetchall()}


def control_states(checkpoint_ids: Iterable[int]) -> dict[int, ControlState]:
    """Read the control columns of these checkpoints in one statement, without retired ones."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, epoch, next_offset, desired_state, halt_reason, owner_id, epoch_cause, mirror_requests"
            " FROM offsets_partitioncheckpoint"
            " WHERE id = ANY(%s) AND retired_at IS NULL",
            [list(checkpoint_ids)],
        )
        return {
            row[0]: ControlState(
                row[0], row[1], row[2], DesiredState(row[3]), HaltReason(row[4]), row[5], EpochCause(row[6]), row[7]
            )
            for row in cursor.fetchall()
        }


def halt(checkpoint_id: int, epoch: int, reason: HaltReason, detail: str) -> bool:
    """Halt a partition. False if `epoch` is not current, or the partition is already halted."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET halt_reason = %s, halt_detail = %s,"
            " halted_at = clock_timestamp() WHERE id = %s AND epoch = %s AND halt_reason = ''",
            [reason, detail, checkpoint_id, epoch],
        )
        return bool(cursor.rowcount)


def align_with_store(claim: Claim, next_offset: int, store: str) -> bool:
    """Advance the checkpoint to the offset store's `next_offset`, if that is ahead, and record the store (R18).

    In the caller's transaction. False if the epoch is not current, or if `next_offset` would pass offsets without a
    range: they were never counted.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT next_offset FROM offsets_partitioncheckpoint"
            " WHERE id = %s AND epoch = %s AND retired_at IS NULL FOR NO KEY UPDATE",
            [claim.checkpoint_id, claim.epoch],
        )
        row = cursor.fetchone()
        if row is None or uncovered(claim.checkpoint_id, OffsetRange(row[0], next_offset)):
            return False
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET next_offset = greatest(next_offset, %s), store = %s WHERE id = %s",
            [next_offset, store, claim.checkpoint_id],
        )
        return True
