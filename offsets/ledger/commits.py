"""What a commit writes: ranges, dead letters and checkpoints, all in the caller's transaction (R9 to R13)."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connection

from offsets.errors import FencedError, LedgerConflictError
from offsets.ledger import pieces
from offsets.ledger.columns import columns
from offsets.ledger.pieces import Piece
from offsets.models import DeadLetter
from offsets.ranges import OffsetRange, cut
from offsets.types import EpochCause, PartitionCommit, RangeKind, RecordFailure


@dataclass(frozen=True, slots=True)
class _Row:
    """The columns of a locked checkpoint that a commit compares."""

    epoch: int
    epoch_cause: str
    next_offset: int
    ledger_end: int
    retired: bool
    owner: str | None
    last_batch_id: uuid.UUID | None


def lock_for_commit(commits: Sequence[PartitionCommit]) -> None:
    """Lock the checkpoints in id order, and compare `(epoch, next_offset)` (R9) and the ledger's ranges (R12).

    Raises FencedError with a reason for each partition that differs from what its commit expects.
    """
    misses = _misses(commits, _lock(commits))
    if misses:
        raise FencedError(misses)


def _lock(commits: Sequence[PartitionCommit]) -> dict[int, _Row]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, epoch, epoch_cause, next_offset, ledger_end, retired_at IS NOT NULL,"
            " owner_id, last_batch_id"
            " FROM offsets_partitioncheckpoint WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
            [sorted(commit.claim.checkpoint_id for commit in commits)],
        )
        return {row[0]: _Row(*row[1:]) for row in cursor.fetchall()}


def _misses(commits: Sequence[PartitionCommit], rows: dict[int, _Row]) -> dict[int, str]:
    misses = {}
    for commit in commits:
        reason = _miss(commit, rows.get(commit.claim.checkpoint_id))
        if reason:
            misses[commit.claim.checkpoint_id] = reason
    return misses


def _miss(commit: PartitionCommit, row: _Row | None) -> str:
    """Why this commit may not be applied to the current row; empty if it may."""
    name = f"{commit.claim.topic_partition} [{commit.start}, {commit.end})"
    if row is None:
        return f"{name}: its checkpoint does not exist"
    if row.retired:
        return f"{name}: its checkpoint was retired"
    if row.epoch != commit.claim.epoch:
        holder = "operator action" if row.epoch_cause == EpochCause.ACTION else row.owner or "no owner"
        return f"{name}: epoch {commit.claim.epoch} is stale, the current epoch is {row.epoch} ({holder})"
    if row.next_offset != commit.start:
        return f"{name}: next offset is {row.next_offset}, not {commit.start}"
    if _current(commit, row.ledger_end) != _expected(commit):
        return f"{name}: the ledger has changed since these offsets were read"
    return ""


def _expected(commit: PartitionCommit) -> list[tuple[int, int, RangeKind | None]]:
    return [segment.bounds for segment in commit.parts]


def _current(commit: PartitionCommit, ledger_end: int) -> list[tuple[int, int, RangeKind | None]]:
    """The ledger's current segments of the commit. Only below `ledger_end` can there be ranges (R12)."""
    within = OffsetRange(commit.start, commit.end)
    known = pieces.known_ranges(commit.claim.checkpoint_id, within) if commit.start < ledger_end else []
    return [(piece.start, piece.end, piece.kind) for piece in cut(within, known)]


# --- Writing, after lock_for_commit ---------------------------------------------------------------


