"""Counts outside the live offset: replays of ranges, and requeued dead letters (R12, R13).

In the caller's transaction. No epoch is compared, because no next offset moves. A replay is fenced by its range, which
must be unchanged since its records were decoded.
"""

import uuid
from collections.abc import Sequence

from django.db import connection

from offsets.ledger import pieces
from offsets.ledger.commits import insert_dead_letters, new_pieces
from offsets.models import DatabaseTime, DeadLetter, OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange, cut
from offsets.types import DeadLetterStatus, PartitionCommit, RangeKind


def replay_miss(commit: PartitionCommit) -> str:
    """Lock the checkpoint, and return why the ledger differs from what the commit expects (R12); empty if not."""
    retired = _lock(commit.claim.checkpoint_id)
    if retired is None or retired:
        return f"{commit.claim.topic_partition}: its checkpoint was retired ({retired or 'deleted'})"
    within = OffsetRange(commit.start, commit.end)
    known = pieces.known_ranges(commit.claim.checkpoint_id, within)
    if [(piece.start, piece.end, piece.kind) for piece in cut(within, known)] != [part.bounds for part in commit.parts]:
        return f"{commit.claim.topic_partition} {within}: the ledger has changed since these offsets were read"
    return ""


def _lock(checkpoint_id: int) -> str | None:
    """Lock a checkpoint's row. Returns why it was retired, empty for a live row, None if it does not exist."""
    row = (
        PartitionCheckpoint.objects.select_for_update(no_key=True)
        .filter(pk=checkpoint_id)
        .values_list("retired_at", "retired_reason")
        .first()
    )
    if row is None:
        return None
    return "" if row[0] is None else (row[1] or "retired")


def record_replayed(commit: PartitionCommit, batch_id: uuid.UUID) -> None:
    """Make the commit's uncounted ranges processed, and insert its dead letters. After `replay_miss`.

    Offsets without a range are left to the live worker.
    """
    pieces.write_processed([piece for piece in new_pieces([commit]) if piece.kind is not None], batch_id)
    insert_dead_letters([commit])


def pass_failed(checkpoint_id: int, within: OffsetRange, kind: RangeKind, detail: str) -> list[OffsetRange]:
    """Record failed offsets that will not be retried as `kind`: expired if Kafka deleted them, skipped if an operator
    accepts the loss. Returns them.
    """
    if _lock(checkpoint_id) != "":
        return []
    epoch = PartitionCheckpoint.objects.values_list("epoch", flat=True).get(pk=checkpoint_id)
    known = pieces.known_ranges(checkpoint_id, within)
    failed = [OffsetRange(piece.start, piece.end) for piece in cut(within, known) if piece.kind is RangeKind.FAILED]
    for offsets in failed:
        pieces.cut_out(checkpoint_id, offsets.start, offsets.end)
    pieces.insert_uncounted(checkpoint_id, failed, kind, epoch, detail)
    return failed


def retry_failed_later(checkpoint_id: int, within: OffsetRange, seconds: float | None, detail: str) -> int:
    """Add an attempt to the failed ranges in `within`. The next is in `seconds`; None means no automatic retry."""
    _lock(checkpoint_id)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_ledgerrange SET attempts = attempts + 1, detail = %s,"
            " retry_at = clock_timestamp() + make_interval(secs => %s)"
            " WHERE checkpoint_id = %s AND kind = 'failed' AND offsets && int8range(%s, %s)",
            [detail, seconds, checkpoint_id, within.start, within.end],
        )
        return int(cursor.rowcount)


# --- Dead letters ---------------------------------------------------------------------------------


def lock_dead_letters(dead_letter_ids: Sequence[int]) -> list[DeadLetter]:
    """Lock the checkpoints in id order, as commits do, then the dead letters. Returns these in offset order.

    Their bytes are not loaded: a thousand dead letters can be a gigabyte.
    """
    dead_letters = DeadLetter.objects.filter(pk__in=dead_letter_ids)
    checkpoints = PartitionCheckpoint.objects.filter(pk__in=dead_letters.values("checkpoint_id"))
    list(checkpoints.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True))
    rows = dead_letters.select_related("checkpoint").defer("key", "value", "headers")
    return list(rows.order_by("checkpoint_id", "offset").select_for_update(of=("self",)))


def settle_dead_letters(dead_letter_ids: Sequence[int], status: DeadLetterStatus, action: OperatorAction | None) -> int:
    """Make pending dead letters counted or discarded, or discarded ones pending. Returns the number changed."""
    previous = DeadLetterStatus.DISCARDED if status is DeadLetterStatus.PENDING else DeadLetterStatus.PENDING
    return DeadLetter.objects.filter(pk__in=dead_letter_ids, status=previous).update(
        status=status,
        resolved_at=None if status is DeadLetterStatus.PENDING else DatabaseTime(),
        action=None if status is DeadLetterStatus.PENDING else action,
    )


# --- Fencing --------------------------------------------------------------------------------------


def fence(worker_id: str, *, silent_seconds: float | None = None, action: OperatorAction | None = None) -> list[int]:
    """Take all partitions from a worker: a new epoch without an owner fences its uncommitted work.

    With `silent_seconds`, only if its last heartbeat is older than that. Its open transactions are terminated: they
    hold row locks, and would be rejected anyway. Returns the checkpoints.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()",
            [worker_id],
        )
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET epoch = epoch + 1, owner_id = NULL, epoch_cause = %s,"
            " last_action_id = coalesce(%s, last_action_id) WHERE id IN ("
            "SELECT c.id FROM offsets_partitioncheckpoint c JOIN offsets_worker w ON w.worker_id = c.owner_id"
            " WHERE c.owner_id = %s AND c.retired_at IS NULL AND (%s::float8 IS NULL"
            " OR abs(extract(epoch FROM clock_timestamp() - w.heartbeat_at)) > %s)"
            " ORDER BY c.id FOR NO KEY UPDATE OF c) RETURNING id",
            [
                "action" if action else "claim",
                action.pk if action else None,
                worker_id,
                silent_seconds,
                silent_seconds or 0.0,
            ],
        )
        return [row[0] for row in cursor.fetchall()]
