"""Interval arithmetic against sets of integers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.ranges import OffsetRange, covers, gaps, intersect, normalise, offset_range, subtract, total


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
    assert total(merged) == len(numbers(ranges))


@given(many, many)
def test_it_subtracts_and_intersects_like_sets(left: list[OffsetRange], right: list[OffsetRange]) -> None:
    assert numbers(subtract(left, right)) == numbers(left) - numbers(right)
    assert numbers(intersect(left, right)) == numbers(left) & numbers(right)
    assert subtract(left, right) == normalise(subtract(left, right))


@given(many, one_range())
def test_it_finds_the_gaps_within_a_range(ranges: list[OffsetRange], within: OffsetRange) -> None:
    holes = gaps(ranges, within)
    assert numbers(holes) == numbers([within]) - numbers(ranges)
    assert covers(ranges, within) == (not holes)


@pytest.mark.parametrize(("start", "end"), [(3, 3), (5, 2), (-1, 4)])
def test_it_refuses_what_is_no_range(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        offset_range(start, end)
