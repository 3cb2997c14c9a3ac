"""The offset ledger: the only writer of checkpoints, ranges and dead letters.

Every mutation locks the checkpoint row first, several of them in id order, and counts the rows it changed.
Functions run inside the caller's transaction where they say so, otherwise they open their own.
Rule numbers are those of docs/architecture.md.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from offsets.errors import FencedError, LedgerConflictError
from offsets.models import DeadLetter, PartitionCheckpoint
from offsets.types import Claim, DesiredState, HaltReason, PartitionCommit, TopicPartition


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where a partition that the group has never read begins."""

    topic_id: str
    offset: int
    kind: str  # earliest, latest, group, grown


@dataclass(frozen=True, slots=True)
class ControlState:
    """What the database says of a checkpoint now: the owner's control channel (R5)."""

    checkpoint_id: int
    epoch: int
    next_offset: int
    desired_state: DesiredState
    halt_reason: HaltReason
    owner: str | None


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
    )


# --- Claim and release ----------------------------------------------------------------------------


def known_partitions(group_id: str, topic: str) -> set[int]:
    """Partitions of the topic that have a live checkpoint."""
    live = PartitionCheckpoint.objects.filter(group_id=group_id, topic=topic, retired_at__isnull=True)
    return set(live.values_list("partition", flat=True))


def insert_baselines(
    group_id: str, topic: str, baselines: Mapping[int, Baseline], dimensions: Sequence[str]
) -> list[int]:
    """Give partitions without a checkpoint one (R15). Returns the partitions that were inserted.

    The group's first claim of a topic inserts them all with `baselines`; a partition that has no row later is one
    by which the topic grew, and starts at 0 whatever the baseline says. The transaction lock makes "first" a fact
    when two members claim at once.
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


def claim(group_id: str, worker_id: str, partitions: Iterable[TopicPartition]) -> list[Claim]:
    """Become the owner of those `partitions` whose rows are free to lock (R1). The others are left out: ask again.

    Sessions of a previous owner that did not release are ended: one that was stopped in mid-transaction would
    hold its row locks past every timeout.
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
            " claimed_at = clock_timestamp() WHERE id IN (SELECT c.id FROM offsets_partitioncheckpoint c"
            " JOIN unnest(%s::text[], %s::int[]) AS w(topic, partition) USING (topic, partition)"
            " WHERE c.group_id = %s AND c.retired_at IS NULL ORDER BY c.id FOR UPDATE OF c SKIP LOCKED)"
            " RETURNING id, topic, partition, epoch, next_offset, dimensions, topic_id, leader_epoch, desired_state,"
            " halt_reason",
            [worker_id, topics, numbers, group_id],
        )
        return [_claim(row) for row in cursor.fetchall()]


def _end_transactions_of(workers: Sequence[str]) -> None:
    """Terminate open transactions of these workers' sessions, found by `application_name`."""
    if not workers:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)"
            " AND datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()",
            [list(workers)],
        )


def release(claims: Iterable[Claim]) -> list[int]:
    """Give up ownership where the epoch is still ours. Returns the checkpoints released."""
    held = list(claims)
    if not held:
        return []
    ids, epochs = _columns((c.checkpoint_id, c.epoch) for c in held)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint c SET owner_id = NULL FROM unnest(%s::bigint[], %s::bigint[])"
            " AS mine(id, epoch) WHERE c.id = mine.id AND c.epoch = mine.epoch RETURNING c.id",
            [ids, epochs],
        )
        return [row[0] for row in cursor.fetchall()]


