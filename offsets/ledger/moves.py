"""What an operator's action does to a checkpoint: pause, seek, rebuild. In the caller's transaction, row locked.

Every move begins a new epoch that names its audited action: what the owner has in hand is refused, and it claims the
partition again at the new offset (R4).
"""

from collections.abc import Sequence

from django.db import connection

from offsets.errors import LedgerConflictError
from offsets.ledger import pieces
from offsets.models import LedgerRange, OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange, gaps, offset_range
from offsets.types import DesiredState, EpochCause, HaltReason, RangeKind, StoreCommit, TopicPartition


def lock_checkpoint(checkpoint_id: int) -> PartitionCheckpoint | None:
    """Lock one checkpoint's row in the caller's transaction; None when there is no such row."""
    return PartitionCheckpoint.objects.select_for_update(no_key=True).filter(pk=checkpoint_id).first()


def lock_checkpoints(checkpoint_ids: Sequence[int]) -> dict[int, PartitionCheckpoint]:
    """Lock several rows, in id order as commits do; those that do not exist are left out."""
    rows = PartitionCheckpoint.objects.select_for_update(no_key=True).filter(pk__in=checkpoint_ids).order_by("pk")
    return {row.pk: row for row in rows}


def set_desired_state(
    checkpoint_id: int, expected_state: str, expected_epoch: int, desired_state: DesiredState, action_id: int
) -> bool:
    """Pause or resume, if the row is as the operator saw it. In the caller's transaction."""
    return bool(
        PartitionCheckpoint.objects.filter(
            pk=checkpoint_id, desired_state=expected_state, epoch=expected_epoch, retired_at__isnull=True
        ).update(desired_state=desired_state, last_action_id=action_id)
    )


def uncovered(checkpoint_id: int, within: OffsetRange) -> list[OffsetRange]:
    """The offsets of `within`, which may be empty, that no range covers."""
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
    """Make `target` the next offset (R14). `checkpoint` is the locked row; returns it as it is afterwards.

    Forward, the uncovered offsets passed over become a range `passed_as` (skipped, or expired).
    Backward, `next_offset` falls and the ranges stay; below the baseline the baseline falls with it. `baseline` sets
    one instead: an undo puts it back. A halt for a reason that the seek answers is lifted; `recreated` is not.
    """
    epoch = checkpoint.epoch + 1
    new_baseline = min(checkpoint.baseline_offset, target) if baseline is None else baseline
    # Not below a baseline that comes back: what lies there was never this checkpoint's to pass over (I1).
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
            " leader_epoch = NULL, halt_reason = CASE WHEN %s THEN '' ELSE halt_reason END,"
            " halt_detail = CASE WHEN %s THEN '' ELSE halt_detail END,"
            " halted_at = CASE WHEN %s THEN NULL ELSE halted_at END"
            " WHERE id = %s AND epoch = %s AND next_offset = %s AND retired_at IS NULL",
            [
                *(epoch, EpochCause.ACTION, epoch, action.pk, target, new_baseline, target),
                *(lifts, lifts, lifts, checkpoint.pk, checkpoint.epoch, checkpoint.next_offset),
            ],
        )
        if cursor.rowcount != 1:
            raise LedgerConflictError(f"{checkpoint} changed while it was locked")
    checkpoint.refresh_from_db()
    return checkpoint


def anything_below(checkpoint_id: int, offset: int) -> bool:
    """Whether the ledger holds a range that begins below `offset`."""
    return LedgerRange.objects.filter(checkpoint_id=checkpoint_id, offsets__startswith__lt=offset).exists()


def retire_and_restart(
    checkpoint: PartitionCheckpoint, *, action: OperatorAction, reason: str, baseline: int, topic_id: str
) -> PartitionCheckpoint:
    """Retire a locked checkpoint and begin a new one at `baseline` in its place (R14). Returns the new row.

    `reason` "rebuilt" takes the old counts out of every read; any other keeps them beside the new ones. The old row's
    epoch grows, so that what still names it is refused; the new row continues it.
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
    """Undo a rebuild: the current row is retired as `rebuilt`, the retired one lives again. Both rows are locked."""
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
        leader_epoch=None,
        desired_state=current.desired_state,
    )
    if changed != 1:
        raise LedgerConflictError(f"{retired} changed while it was locked")
    retired.refresh_from_db()
    return retired


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
    """Make the owners send these offsets to the mirrors again; returns how many rows were asked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET mirror_requests = mirror_requests + 1"
            " WHERE id = ANY(%s) AND retired_at IS NULL",
            [list(checkpoint_ids)],
        )
        return int(cursor.rowcount)


def move_within(group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
    """Move `next_offset` forward within what the ledger holds, by compare-and-set. Returns the refused, with why."""
    refused = {}
    for c in sorted(commits, key=lambda commit: commit.topic_partition):
        row = PartitionCheckpoint.objects.live(group_id).filter(
            topic=c.topic_partition.topic, partition=c.topic_partition.partition
        )
        checkpoint = row.select_for_update(no_key=True).first()
        reason = _refuses(checkpoint, c)
        if reason or checkpoint is None:
            refused[c.topic_partition] = reason
        else:
            PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(next_offset=c.next_offset)
    return refused


def _refuses(checkpoint: PartitionCheckpoint | None, commit: StoreCommit) -> str:
    if checkpoint is None:
        return "the ledger holds nothing; it begins with a claim"
    if checkpoint.epoch != commit.epoch:
        return f"epoch {commit.epoch} is over, the ledger holds epoch {checkpoint.epoch}"
    if checkpoint.next_offset != commit.expected:
        return f"the ledger holds {checkpoint.next_offset}, not {commit.expected}"
    if not checkpoint.next_offset <= commit.next_offset <= checkpoint.ledger_end:
        return f"the ledger reaches from {checkpoint.next_offset} to {checkpoint.ledger_end}, not {commit.next_offset}"
    # Below the ledger's end there may be unread offsets: a seek below the old baseline leaves them.
    holes = uncovered(checkpoint.pk, OffsetRange(checkpoint.next_offset, commit.next_offset))
    return f"the ledger knows nothing of {holes[0]} yet" if holes else ""