def record_processed(commits: Sequence[PartitionCommit], batch_id: uuid.UUID, *, move: bool = True) -> None:
    """Write ranges, dead letters and checkpoints of counted batches. In the caller's transaction.

    Offsets that were already processed were either subtracted or are counted again (`duplicates`); every other kind
    becomes processed. `move=False` leaves `next_offset` to `follow_store`. Raises LedgerConflictError if a statement
    changed an unexpected number of rows; the caller must then roll back.
    """
    tips = pieces.write_processed(new_pieces(commits), batch_id)
    insert_dead_letters(commits)
    rows = [
        (
            commit.claim.checkpoint_id,
            commit.start,
            commit.end,
            commit.claim.epoch,
            tips.get(commit.claim.checkpoint_id),
            commit.leader_epoch,
            sum(s.records for s in commit.parts if s.found is RangeKind.PROCESSED),
        )
        for commit in commits
    ]
    _update_checkpoints(rows, batch_id, move=move)


def record_failed(
    commit: PartitionCommit, batch_id: uuid.UUID, detail: str, *, retry_seconds: float, move: bool
) -> None:
    """Quarantine a batch that the database rejected: a failed range, to be replayed in `retry_seconds` (R11).

    In the caller's transaction, after `lock_for_commit`. Processed offsets stay processed, and offsets that failed
    before keep their attempts. Skipped and claimed offsets were to be counted now, so they become failed.
    """
    settled = (RangeKind.PROCESSED, RangeKind.FAILED)
    new = [piece for piece in new_pieces([commit]) if piece.kind not in settled]
    pieces.write_failed(new, batch_id, detail, retry_seconds)
    claim = commit.claim
    row = (claim.checkpoint_id, commit.start, commit.end, claim.epoch, None, commit.leader_epoch, 0)
    _update_checkpoints([row], batch_id, move=move)


def claim_offsets(commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
    """At most once, first half: record the offsets as `claimed` and advance, before anything is counted."""
    new = [piece for piece in new_pieces(commits) if piece.kind is not RangeKind.PROCESSED]
    pieces.write_claimed(new, batch_id)
    rows = [(c.claim.checkpoint_id, c.start, c.end, c.claim.epoch, None, c.leader_epoch, 0) for c in commits]
    _update_checkpoints(rows, batch_id, move=True)


def settle_claimed(commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> list[PartitionCommit]:
    """At most once, second half: turn the batch's claimed ranges into processed ones. Returns the commits to count.

    The fence is the batch's own claimed ranges, not the epoch. A commit with a range missing is not counted: a replay
    or an operator action has settled it.
    """
    _lock(commits)
    kept = [commit for commit in commits if _holds_claimed(commit, batch_id)]
    if kept:
        new = [piece for piece in new_pieces(kept) if piece.kind is not RangeKind.PROCESSED]
        pieces.remove_claimed(new, batch_id)
        pieces.write_processed([piece._replace(kind=None) for piece in new], batch_id)
        insert_dead_letters(kept)
    return kept


def _holds_claimed(commit: PartitionCommit, batch_id: uuid.UUID) -> bool:
    claimed = pieces.claimed_by(commit.claim.checkpoint_id, batch_id)
    return claimed == [(s.start, s.end) for s in commit.parts if s.found is not RangeKind.PROCESSED]


def follow_store(commits: Sequence[PartitionCommit]) -> dict[int, str]:
    """At least once: advance `next_offset` to what the store accepted. Returns the fenced checkpoints."""
    ids, starts, ends, epochs = columns((c.claim.checkpoint_id, c.start, c.end, c.claim.epoch) for c in commits)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint c SET next_offset = v.upto, committed_at = clock_timestamp()"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS v(id, start, upto, epoch)"
            # Repeated after a COMMIT of unknown outcome, the row may already be at the end.
            " WHERE c.id = v.id AND c.epoch = v.epoch AND c.next_offset IN (v.start, v.upto) AND c.retired_at IS NULL"
            " RETURNING c.id",
            [ids, starts, ends, epochs],
        )
        moved = {row[0] for row in cursor.fetchall()}
    return {
        c.claim.checkpoint_id: f"{c.claim.topic_partition}: epoch {c.claim.epoch} ended after the store commit"
        for c in commits
        if c.claim.checkpoint_id not in moved
    }


def new_pieces(commits: Sequence[PartitionCommit]) -> list[Piece]:
    return [
        Piece(c.claim.checkpoint_id, s.start, s.end, s.found, s.records, s.failed_records, c.claim.epoch)
        for c in commits
        for s in c.parts
    ]


def _update_checkpoints(rows: Sequence[tuple[Any, ...]], batch_id: uuid.UUID, *, move: bool) -> None:
    ids, starts, ends, epochs, tips, leader_epochs, duplicates = columns(rows)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint c SET next_offset = CASE WHEN %s THEN v.upto ELSE c.next_offset END,"
            " ledger_end = greatest(c.ledger_end, v.upto), last_batch_id = %s, committed_at = clock_timestamp(),"
            " tip_range_id = coalesce(v.tip, c.tip_range_id), duplicates = c.duplicates + v.duplicates,"
            # Not the older epoch where this one is unknown: a broker would compare it with a later offset.
            " leader_epoch = v.leader_epoch"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::int[],"
            " %s::bigint[]) AS v(id, start, upto, epoch, tip, leader_epoch, duplicates)"
            " WHERE c.id = v.id AND c.epoch = v.epoch AND c.next_offset = v.start",
            [move, batch_id, ids, starts, ends, epochs, tips, leader_epochs, duplicates],
        )
        if cursor.rowcount != len(rows):
            raise LedgerConflictError(f"{cursor.rowcount} of {len(rows)} checkpoints moved")