def held_by_others(group_id: str, worker_id: str, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
    """Those of `partitions` whose checkpoint belongs to another worker that still sends heartbeats (R4)."""
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
    """Read the control columns of these checkpoints in one statement; retired ones are left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, epoch, next_offset, desired_state, halt_reason, owner_id FROM offsets_partitioncheckpoint"
            " WHERE id = ANY(%s) AND retired_at IS NULL",
            [list(checkpoint_ids)],
        )
        return {
            row[0]: ControlState(row[0], row[1], row[2], DesiredState(row[3]), HaltReason(row[4]), row[5])
            for row in cursor.fetchall()
        }


# --- Commit ---------------------------------------------------------------------------------------


def lock_for_commit(commits: Sequence[PartitionCommit]) -> None:
    """Lock the checkpoints in id order and compare `(epoch, next_offset)` (R9). In the caller's transaction.

    Raises FencedError naming each partition that is not where its commit expects it.
    """
    by_id = {commit.claim.checkpoint_id: commit for commit in commits}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, epoch, next_offset, ledger_end, retired_at IS NOT NULL, coalesce(owner_id, 'nobody')"
            " FROM offsets_partitioncheckpoint WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
            [sorted(by_id)],
        )
        rows = {row[0]: row[1:] for row in cursor.fetchall()}
    misses = {}
    for checkpoint_id, commit in by_id.items():
        reason = _miss(commit, rows.get(checkpoint_id))
        if reason:
            misses[checkpoint_id] = reason
    if misses:
        raise FencedError(misses)


def _miss(commit: PartitionCommit, row: Sequence[Any] | None) -> str:
    """Why this commit may not be applied to the row as it stands; empty when it may."""
    name = f"{commit.claim.topic_partition} [{commit.start}, {commit.end})"
    if row is None:
        return f"{name}: its checkpoint is gone"
    epoch, next_offset, ledger_end, retired, owner = row
    if retired:
        return f"{name}: its checkpoint was retired"
    if epoch != commit.claim.epoch:
        return f"{name}: epoch {commit.claim.epoch} is over, {owner} holds epoch {epoch}"
    if next_offset != commit.start:
        return f"{name}: next offset is {next_offset}, not {commit.start}"
    if ledger_end != next_offset:
        raise LedgerConflictError(f"{name}: the ledger reaches {ledger_end}; subtracting is not supported yet")
    return ""


def record_processed(commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
    """Write ranges, dead letters and the moved checkpoints, after `lock_for_commit`. In the caller's transaction.

    Raises LedgerConflictError when a row count is not what it must be: nothing may be committed then.
    """
    tips = _grow_tips(commits)
    without_tip = [commit for commit in commits if commit.claim.checkpoint_id not in tips]
    if without_tip:
        tips |= _insert_tips(without_tip, batch_id)
    _insert_dead_letters(commits)
    ids, starts, ends, epochs, leader_epochs = _columns(
        (c.claim.checkpoint_id, c.start, c.end, c.claim.epoch, c.leader_epoch) for c in commits
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint c SET next_offset = v.upto, ledger_end = v.upto,"
            " last_batch_id = %s, committed_at = clock_timestamp(), tip_range_id = v.tip,"
            " leader_epoch = coalesce(v.leader_epoch, c.leader_epoch)"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::int[])"
            " AS v(id, start, upto, epoch, tip, leader_epoch)"
            " WHERE c.id = v.id AND c.epoch = v.epoch AND c.next_offset = v.start",
            [batch_id, ids, starts, ends, epochs, [tips[i] for i in ids], leader_epochs],
        )
        if cursor.rowcount != len(commits):
            raise LedgerConflictError(f"{cursor.rowcount} of {len(commits)} checkpoints moved")


def _grow_tips(commits: Sequence[PartitionCommit]) -> dict[int, int]:
    """Grow each live tip in place where it is `processed` and ends where the commit begins (R13)."""
    ids, starts, ends, records, failed = _columns(
        (c.claim.checkpoint_id, c.start, c.end, c.stats.records, c.stats.failed_records) for c in commits
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_ledgerrange r SET offsets = int8range(lower(r.offsets), v.upto),"
            " records = r.records + v.records, failed_records = r.failed_records + v.failed"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " AS v(id, start, upto, records, failed)"
            " JOIN offsets_partitioncheckpoint c ON c.id = v.id"
            " WHERE r.id = c.tip_range_id AND r.checkpoint_id = v.id AND r.kind = 'processed'"
            " AND upper(r.offsets) = v.start RETURNING r.checkpoint_id, r.id",
            [ids, starts, ends, records, failed],
        )
        return dict(cursor.fetchall())


def _insert_tips(commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> dict[int, int]:
    """Start a new tip for commits that have none to grow."""
    ids, starts, ends, records, failed, epochs = _columns(
        (c.claim.checkpoint_id, c.start, c.end, c.stats.records, c.stats.failed_records, c.claim.epoch) for c in commits
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_ledgerrange (checkpoint_id, offsets, kind, records, failed_records, epoch, batch_id,"
            " detail) SELECT v.id, int8range(v.start, v.upto), 'processed', v.records, v.failed, v.epoch, %s, ''"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " AS v(id, start, upto, records, failed, epoch)"
            " RETURNING checkpoint_id, id",
            [batch_id, ids, starts, ends, records, failed, epochs],
        )
        return dict(cursor.fetchall())


def _insert_dead_letters(commits: Sequence[PartitionCommit]) -> None:
    rows = [
        DeadLetter(
            checkpoint_id=commit.claim.checkpoint_id,
            offset=failure.offset,
            error_code=failure.error_code,
            error_detail=failure.error_detail.replace("\x00", "\\0"),
            key=failure.key,
            value=failure.value,
            headers=failure.headers,
            record_timestamp=_timestamp(failure.timestamp_ms),
        )
        for commit in commits
        for failure in commit.failures
    ]
    DeadLetter.objects.bulk_create(rows, batch_size=1000)


def _timestamp(milliseconds: int | None) -> datetime | None:
    """Kafka's record timestamp as a datetime; None where it is absent or beyond what a date can hold."""
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class ProbedCommit:
    """What became of a transaction whose COMMIT was not seen to succeed (R10)."""

    applied: bool
    misses: dict[int, str]


def probe_commit(commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> ProbedCommit:
    """Find out, after a lost connection, whether the transaction `batch_id` was applied.

    FOR UPDATE waits for an in-flight COMMIT of the lost session; a plain read would show the old rows. The
    transaction was one: if any of its checkpoints names it, all of it was applied.
    """
    by_id = {commit.claim.checkpoint_id: commit for commit in commits}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, last_batch_id, epoch, next_offset, ledger_end, retired_at IS NOT NULL,"
            " coalesce(owner_id, 'nobody') FROM offsets_partitioncheckpoint WHERE id = ANY(%s)"
            " ORDER BY id FOR UPDATE",
            [sorted(by_id)],
        )
        rows = {row[0]: row[1:] for row in cursor.fetchall()}
    if any(row[0] == batch_id for row in rows.values()):
        return ProbedCommit(applied=True, misses={})
    misses = {}
    for checkpoint_id, commit in by_id.items():
        row = rows.get(checkpoint_id)
        reason = _miss(commit, row[1:] if row else None)
        if reason:
            misses[checkpoint_id] = reason
    return ProbedCommit(applied=False, misses=misses)


# --- Halts and operator's wishes ------------------------------------------------------------------


def halt(checkpoint_id: int, epoch: int, reason: HaltReason, detail: str) -> bool:
    """Stop a partition with the reason why. False when the epoch is no longer ours, or it is halted already."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET halt_reason = %s, halt_detail = %s,"
            " halted_at = clock_timestamp() WHERE id = %s AND epoch = %s AND halt_reason = ''",
            [reason, detail, checkpoint_id, epoch],
        )
        return bool(cursor.rowcount)


def lock_checkpoint(checkpoint_id: int) -> PartitionCheckpoint | None:
    """Lock one checkpoint's row in the caller's transaction; None when there is no such row."""
    return PartitionCheckpoint.objects.select_for_update().filter(pk=checkpoint_id).first()


def set_desired_state(
    checkpoint_id: int, expected_state: str, expected_epoch: int, desired_state: DesiredState, action_id: int
) -> bool:
    """Pause or resume, if the row is as the operator saw it. In the caller's transaction."""
    return bool(
        PartitionCheckpoint.objects.filter(
            pk=checkpoint_id, desired_state=expected_state, epoch=expected_epoch, retired_at__isnull=True
        ).update(desired_state=desired_state, last_action_id=action_id)
    )


def _columns(rows: Iterable[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    """Rows, at least one, as parallel lists, as `unnest` wants them."""
    return tuple(map(list, zip(*rows, strict=True)))
