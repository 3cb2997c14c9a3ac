"""Interval arithmetic against sets of integers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.ranges import (
    KnownRange,
    OffsetRange,
    cut,
    gaps,
    intersect,
    normalise,
    offset_range,
    subtract,
)
from offsets.types import RangeKind


@st.composite
def one_range(draw: st.DrawFn) -> OffsetRange:
    start = draw(st.integers(0, 40))
    return OffsetRange(start, start + draw(st.integers(1, 12)))


many = st.lists(one_range(), max_size=8)


def numbers(ranges: list[OffsetRange]) -> set[int]:
    return {n for one in ranges for n in range(one.start, one.end)}


@given(many)
def test_it_normalises_to_the_fewest_sorted_ranges(ranges: list[OffsetRange]) -> None:
    merged = normalise(ranges)
    assert numbers(merged) == numbers(ranges)
    assert all(a.end < b.start for a, b in itertools.pairwise(merged))


@given(many, many)
def test_it_subtracts_and_intersects_like_sets(left: list[OffsetRange], right: list[OffsetRange]) -> None:
    assert numbers(subtract(left, right)) == numbers(left) - numbers(right)
    assert numbers(intersect(left, right)) == numbers(left) & numbers(right)
    assert subtract(left, right) == normalise(subtract(left, right))


@given(many, one_range())
def test_it_finds_the_gaps_within_a_range(ranges: list[OffsetRange], within: OffsetRange) -> None:
    holes = gaps(ranges, within)
    assert numbers(holes) == numbers([within]) - numbers(ranges)


@pytest.mark.parametrize(("start", "end"), [(3, 3), (5, 2), (-1, 4)])
def test_it_refuses_what_is_no_range(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        offset_range(start, end)


#: One kind for each offset, None for what the ledger says nothing of.
words = st.lists(st.sampled_from([None, *RangeKind]), min_size=1, max_size=40)


@given(words, st.data())
def test_it_cuts_where_the_word_changes(ledger: list[RangeKind | None], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 45))
    within = OffsetRange(start, data.draw(st.integers(start + 1, 50)))
    pieces = cut(within, data.draw(st.permutations(as_ranges(ledger, data))))
    said = [(n, piece.kind) for piece in pieces for n in range(piece.start, piece.end)]
    assert said == [(n, ledger[n] if n < len(ledger) else None) for n in range(within.start, within.end)]
    assert all(a.kind is not b.kind for a, b in itertools.pairwise(pieces)), "neighbours of one kind are one piece"


def as_ranges(ledger: list[RangeKind | None], data: st.DataObject) -> list[KnownRange]:
    """The ledger as rows: disjoint, and as often as not cut where the kind goes on."""
    rows: list[KnownRange] = []
    for offset, kind in enumerate(ledger):
        if kind is None:
            continue
        if rows and rows[-1].end == offset and rows[-1].kind is kind and data.draw(st.booleans()):
            rows[-1] = KnownRange(rows[-1].start, offset + 1, kind)
        else:
            rows.append(KnownRange(offset, offset + 1, kind))
    return rows
