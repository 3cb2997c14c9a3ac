"""Operator actions on a checkpoint: pause, seek, rebuild, retire. In the caller's transaction, with the row locked.

Every move starts a new epoch that refers to its audited action. The owner's uncommitted work is fenced, and the owner
claims the partition again at the new offset (R4).
"""

from collections.abc import Sequence

from django.db import connection

from offsets.errors import LedgerConflictError
from offsets.ledger import pieces
from offsets.models import LedgerRange, OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange, gaps, offset_range
from offsets.types import RETIRED, DesiredState, EpochCause, HaltReason, RangeKind, StoreCommit, TopicPartition


def lock_checkpoint(checkpoint_id: int) -> PartitionCheckpoint | None:
    """Lock one checkpoint's row in the caller's transaction. None if it does not exist."""
    return PartitionCheckpoint.objects.select_for_update(no_key=True).filter(pk=checkpoint_id).first()


def lock_checkpoints(checkpoint_ids: Sequence[int]) -> dict[int, PartitionCheckpoint]:
    """Lock several rows in id order, as commits do. Rows that do not exist are omitted."""
    rows = PartitionCheckpoint.objects.select_for_update(no_key=True).filter(pk__in=checkpoint_ids).order_by("pk")
    return {row.pk: row for row in rows}


def set_desired_state(
    checkpoint_id: int, expected_state: str, expected_epoch: int, desired_state: DesiredState, action_id: int
) -> bool:
    """Pause or resume, if state and epoch are those expected. In the caller's transaction."""
    return bool(
        PartitionCheckpoint.objects.filter(
            pk=checkpoint_id, desired_state=expected_state, epoch=expected_epoch, retired_at__isnull=True
        ).update(desired_state=desired_state, last_action_id=action_id)
    )


def uncovered(checkpoint_id: int, within: OffsetRange) -> list[OffsetRange]:
    """The offsets of `within`, which may be empty, that have no range in the ledger."""
    if within.size <= 0:
        return []
    return gaps([OffsetRange(r.start, r.end) for r in pieces.known_ranges(checkpoint_id, within)], within)


def seek(
    checkpoint: PartitionCheckpoint,
    target: int,
    *,
    action: OperatorAction,
    passed_as: RangeKind = RangeKind.SKIPPED,
    baseline: int | None = None,
) -> PartitionCheckpoint:
    """Make `target` the next offset (R14). `checkpoint` is the locked row; returns the updated row.

    A forward seek records the passed offsets that have no range as `passed_as` (skipped or expired). A backward seek
    keeps the ranges; below the baseline it lowers the baseline too. `baseline` sets the baseline explicitly, as an undo
    does. The seek lifts any halt but `recreated`.
    """
    epoch = checkpoint.epoch + 1
    new_baseline = min(checkpoint.baseline_offset, target) if baseline is None else baseline
    # Offsets below a restored baseline are not accounted for (I1), so they are not skipped either.
    passed_from = max(checkpoint.next_offset, new_baseline)
    if target > passed_from:
        passed = uncovered(checkpoint.pk, offset_range(passed_from, target))
        pieces.insert_uncounted(checkpoint.pk, passed, passed_as, epoch, f"action {action.pk}")
    lifts = checkpoint.halt_reason not in (HaltReason.NONE, HaltReason.RECREATED)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint c SET epoch = %s, epoch_cause = %s, moved_epoch = %s,"
            " last_action_id = %s, next_offset = %s, baseline_offset = %s, ledger_end = greatest(%s,"
            " (SELECT max(upper(r.offsets)) FROM offsets_ledgerrange r WHERE r.checkpoint_id = c.id)),"
            # It belongs to the offset: kept where that stays, so that a broker still compares it with its log.
            " leader_epoch = CASE WHEN c.next_offset = %s THEN c.leader_epoch END,"
            " halt_reason = CASE WHEN %s THEN '' ELSE halt_reason END,"
            " halt_detail = CASE WHEN %s THEN '' ELSE halt_detail END,"
            " halted_at = CASE WHEN %s THEN NULL ELSE halted_at END"
            " WHERE id = %s AND epoch = %s AND next_offset = %s AND retired_at IS NULL",
            [
                *(epoch, EpochCause.ACTION, epoch, action.pk, target, new_baseline, target, target),
                *(lifts, lifts, lifts, checkpoint.pk, checkpoint.epoch, checkpoint.next_offset),
            ],
        )
        if cursor.rowcount != 1:
            raise LedgerConflictError(f"{checkpoint} changed while it was locked")
    checkpoint.refresh_from_db()
    return checkpoint


def anything_below(checkpoint_id: int, offset: int) -> bool:
    """Whether the ledger has a range that starts below `offset`."""
    return LedgerRange.objects.filter(checkpoint_id=checkpoint_id, offsets__startswith__lt=offset).exists()


