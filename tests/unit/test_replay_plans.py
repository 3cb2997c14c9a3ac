"""What a replay would do, offset by offset; ranges as people write them; when a failed range is tried again."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.actions.move_plans import Bounds
from offsets.errors import RefusedError
from offsets.ranges import KnownRange, OffsetRange
from offsets.replays.plans import ReplayPlan, checked_range, parse_range, plan_replay, refuse_overlap, retry_seconds
from offsets.types import RangeKind
from tests.support.records import ledgers

P, F, S, E, C = (
    RangeKind.PROCESSED,
    RangeKind.FAILED,
    RangeKind.SKIPPED,
    RangeKind.EXPIRED,
    RangeKind.CLAIMED,
)


def plan(
    start: int,
    end: int,
    *known: tuple[int, int, RangeKind],
    next_offset: int = 100,
    log_start: int = 0,
    log_end: int = 100,
) -> ReplayPlan:
    ranges = [KnownRange(*one) for one in known]
    return plan_replay("t-0", OffsetRange(start, end), ranges, next_offset, Bounds(log_start, log_end))


def ranges(limit: int = 60) -> st.SearchStrategy[OffsetRange]:
    pairs = st.tuples(st.integers(0, limit), st.integers(1, limit))
    return pairs.map(lambda pair: OffsetRange(pair[0], pair[0] + pair[1]))


@given(ranges(), ledgers(), st.integers(0, 70), st.integers(0, 50), st.integers(0, 50))
def test_every_offset_is_in_exactly_one_of_the_numbers(
    wanted: OffsetRange, known: list[KnownRange], next_offset: int, log_start: int, kept: int
) -> None:
    log_end = max([log_start + kept, *(one.end for one in known)])  # nothing was counted that Kafka never had
    made = plan_replay("t-0", wanted, known, next_offset, Bounds(log_start, log_end))
    words = {n: one.kind for one in known for n in range(one.start, one.end)}
    numbers: Counter[str] = Counter()
    worth_reading = []
    for n in range(wanted.start, wanted.end):
        kind = words.get(n)
        if kind is None:
            numbers["not_read_yet" if n >= next_offset else "outside"] += 1
        elif kind is P:
            numbers["deduplicated"] += 1
        elif n < log_start:
            numbers["expired"] += 1
        else:
            numbers[kind.value] += 1
        if kind is not None and n >= log_start:
            worth_reading.append(n)
    # Expired offsets that Kafka does have are counted like any other.
    told = Counter(
        {
            "not_read_yet": made.not_read_yet,
            "outside": made.outside,
            "deduplicated": made.deduplicated,
        }
    )
    told["expired"] += made.expired
    told.update(made.to_count)
    assert +told == +numbers
    assert told.total() == wanted.size
    assert made.counted == sum(made.to_count.values())
    assert all(made.to_count.values()), "what is nothing is not named"
    if worth_reading:
        assert made.readable == (worth_reading[0], worth_reading[-1] + 1)
    else:
        assert made.readable is None


def test_it_counts_by_kind_and_leaves_out_what_is_counted() -> None:
    made = plan(0, 100, (0, 20, P), (20, 30, F), (30, 35, S), (35, 90, P), (90, 100, C))
    assert (made.to_count, made.deduplicated) == ({"failed": 10, "skipped": 5, "claimed": 10}, 75)
    assert made.readable == (0, 100)
    assert made.text == (
        "Replay t-0 [0, 100): 25 offsets are counted (10 claimed, 10 failed, 5 skipped); 75 are already counted. "
        "The live offset does not move."
    )


def test_it_leaves_to_the_live_worker_what_it_has_not_read() -> None:
    made = plan(80, 200, (0, 90, P), (90, 100, F), log_end=150)
    assert (made.readable, made.counted, made.not_read_yet) == ((80, 100), 10, 100)
    assert "100 are ahead of the live worker" in made.text


def test_it_reads_past_a_live_offset_that_was_moved_back_as_far_as_the_ledger_reaches() -> None:
    made = plan(0, 100, (0, 50, P), (50, 60, F), (60, 80, P), next_offset=20)
    assert (made.readable, made.to_count, made.not_read_yet) == ((0, 80), {"failed": 10}, 20)


def test_it_says_what_is_gone_and_what_was_never_the_groups() -> None:
    made = plan(0, 40, (10, 20, P), (20, 40, F), log_start=30)
    assert (made.readable, made.expired, made.deduplicated, made.outside) == ((30, 40), 10, 10, 10)
    assert "10 are no longer in Kafka and cannot be replayed" in made.text
    assert "10 are before the group's baseline" in made.text


def test_there_is_nothing_to_read_where_the_ledger_knows_nothing_or_kafka_has_nothing() -> None:
    below = plan(0, 40, (50, 100, P))
    assert (below.readable, below.outside) == (None, 40)
    ahead = plan(100, 140, (50, 100, P), log_end=140)
    assert (ahead.readable, ahead.not_read_yet) == (None, 40)
    gone = plan(0, 40, (0, 40, F), log_start=40)
    assert (gone.readable, gone.expired) == (None, 40)
    assert "no offsets left to count" in gone.text


def test_its_json_has_every_number() -> None:
    made = plan(0, 120, (10, 20, P), (20, 40, F), (40, 100, S), log_start=30, log_end=130)
    assert made.as_json() == {
        "start": 0,
        "end": 120,
        "to_count": 70,
        "by_kind": {"failed": 10, "skipped": 60},
        "deduplicated": 10,
        "expired": 10,
        "not_read_yet": 20,
        "outside": 10,
    }


# --- Ranges and overlaps --------------------------------------------------------------------------


@given(ranges(2**40))
def test_a_range_is_read_as_it_is_written(one: OffsetRange) -> None:
    assert parse_range(f"{one.start}-{one.end}") == one


@pytest.mark.parametrize(
    "text",
    ["", "-", "5", "5-", "-5", "5-6-7", "a-b", "5 - 6", " 5-6", "+5-6", "5--6", "1_0-20", "٣-٤", "0x1-0x2", "1e3-2e3",
     "5.0-6", f"0-{'9' * 19}", f"0-{'9' * 5000}"],
)  # fmt: skip
def test_what_is_no_range_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(RefusedError, match=r"Use START-END with an exclusive end, e\.g\. 1000-2000"):
        parse_range(text)


@pytest.mark.parametrize("text", ["5-5", "6-5", "0-0"])
def test_a_range_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="must start at 0 or later, and not be empty"):
        parse_range(text)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5), (0, 2**62 + 1), (2**80, 2**81)])
def test_numbers_that_no_offset_can_be_are_refused(start: int, end: int) -> None:
    with pytest.raises(RefusedError, match=re.escape(f"Invalid range [{start}, {end})")):
        checked_range(start, end)
    assert checked_range(0, 2**62) == (0, 2**62)


@given(ranges(), st.lists(ranges(), max_size=4))
def test_an_overlap_is_refused_exactly_where_an_offset_is_in_both(
    wanted: OffsetRange, others: list[OffsetRange]
) -> None:
    mine = set(range(wanted.start, wanted.end))
    shared = [n for n, one in enumerate(others) if mine & set(range(one.start, one.end))]
    active = list(enumerate(others))
    if not shared:
        refuse_overlap("t-0", wanted, active)
        return
    named = f"t-0 {wanted} overlaps {others[shared[0]]} of replay {shared[0]}, which is active. Wait, or cancel it."
    with pytest.raises(RefusedError, match=re.escape(named)):
        refuse_overlap("t-0", wanted, active)


# --- Retries --------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.floats(0.1, 100), st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_each_attempt_waits_twice_as_long_up_to_an_hour_and_then_for_a_person(
    attempts: int, first: float, limit: int, jitter: float
) -> None:
    seconds = retry_seconds(attempts, first, limit, jitter)
    if attempts >= limit:
        assert seconds is None
        return
    assert seconds is not None
    plain = min(3600.0, first * 2**attempts)
    assert retry_seconds(attempts, first, limit, 0.0) == plain
    assert plain <= seconds <= plain * 1.25


def test_the_waits_of_the_default_settings() -> None:
    assert [retry_seconds(n, 1.0, 8, 0.0) for n in range(1, 9)] == [2, 4, 8, 16, 32, 64, 128, None]
    assert retry_seconds(20, 1.0, 50, 0.0) == 3600
