"""Batches become exact counts, and bad records are set apart whole."""

import base64
import json
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.aggregation import DecodingOptions, combine, decode
from analytics.dimensions import EVENT_TYPES
from analytics.event_time import ImplausibleTimes
from offsets.types import Claim, PartitionCommit, RecordBatch
from tests.support.records import CLAIM, HOUR, START, START_MINUTE, Record, event

OPTIONS = DecodingOptions(max_bytes=1024, time_tolerance_seconds=3600)


def batch(records: list[Record], start: int = 0, claim: Claim = CLAIM) -> RecordBatch:
    end = records[-1].at + 1 if records else start + 5
    return RecordBatch(claim, start, end, records, 0)


def decoded_rows(commit: PartitionCommit) -> Counter[tuple[int, int, str]]:
    """The COPY bytes, read back by PostgreSQL's format: (dimension, entity, type) → count."""
    rows: Counter[tuple[int, int, str]] = Counter()
    form = struct.Struct(">h iq ih iq" + " iq" * 4)
    data = commit.work.delta_rows
    assert len(data) == form.size * commit.work.delta_count
    for fields, *values in form.iter_unpack(data):
        lengths, numbers = values[::2], values[1::2]
        assert (fields, lengths) == (7, [8, 2, 8, 8, 8, 8, 8])
        assert numbers[0] == 42
        for name, count in zip(EVENT_TYPES, numbers[3:], strict=True):
            rows[(numbers[1], numbers[2], name)] += count
    return +rows


events = st.tuples(
    st.sampled_from(EVENT_TYPES), st.integers(0, 3), st.integers(2**63 - 3, 2**63 - 1), st.integers(9, 11)
)
maybe_events = st.one_of(events, events, st.none())


@settings(deadline=None)
@given(st.lists(st.lists(maybe_events, max_size=8), min_size=1, max_size=4))
def test_it_counts_like_a_plain_loop(batches: list[list[tuple[str, int, int, int] | None]]) -> None:
    """None stands for a poisoned record."""
    entities: Counter[tuple[int, int, str]] = Counter()
    by_minute: Counter[int] = Counter()
    decoded, offset, poisoned = [], 0, []
    for rows in batches:
        records, start = [], offset
        for row in rows:
            records.append(Record(offset, b"poison" if row is None else event(*row[:3], at=START + row[3] * HOUR)))
            if row is None:
                poisoned.append(offset)
            else:
                entities[(1, row[2], row[0])] += 1
                entities[(2, row[1], row[0])] += 1
                by_minute[START_MINUTE + row[3] * 60] += 1
            offset += 2  # compacted logs have holes
        one = batch(records, start)
        decoded.append(decode(one, OPTIONS))
        offset = one.end
    commit = combine(decoded)
    assert decoded_rows(commit) == entities
    assert {row[0]: sum(row[1:]) for row in commit.work.minutes.tolist()} == by_minute
    assert [one.offset for one in commit.failures] == poisoned
    assert (commit.stats.records, commit.stats.failed_records) == (by_minute.total(), len(poisoned))
    assert sum(commit.stats.by_type.values()) == by_minute.total()
    assert (commit.start, commit.end) == (0, offset)


@pytest.mark.parametrize(("dimensions", "kept"), [(("content",), {1}), (("user",), {2}), ((), set())])
def test_it_keeps_the_dimensions_frozen_on_the_checkpoint(dimensions: tuple[str, ...], kept: set[int]) -> None:
    claim = Claim(42, "t", 0, 1, 0, dimensions)
    commit = combine([decode(batch([Record(0, event("like", 1, 2))], claim=claim), OPTIONS)])
    assert {dimension for dimension, _, _ in decoded_rows(commit)} == kept
    assert commit.work.minutes.tolist() == [[START_MINUTE + 600, 0, 1, 0, 0]]


def test_it_sets_bad_records_apart_whole() -> None:
    named: list[tuple[str, bytes | None]] = [("trace\x00", b"\x00\xff"), ("none", None)]
    decoded = decode(batch([Record(7, b"\x00bad", named=named)]), OPTIONS)
    (failure,) = decoded.failures
    assert (failure.offset, failure.key, failure.value) == (7, b"key", b"\x00bad")
    assert failure.error_code == "malformed"
    assert json.loads(failure.headers) == [["trace\x00", base64.b64encode(b"\x00\xff").decode()], ["none", None]]
    assert failure.timestamp_ms == START + 10 * HOUR


def test_it_counts_implausible_times_of_counted_events() -> None:
    late = START + 11 * HOUR
    records = [
        Record(0, event("view", 1, 2, at=late)),
        Record(1, event("view", 1, 2, at=late // 1000)),
        Record(2, event("view", 1, 2, at=late), time=late // 1000),
        Record(3, b"poison", time=late // 1000),
    ]
    options = DecodingOptions(1024, 3600, now=lambda: late / 1000)
    commit = combine([decode(batch(records[:2]), options), decode(batch(records[2:], 2), options)])

    assert commit.work.implausible == (
        ImplausibleTimes("event", "seconds", 1),
        ImplausibleTimes("record", "seconds", 1),
    )
    # The second counts in its record's minute.
    assert commit.work.minutes.tolist() == [[START_MINUTE + 600, 1, 0, 0, 0], [START_MINUTE + 660, 2, 0, 0, 0]]


def test_it_commits_a_stretch_without_records() -> None:
    commit = combine([decode(batch([]), OPTIONS)])
    assert (commit.start, commit.end, commit.stats.records, commit.work.delta_count) == (0, 5, 0, 0)