def insert_dead_letters(commits: Sequence[PartitionCommit]) -> None:
    rows = [
        DeadLetter(
            checkpoint_id=commit.claim.checkpoint_id,
            offset=failure.offset,
            error_code=failure.error_code,
            **_kept(failure, settings.DEAD_LETTER_MAX_BYTES),
            record_timestamp=_timestamp(failure.timestamp_ms),
        )
        for commit in commits
        for failure in _new_failures(commit)
    ]
    DeadLetter.objects.bulk_create(rows, batch_size=1000)


def _kept(failure: RecordFailure, limit: int) -> dict[str, Any]:
    """What is stored of a record: at most `limit` bytes of its value, its key and its headers each."""
    detail = failure.error_detail.replace("\x00", "\\0")
    size = len(failure.value or b"")
    if size > limit:
        detail += f" Only the first {limit:,} of its {size:,} bytes are kept, so it cannot be requeued."
    if len(failure.headers) > limit:
        detail += " Its headers are too large to be kept."
    return {
        "error_detail": detail,
        "key": None if failure.key is None else failure.key[:limit],
        "value": None if failure.value is None else failure.value[:limit],
        "value_bytes": size if size > limit else None,
        "headers": b"[]" if len(failure.headers) > limit else failure.headers,
    }


def _new_failures(commit: PartitionCommit) -> Iterable[RecordFailure]:
    """Failures outside processed ranges. Those inside were read again and already have dead letters."""
    processed = [s for s in commit.parts if s.found is RangeKind.PROCESSED]
    if not processed:
        return commit.failures
    return [f for f in commit.failures if not any(s.start <= f.offset < s.end for s in processed)]


def _timestamp(milliseconds: int | None) -> datetime | None:
    """Kafka's record timestamp as a datetime; None if absent or out of range."""
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None


# --- In doubt -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbedCommit:
    """The outcome of a transaction whose COMMIT was not confirmed (R10)."""

    applied: bool
    misses: dict[int, str]


def probe_commit(commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> ProbedCommit:
    """Find out, after a lost connection, whether the transaction `batch_id` was applied.

    Locking waits for an in-flight COMMIT of the lost session; a plain read could return the old rows. The transaction
    is atomic: if one of its checkpoints has its batch id, all of it was applied.
    """
    rows = _lock(commits)
    if any(row.last_batch_id == batch_id for row in rows.values()):
        return ProbedCommit(applied=True, misses={})
    return ProbedCommit(applied=False, misses=_misses(commits, rows))
