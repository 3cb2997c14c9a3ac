"""The ledger strip: a partition's ranges, reduced to a maximum number of pieces. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from offsets.types import RangeKind

#: The most important kind first: a crowded stretch is shown as the worst kind in it.
_WORST_FIRST: tuple[str, ...] = (
    RangeKind.FAILED,
    RangeKind.EXPIRED,
    RangeKind.CLAIMED,
    RangeKind.SKIPPED,
    RangeKind.PROCESSED,
)
_RANK = {kind: rank for rank, kind in enumerate(_WORST_FIRST)}


class Piece(NamedTuple):
    """`[start, end)` of one kind."""

    start: int
    end: int
    kind: str
    records: int
    failed_records: int


def offsets_by_kind(pieces: Sequence[Piece]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    for piece in pieces:
        offsets[piece.kind] = offsets.get(piece.kind, 0) + piece.end - piece.start
    return offsets


def fit(pieces: Sequence[Piece], limit: int) -> list[Piece]:
    """At most `limit` pieces (at least two) for sorted, disjoint `pieces`; exact where they fit already.

    The strip is cut into `limit / 2` equal slots. Pieces longer than a slot stay exact; short ones that begin in the
    same slot become one, of the worst kind among them. No record is dropped, and nothing is drawn outside
    the stretch it came from.
    """
    if len(pieces) <= limit:
        return list(pieces)
    first = pieces[0].start
    slot_width = max(1, -(-(pieces[-1].end - first) // max(1, limit // 2)))
    fitted: list[Piece] = []
    last_slot = None
    for piece in pieces:
        slot = None if piece.end - piece.start >= slot_width else (piece.start - first) // slot_width
        if slot is not None and slot == last_slot:
            fitted[-1] = _joined(fitted[-1], piece)
        else:
            fitted.append(piece)
        last_slot = slot
    return fitted


def _joined(left: Piece, right: Piece) -> Piece:
    return Piece(
        left.start,
        max(left.end, right.end),
        min(left.kind, right.kind, key=lambda kind: _RANK.get(kind, 0)),
        left.records + right.records,
        left.failed_records + right.failed_records,
    )
