"""Rows of ledger ranges: look up, grow, insert, and cut out.

`processed` ranges only grow. Ranges of other kinds are replaced where their offsets are counted later (R13).
"""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from django.db import connection

from offsets.errors import LedgerConflictError
from offsets.ledger.columns import columns
from offsets.ranges import KnownRange, OffsetRange
from offsets.types import RangeKind

# In this form PostgreSQL uses the exclusion constraint's index to look up offsets of one checkpoint.
_OVERLAP = (
    "int8range(checkpoint_id, checkpoint_id, '[]') && int8range(%(id)s, %(id)s, '[]')"
    " AND offsets && int8range(%(start)s, %(end)s)"
)


class Piece(NamedTuple):
    """Offsets `[start, end)` of a commit. `kind` is the ledger's current kind there, None without a range."""

    checkpoint_id: int
    start: int
    end: int
    kind: RangeKind | None
    records: int
    failed_records: int
    epoch: int


def known_ranges(checkpoint_id: int, within: OffsetRange) -> list[KnownRange]:
    """The ranges that overlap `within`, not clipped, in offset order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT lower(offsets), upper(offsets), kind FROM offsets_ledgerrange"
            f" WHERE checkpoint_id = %(id)s AND {_OVERLAP} ORDER BY lower(offsets)",
            {"id": checkpoint_id, "start": within.start, "end": within.end},
        )
        return [KnownRange(row[0], row[1], RangeKind(row[2])) for row in cursor.fetchall()]


def write_processed(pieces: Sequence[Piece], batch_id: uuid.UUID) -> dict[int, int]:
    """Make all pieces processed that are not. Returns the last range written, by checkpoint.

    Pieces without a range, which are the most, take two statements for all partitions. Pieces that replace another kind
    are cut out one by one.
    """
    tips: dict[int, int] = {}
    new = [piece for piece in pieces if piece.kind is None]
    replacing = [piece for piece in pieces if piece.kind not in (None, RangeKind.PROCESSED)]
    for piece in replacing:
        cut_out(piece.checkpoint_id, piece.start, piece.end)
    # In offset order, so that a piece can grow the range before it. Each round has one piece per checkpoint.
    waiting = sorted(new + replacing, key=lambda piece: (piece.checkpoint_id, piece.start))
    while waiting:
        round_, waiting = _first_of_each(waiting)
        grown = _grow(round_)
        inserted = [piece for piece in round_ if piece.checkpoint_id not in grown]
        tips |= grown | (_insert(inserted, RangeKind.PROCESSED, batch_id) if inserted else {})
    return tips


def _first_of_each(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    seen: set[int] = set()
    first: list[Piece] = []
    rest: list[Piece] = []
    for piece in pieces:
        (rest if piece.checkpoint_id in seen else first).append(piece)
        seen.add(piece.checkpoint_id)
    return first, rest


def _grow(pieces: Sequence[Piece]) -> dict[int, int]:
    """Extend in place the processed range that ends where a piece starts. Returns range ids by checkpoint."""
    ids, starts, ends, records, failed = columns(
        (p.checkpoint_id, p.start, p.end, p.records, p.failed_records) for p in pieces
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_ledgerrange r SET offsets = int8range(lower(r.offsets), v.upto),"
            " records = r.records + v.records, failed_records = r.failed_records + v.failed"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " AS v(id, start, upto, records, failed)"
            " WHERE int8range(r.checkpoint_id, r.checkpoint_id, '[]') && int8range(v.id, v.id, '[]')"
            " AND r.offsets @> v.start - 1 AND r.checkpoint_id = v.id AND upper(r.offsets) = v.start"
            " AND r.kind = 'processed' RETURNING r.checkpoint_id, r.id",
            [ids, starts, ends, records, failed],
        )
        return dict(cursor.fetchall())


def _insert(pieces: Sequence[Piece], kind: RangeKind, batch_id: uuid.UUID | None, detail: str = "") -> dict[int, int]:
    ids, starts, ends, records, failed, epochs = columns(
        (p.checkpoint_id, p.start, p.end, p.records, p.failed_records, p.epoch) for p in pieces
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_ledgerrange (checkpoint_id, offsets, kind, records, failed_records, epoch, batch_id,"
            " detail) SELECT v.id, int8range(v.start, v.upto), %s, v.records, v.failed, v.epoch, %s, %s"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " AS v(id, start, upto, records, failed, epoch) RETURNING checkpoint_id, id",
            [kind, batch_id, detail, ids, starts, ends, records, failed, epochs],
        )
        return dict(cursor.fetchall())


def write_failed(pieces: Sequence[Piece], batch_id: uuid.UUID, detail: str, retry_seconds: float) -> None:
    """Record offsets as failed, to be retried in `retry_seconds`."""
    if not pieces:
        return
    for piece in pieces:
        if piece.kind is not None:
            cut_out(piece.checkpoint_id, piece.start, piece.end)
    _insert([piece._replace(records=0, failed_records=0) for piece in pieces], RangeKind.FAILED, batch_id, detail)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_ledgerrange SET retry_at = clock_timestamp() + make_interval(secs => %s)"
            " WHERE checkpoint_id = %s AND batch_id = %s AND kind = 'failed'",
            [retry_seconds, pieces[0].checkpoint_id, batch_id],
        )


def insert_uncounted(checkpoint_id: int, gaps: Sequence[OffsetRange], kind: RangeKind, epoch: int, detail: str) -> None:
    """Record uncovered offsets as skipped by an operator, or as expired."""
    if gaps:
        _insert([Piece(checkpoint_id, gap.start, gap.end, None, 0, 0, epoch) for gap in gaps], kind, None, detail)


def cut_out(checkpoint_id: int, start: int, end: int) -> None:
    """Remove `[start, end)` from ranges that are not processed. What remains of them keeps its other columns."""
    bounds = {"id": checkpoint_id, "start": start, "end": end}
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM offsets_ledgerrange WHERE checkpoint_id = %(id)s AND {_OVERLAP} AND kind <> 'processed'"
            " RETURNING lower(offsets), upper(offsets), kind, epoch, batch_id, detail, created_at, attempts, retry_at",
            bounds,
        )
        removed = cursor.fetchall()
        remaining = [
            (low, high, *others)
            for lower, upper, *others in removed
            for low, high in ((lower, min(upper, start)), (max(lower, end), upper))
            if low < high
        ]
        cursor.executemany(
            "INSERT INTO offsets_ledgerrange (checkpoint_id, offsets, kind, records, failed_records, epoch, batch_id,"
            " detail, created_at, attempts, retry_at)"
            " VALUES (%s, int8range(%s, %s), %s, 0, 0, %s, %s, %s, %s, %s, %s)",
            [(checkpoint_id, *row) for row in remaining],
        )


# --- At most once ---------------------------------------------------------------------------------


def write_claimed(pieces: Sequence[Piece], batch_id: uuid.UUID) -> None:
    for piece in pieces:
        if piece.kind is not None:
            cut_out(piece.checkpoint_id, piece.start, piece.end)
    if pieces:
        _insert([piece._replace(records=0, failed_records=0) for piece in pieces], RangeKind.CLAIMED, batch_id)


def claimed_by(checkpoint_id: int, batch_id: uuid.UUID) -> list[tuple[int, int]]:
    """The unsettled claimed ranges of a batch in a checkpoint, in offset order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT lower(offsets), upper(offsets) FROM offsets_ledgerrange WHERE checkpoint_id = %s"
            " AND kind = 'claimed' AND batch_id = %s ORDER BY 1",
            [checkpoint_id, batch_id],
        )
        return list(cursor.fetchall())


def remove_claimed(pieces: Sequence[Piece], batch_id: uuid.UUID) -> None:
    """Delete claimed ranges, to insert processed ones. Raises LedgerConflictError if one does not exist."""
    if not pieces:
        return
    ids, starts, ends = columns((p.checkpoint_id, p.start, p.end) for p in pieces)
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM offsets_ledgerrange r USING unnest(%s::bigint[], %s::bigint[], %s::bigint[])"
            " AS v(id, start, upto) WHERE r.checkpoint_id = v.id AND r.kind = 'claimed' AND r.batch_id = %s"
            " AND r.offsets = int8range(v.start, v.upto)",
            [ids, starts, ends, batch_id],
        )
        if cursor.rowcount != len(pieces):
            raise LedgerConflictError(f"{cursor.rowcount} of {len(pieces)} claimed ranges exist")
