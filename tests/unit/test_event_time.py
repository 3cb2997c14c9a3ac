"""The minute in which an event counts, and what is said of times that cannot be right."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.event_time import EARLIEST_MS, ImplausibleTimes, count_flaws, judge

WEEK = 7 * 24 * 3600
NOW = 1_700_000_000_000
ARRIVAL = NOW + 30_000
FAR = 2**63 - 1


def judged(own: int, record: int, now: int = ARRIVAL) -> tuple[int, tuple[ImplausibleTimes, ...]]:
    minutes, flaws = judge(pl.Series([own]), pl.Series([record]), WEEK, now / 1000)
    return minutes.item(), count_flaws(flaws)


@pytest.mark.parametrize(
    ("own", "record", "counts_at", "flaws"),
    [
        (NOW, NOW + 1000, NOW, []),
        (NOW - WEEK * 1000, NOW, NOW - WEEK * 1000, []),
        (EARLIEST_MS, EARLIEST_MS, EARLIEST_MS, []),
        # Too far from the record's time: the record's minute, as ever, and said.
        (NOW - WEEK * 1000 - 1, NOW, NOW, [("event", "unknown")]),
        (NOW, NOW - WEEK * 1000 - 1, NOW - WEEK * 1000 - 1, [("event", "unknown")]),
        # Wrong units of `occurred_at`.
        (NOW // 1000, NOW, NOW, [("event", "seconds")]),
        (NOW * 1000, NOW, NOW, [("event", "microseconds")]),
        (NOW * 1_000_000, NOW, NOW, [("event", "nanoseconds")]),
        (0, NOW, NOW, [("event", "unknown")]),
        (FAR, NOW, NOW, [("event", "unknown")]),
        (NOW + 2 * WEEK * 1000, NOW, NOW, [("event", "unknown")]),
        # Wrong units of the record's timestamp: the event's own minute, not one of 1970.
        (NOW, NOW // 1000, NOW, [("record", "seconds")]),
        (NOW, NOW * 1000, NOW, [("record", "microseconds")]),
        (NOW, NOW * 1_000_000, NOW, [("record", "nanoseconds")]),
        (NOW, 0, NOW, [("record", "unknown")]),
        (NOW, FAR, NOW, [("record", "unknown")]),
        # A record without timestamp is no flaw.
        (NOW, -1, NOW, []),
        (NOW // 1000, -1, ARRIVAL, [("event", "seconds")]),
        # Both: the minute of arrival.
        (NOW // 1000, NOW // 1000, ARRIVAL, [("event", "seconds"), ("record", "seconds")]),
        (NOW * 1000, NOW // 1000, ARRIVAL, [("event", "microseconds"), ("record", "seconds")]),
        (FAR, FAR, ARRIVAL, [("event", "unknown"), ("record", "unknown")]),
        (FAR, -1, ARRIVAL, [("event", "unknown")]),
    ],
)
def test_it_finds_the_minute_and_the_likely_unit(
    own: int, record: int, counts_at: int, flaws: list[tuple[str, str]]
) -> None:
    assert judged(own, record) == (
        counts_at // 60_000,
        tuple(ImplausibleTimes(source, unit, 1) for source, unit in flaws),
    )


@given(st.integers(0, 2**63 - 1), st.integers(-1, 2**63 - 1))
def test_no_time_leads_to_a_minute_that_cannot_be_right(own: int, record: int) -> None:
    minute, _ = judged(own, record)

    assert EARLIEST_MS // 60_000 <= minute <= (ARRIVAL + WEEK * 1000) // 60_000


times = st.one_of(
    st.integers(NOW - 3 * WEEK * 1000, NOW + 3 * WEEK * 1000),
    st.integers(NOW // 1000 - WEEK, NOW // 1000),
    st.integers(0, 2**63 - 1),
    st.just(-1),
)


@settings(deadline=None)
@given(st.lists(st.tuples(times.map(abs), times), max_size=20))
def test_a_batch_is_judged_as_its_events_are_one_by_one(pairs: list[tuple[int, int]]) -> None:
    owns, records = (pl.Series([pair[n] for pair in pairs], dtype=pl.Int64) for n in (0, 1))
    minutes, flaws = judge(owns, records, WEEK, ARRIVAL / 1000)
    single = [judged(*pair) for pair in pairs]

    assert minutes.to_list() == [minute for minute, _ in single]
    expected: dict[tuple[str, str], int] = {}
    for _, found in single:
        for source, unit, events in found:
            expected[source, unit] = expected.get((source, unit), 0) + events
    assert {(source, unit): events for source, unit, events in count_flaws(flaws)} == expected
