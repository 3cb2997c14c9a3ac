"""Interval arithmetic over half-open offset ranges `[start, end)`. Pure.

A *normalised* list is sorted, disjoint and has no two ranges that touch.
"""

from collections.abc import Iterable
from typing import NamedTuple

from offsets.types import RangeKind


class OffsetRange(NamedTuple):
    """`[start, end)`, never empty."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"


def offset_range(start: int, end: int) -> OffsetRange:
    """A checked range. Raises ValueError when it is empty, reversed or negative."""
    if start < 0 or end <= start:
        raise ValueError(f"[{start}, {end}) is not a range of offsets: it must start at 0 or later and not be empty.")
    return OffsetRange(start, end)


def normalise(ranges: Iterable[OffsetRange]) -> list[OffsetRange]:
    """The same offsets as the fewest sorted, disjoint ranges."""
    merged: list[OffsetRange] = []
    for current in sorted(ranges):
        if merged and current.start <= merged[-1].end:
            merged[-1] = OffsetRange(merged[-1].start, max(merged[-1].end, current.end))
        else:
            merged.append(current)
    return merged


def subtract(ranges: Iterable[OffsetRange], removed: Iterable[OffsetRange]) -> list[OffsetRange]:
    """The offsets of `ranges` that are not in `removed`, normalised. O(n log n)."""
    left: list[OffsetRange] = []
    holes = normalise(removed)
    first = 0
    for current in normalise(ranges):
        start = current.start
        while first < len(holes) and holes[first].end <= start:
            first += 1
        index = first
        while index < len(holes) and holes[index].start < current.end:
            if holes[index].start > start:
                left.append(OffsetRange(start, holes[index].start))
            start = max(start, holes[index].end)
            index += 1
        if start < current.end:
            left.append(OffsetRange(start, current.end))
    return left


def intersect(ranges: Iterable[OffsetRange], others: Iterable[OffsetRange]) -> list[OffsetRange]:
    """The offsets in both, normalised."""
    kept = normalise(ranges)
    return subtract(kept, subtract(kept, others))


def gaps(ranges: Iterable[OffsetRange], within: OffsetRange) -> list[OffsetRange]:
    """The offsets of `within` that no range covers: what I1 calls holes."""
    return subtract([within], ranges)


class KnownRange(NamedTuple):
    """A range of the ledger; `kind` None stands for offsets that no range covers."""

    start: int
    end: int
    kind: RangeKind | None


def cut(within: OffsetRange, known: Iterable[KnownRange]) -> list[KnownRange]:
    """`within`, cut where the kind of the ranges changes: sorted, without gaps, neighbours of one kind merged.

    `known` are disjoint ranges (I2) in any order; what lies outside of `within` is left out.
    """
    pieces: list[KnownRange] = []

    def add(start: int, end: int, kind: RangeKind | None) -> None:
        if pieces and pieces[-1].kind is kind:
            pieces[-1] = KnownRange(pieces[-1].start, end, kind)
        else:
            pieces.append(KnownRange(start, end, kind))

    position = within.start
    for current in sorted(known, key=lambda current: current.start):
        start, end = max(current.start, within.start), min(current.end, within.end)
        if start >= end:
            continue
        if start > position:
            add(position, start, None)
        add(start, end, current.kind)
        position = end
    if position < within.end:
        add(position, within.end, None)
    return pieces