def retire_and_restart(
    checkpoint: PartitionCheckpoint, *, action: OperatorAction, reason: str, baseline: int, topic_id: str
) -> PartitionCheckpoint:
    """Retire a locked checkpoint and start a new one at `baseline` in its place (R14). Returns the new row.

    With `reason` "rebuilt" the old counts are excluded from all reads; with any other they are kept in addition to the
    new ones. The old row's epoch is raised, which fences its writers; the new row continues from that epoch.
    """
    epoch = checkpoint.epoch + 1
    _retire(checkpoint, epoch, reason, action)
    return PartitionCheckpoint.objects.create(
        group_id=checkpoint.group_id,
        topic=checkpoint.topic,
        partition=checkpoint.partition,
        topic_id=topic_id,
        baseline_offset=baseline,
        baseline_kind="rebuild",
        next_offset=baseline,
        ledger_end=baseline,
        epoch=epoch + 1,
        epoch_cause=EpochCause.ACTION,
        moved_epoch=epoch + 1,
        desired_state=checkpoint.desired_state,
        dimensions=checkpoint.dimensions,
        semantics=checkpoint.semantics,
        store=checkpoint.store,
        last_action=action,
    )


def swap_back(
    retired: PartitionCheckpoint, current: PartitionCheckpoint, *, action: OperatorAction
) -> PartitionCheckpoint:
    """Undo a rebuild: retire the current row as `rebuilt`, and make the retired row live again. Both are locked."""
    if retired.purged_at is not None:
        raise LedgerConflictError(f"{retired} was purged")
    epoch = current.epoch + 1
    _retire(current, epoch, "rebuilt", action)
    changed = PartitionCheckpoint.objects.filter(pk=retired.pk, epoch=retired.epoch, retired_at__isnull=False).update(
        retired_at=None,
        retired_reason="",
        epoch=epoch + 1,
        epoch_cause=EpochCause.ACTION,
        moved_epoch=epoch + 1,
        last_action=action,
        owner=None,
        desired_state=current.desired_state,
    )
    if changed != 1:
        raise LedgerConflictError(f"{retired} changed while it was locked")
    retired.refresh_from_db()
    return retired


def retire(checkpoint: PartitionCheckpoint, *, action: OperatorAction) -> PartitionCheckpoint:
    """End the watching of a locked checkpoint, whose counts stay in all totals. Returns the updated row.

    The row is kept and found by later claims, which do not start a new one: its offsets are never counted twice. The
    new epoch fences whoever still reads it.
    """
    _retire(checkpoint, checkpoint.epoch + 1, RETIRED, action)
    checkpoint.refresh_from_db()
    return checkpoint


def bring_back(checkpoint: PartitionCheckpoint, *, action: OperatorAction) -> PartitionCheckpoint:
    """Undo `retire`: the locked row is live again, where it stood. Returns the updated row."""
    changed = PartitionCheckpoint.objects.filter(
        pk=checkpoint.pk, epoch=checkpoint.epoch, retired_at__isnull=False, retired_reason=RETIRED
    ).update(
        retired_at=None,
        retired_reason="",
        epoch=checkpoint.epoch + 1,
        epoch_cause=EpochCause.ACTION,
        last_action=action,
    )
    if changed != 1:
        raise LedgerConflictError(f"{checkpoint} changed while it was locked")
    checkpoint.refresh_from_db()
    return checkpoint


def _retire(checkpoint: PartitionCheckpoint, epoch: int, reason: str, action: OperatorAction) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET epoch = %s, epoch_cause = %s, last_action_id = %s, owner_id = NULL,"
            " retired_at = clock_timestamp(), retired_reason = %s"
            " WHERE id = %s AND epoch = %s AND retired_at IS NULL",
            [epoch, EpochCause.ACTION, action.pk, reason, checkpoint.pk, checkpoint.epoch],
        )
        if cursor.rowcount != 1:
            raise LedgerConflictError(f"{checkpoint} changed while it was locked")


def request_mirror(checkpoint_ids: Sequence[int]) -> int:
    """Ask the owners to send these offsets to the mirrors again. Returns the number of rows changed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET mirror_requests = mirror_requests + 1"
            " WHERE id = ANY(%s) AND retired_at IS NULL",
            [list(checkpoint_ids)],
        )
        return int(cursor.rowcount)


def move_within(group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
    """Advance `next_offset` within the ledger's ranges, by compare-and-set. Returns the refused ones with reasons."""
    refused = {}
    for commit in sorted(commits, key=lambda commit: commit.topic_partition):
        tp = commit.topic_partition
        row = PartitionCheckpoint.objects.live(group_id).filter(topic=tp.topic, partition=tp.partition)
        checkpoint = row.select_for_update(no_key=True).first()
        reason = _refusal(checkpoint, commit)
        if reason or checkpoint is None:
            refused[commit.topic_partition] = reason
        else:
            PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(next_offset=commit.next_offset)
    return refused


def _refusal(checkpoint: PartitionCheckpoint | None, commit: StoreCommit) -> str:
    if checkpoint is None:
        return "the ledger has no checkpoint; a worker must claim the partition first"
    if checkpoint.epoch != commit.epoch:
        return f"epoch {commit.epoch} is stale, the current epoch is {checkpoint.epoch}"
    if checkpoint.next_offset != commit.expected:
        expected = "no offset" if commit.expected is None else commit.expected
        return f"the ledger has next offset {checkpoint.next_offset}, expected {expected}"
    if not checkpoint.next_offset <= commit.next_offset <= checkpoint.ledger_end:
        return f"{commit.next_offset} is outside the ledger ({checkpoint.next_offset} to {checkpoint.ledger_end})"
    # After a seek below the old baseline, offsets below the ledger end may be unread.
    unread = uncovered(checkpoint.pk, OffsetRange(checkpoint.next_offset, commit.next_offset))
    return f"{unread[0]} has not been read yet" if unread else ""
