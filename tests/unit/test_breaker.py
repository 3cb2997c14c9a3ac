"""The circuit breaker against plain lists of what failed: it trips at its limits, never before, and begins anew."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.processing.circuit_breaker import Breaker, BreakerLimits

#: None of them is reached unless a test lowers it.
FAR = {"max_percent": 100, "window": 10_000, "max_in_a_row": 10_000, "max_batches": 10_000}


def breaker(**limits: int) -> Breaker:
    return Breaker(BreakerLimits(**{**FAR, **limits}))


def test_it_trips_at_so_many_failed_batches_in_a_row() -> None:
    one = breaker(max_batches=3)
    assert [one.failed_batch() for _ in range(2)] == ["", ""]
    assert one.failed_batch() == "3 batches in a row could not be applied"
    assert one.failed_batch() == "4 batches in a row could not be applied", "it is asked again until somebody answers"


def test_a_batch_that_is_counted_ends_the_row_of_failed_ones() -> None:
    one = breaker(max_batches=2)
    assert one.failed_batch() == ""
    assert one.counted_batch(1, []) == ""
    assert one.failed_batch() == ""
    assert one.failed_batch()


def test_it_trips_at_so_many_failed_records_in_a_row_within_and_across_batches() -> None:
    within, across, apart = (breaker(max_in_a_row=3) for _ in range(3))
    assert within.counted_batch(5, [10, 11]) == ""
    assert within.counted_batch(5, [20, 21, 22, 30]) == "3 records in a row could not be counted"
    assert across.counted_batch(5, [8, 9]) == ""
    assert across.counted_batch(5, [10])
    assert apart.counted_batch(5, [8, 9]) == ""
    assert apart.counted_batch(5, [11, 12, 14, 15]) == "", "a good record at 10 and 13 ends the row"


def test_it_trips_above_its_share_of_the_window_and_not_at_it() -> None:
    one = breaker(max_percent=50, window=10)
    assert one.counted_batch(0, [0, 2, 4]) == "", "nothing trips before so many were read"
    assert one.counted_batch(5, [6, 8]) == "", "half of them is not more than half"
    assert one.counted_batch(0, [20]) == "6 of the last 11 records could not be counted"


def test_it_forgets_what_left_the_window() -> None:
    one = breaker(max_percent=50, window=10)
    assert one.counted_batch(0, range(0, 18, 2)) == "", "nine failed, and the window is not full"
    assert one.counted_batch(11, []) == "", "a window of its own"
    assert one.counted_batch(4, [100, 102, 104, 106]) == "", "four of the last nineteen"
    assert one.counted_batch(0, range(200, 220, 2)) == "10 of the last 10 records could not be counted"


def test_batches_without_records_are_not_kept() -> None:
    """A partition of nothing but transaction markers commits for ever."""
    one = breaker(window=10)
    for _ in range(100):
        one.counted_batch(0, [])
    assert len(one._recent) == 0


batches = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), max_size=30)


@given(batches, st.integers(1, 12), st.integers(1, 99))
def test_it_looks_at_as_few_of_the_last_batches_as_fill_the_window(
    read: list[list[bool]], window: int, percent: int
) -> None:
    """`read` holds batches of records that failed (True) or counted."""
    one, at = breaker(max_percent=percent, window=window), 0
    for number, batch in enumerate(read):
        failed = [at + place for place, bad in enumerate(batch) if bad]
        at += len(batch)
        said = one.counted_batch(len(batch) - len(failed), failed)
        seen: list[bool] = []
        for earlier in reversed(read[: number + 1]):
            seen += earlier
            if len(seen) >= window:
                break
        tripped = len(seen) >= window and sum(seen) * 100 > percent * len(seen)
        assert bool(said) == tripped
        if tripped:
            assert said == f"{sum(seen)} of the last {len(seen)} records could not be counted"


@given(batches, st.integers(1, 8))
def test_it_counts_rows_of_failures_as_if_there_were_no_batches(read: list[list[bool]], limit: int) -> None:
    one, at, tripped = breaker(max_in_a_row=limit), 0, False
    for batch in read:
        failed = [at + place for place, bad in enumerate(batch) if bad]
        at += len(batch)
        tripped = bool(one.counted_batch(len(batch) - len(failed), failed)) or tripped
    records = [bad for batch in read for bad in batch]
    longest = max((len(list(row)) for bad, row in groupby(records) if bad), default=0)
    assert tripped == (longest >= limit)


@pytest.mark.parametrize("limit", ["max_percent", "max_in_a_row", "max_batches"])
def test_a_new_one_knows_nothing_of_the_last(limit: str) -> None:
    limits = {**FAR, "window": 2, limit: 1}
    assert any(
        (Breaker(BreakerLimits(**limits)).counted_batch(1, [5]), Breaker(BreakerLimits(**limits)).failed_batch())
    )
    fresh = Breaker(BreakerLimits(**limits))
    assert fresh.counted_batch(5, []) == ""
