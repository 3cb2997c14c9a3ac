import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.monitoring.lag import LagTime, LogEnd, lag_records, lag_time, longest_or_none, per_second, total_or_none

STEADY = [LogEnd(100.0 + second, 1000 + 10 * second) for second in range(61)]


@pytest.mark.parametrize(
    ("log_end", "next_offset", "expected"), [(None, 5, None), (10, 4, 6), (10, 10, 0), (10, 12, 0)]
)
def test_it_counts_lag_in_records_and_never_below_zero(log_end, next_offset, expected):
    assert lag_records(log_end, next_offset) == expected


@pytest.mark.parametrize(
    ("next_offset", "expected"),
    [
        (1600, LagTime(0.0, 0.0)),  # at the newest end
        (1700, LagTime(0.0, 0.0)),  # past it: the sample is older than the commit
        (1590, LagTime(1.0, 1.0)),
        (1595, LagTime(0.5, 0.5)),  # between two points
        (1000, LagTime(60.0, 60.0)),  # at the oldest point
        (999, LagTime(None, 60.0)),  # before the known history: unknown, but at least that long
    ],
)
def test_it_interpolates_when_the_next_offset_was_the_end(next_offset, expected):
    assert lag_time(STEADY, next_offset) == expected


@pytest.mark.parametrize("points", [[], [LogEnd(100.0, 50)]])
def test_it_does_not_know_the_lag_in_seconds_from_fewer_than_two_points(points):
    assert lag_time(points, 10) == LagTime(None, 0.0)


def test_it_stays_sane_on_a_quiet_topic_that_gets_one_record():
    quiet_for_an_hour = [LogEnd(0.0, 100), LogEnd(3600.0, 100), LogEnd(3601.0, 101)]

    assert lag_time(quiet_for_an_hour, 100) == LagTime(1.0, 1.0)
    assert lag_time(quiet_for_an_hour, 101) == LagTime(0.0, 0.0)


def test_it_uses_the_newest_passage_after_the_log_was_truncated():
    truncated = [LogEnd(0.0, 500), LogEnd(10.0, 900), LogEnd(20.0, 600), LogEnd(30.0, 800)]

    assert lag_time(truncated, 700) == LagTime(5.0, 5.0)


@given(
    growth=st.lists(st.tuples(st.floats(0.001, 100), st.integers(0, 10**6)), min_size=2, max_size=60),
    next_offset=st.integers(0, 10**8),
)
def test_it_is_never_negative_nor_longer_than_the_known_history(growth, next_offset):
    points, at, end = [], 0.0, 0
    for seconds, records in growth:
        at, end = at + seconds, end + records
        points.append(LogEnd(at, end))

    lag = lag_time(points, next_offset)

    assert lag.seconds is None or 0.0 <= lag.seconds <= points[-1].at_seconds - points[0].at_seconds
    assert (lag.seconds is None) == (next_offset < points[0].offset and next_offset < points[-1].offset)


@given(first=st.integers(900, 1700), second=st.integers(900, 1700))
def test_it_never_grows_when_the_next_offset_moves_forward(first, second):
    behind, ahead = sorted((first, second))

    assert lag_time(STEADY, ahead).at_least_seconds <= lag_time(STEADY, behind).at_least_seconds


def test_it_gives_the_same_answer_from_the_points_around_the_offset_as_from_all():
    needed = [STEADY[0], STEADY[30], STEADY[31], STEADY[60]]

    assert lag_time(needed, 1304) == lag_time(STEADY, 1304)


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        ((0.0, 100), (10.0, 600), 50.0),
        ((0.0, 600), (10.0, 100), -50.0),
        (None, (10.0, 600), None),
        ((10.0, 600), (10.0, 700), None),
    ],
)
def test_it_measures_growth_only_between_two_moments(older, newer, expected):
    assert per_second(older, newer) == expected


def test_it_leaves_a_total_unknown_while_a_part_of_it_is():
    assert total_or_none([1, 2]) == 3
    assert total_or_none([1, None]) is None
    assert total_or_none([]) is None
    assert longest_or_none([0.5, 2.0]) == 2.0
    assert longest_or_none([0.5, None]) is None
