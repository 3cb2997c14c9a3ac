"""Records that cannot be counted are kept whole, and halving finds exactly them."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.failures import HANDLER_FAILED, decode_apart, failure_of, halves, set_apart
from offsets.types import BatchStats, DecodedBatch, RecordBatch
from tests.support.records import CLAIM, Record, batches


class Untold(Record):
    """A record of which the client knows neither time nor headers."""

    def timestamp(self) -> tuple[int, int]:
        return (0, -1)

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None


class Hostile(Record):
    def headers(self) -> list[tuple[str, bytes | None]] | None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def choking_on(bad: set[int]) -> Callable[[RecordBatch], DecodedBatch]:
    """A decoder that raises on every batch that holds one of these offsets."""

    def decode(batch: RecordBatch) -> DecodedBatch:
        offsets = [record.offset() for record in batch.records]
        if bad & set(offsets):
            raise ZeroDivisionError(f"cannot bear {sorted(bad & set(offsets))[0]}")
        stats = BatchStats(len(offsets), 0, batch.size_bytes)
        return DecodedBatch(batch.claim, batch.start, batch.end, stats, [], offsets)

    return decode


def test_it_keeps_a_record_whole() -> None:
    named: list[tuple[str, bytes | None]] = [("trace\x00", b"\x00\xff"), ("none", None)]
    failure = failure_of(Record(7, b"\x00bad", time=1234, named=named), "code", "why")
    assert (failure.offset, failure.key, failure.value, failure.timestamp_ms) == (7, b"key", b"\x00bad", 1234)
    assert (failure.error_code, failure.error_detail) == ("code", "why")
    assert json.loads(failure.headers) == [["trace\x00", base64.b64encode(b"\x00\xff").decode()], ["none", None]]


def test_it_keeps_what_is_unknown_unknown() -> None:
    failure = failure_of(Untold(7, None), "code", "why")
    assert (failure.value, failure.timestamp_ms, failure.headers) == (None, None, b"[]")


def test_it_says_so_when_headers_cannot_be_read_and_keeps_the_rest() -> None:
    failure = failure_of(Hostile(7, b"value"), "code", "why.")
    assert (failure.value, failure.headers) == (b"value", b"[]")
    assert failure.error_detail.startswith("why. Its headers could not be read: ")
    assert "invalid start byte" in failure.error_detail


def test_its_words_can_be_stored_whatever_the_handler_says() -> None:
    """PostgreSQL refuses NUL and half a surrogate pair; the record would be refused for the words about it."""
    failure = failure_of(Record(7, b"x"), "code", "no type '\ud83d' nor \x00, but é")
    assert failure.error_detail == r"no type '\ud83d' nor \0, but é"


def test_it_sets_all_of_a_batch_apart_and_counts_nothing_of_it() -> None:
    batch = RecordBatch(CLAIM, 3, 20, [Record(5, b"ab"), Record(9, b"c")], 3)
    apart = set_apart(choking_on({5, 9}), batch, "code", "why")
    assert (apart.claim, apart.start, apart.end, apart.work) == (CLAIM, 3, 20, [])
    assert [one.offset for one in apart.failures] == [5, 9]
    assert apart.stats == BatchStats(0, 2, 3)


@given(batches().filter(lambda one: len(one.records) > 1))
def test_halves_are_the_batch_in_order_without_a_gap(batch: RecordBatch) -> None:
    first, second = halves(batch)
    assert (first.start, first.end, second.end) == (batch.start, second.start, batch.end)
    assert [*first.records, *second.records] == batch.records
    assert abs(len(first.records) - len(second.records)) <= 1
    assert first.size_bytes + second.size_bytes == batch.size_bytes
    for half in (first, second):
        assert half.start < half.end
        assert all(half.start <= record.offset() < half.end for record in half.records)


@given(batches(), st.sets(st.integers(0, 40)))
def test_every_record_ends_in_one_piece_and_exactly_the_bad_ones_failed(batch: RecordBatch, bad: set[int]) -> None:
    pieces = list(decode_apart(choking_on(bad), batch))
    offsets = [record.offset() for record in batch.records]
    assert (pieces[0].start, pieces[-1].end) == (batch.start, batch.end)
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    failed = [failure.offset for piece in pieces for failure in piece.failures]
    assert failed == [n for n in offsets if n in bad]
    assert [n for piece in pieces for n in piece.work] == [n for n in offsets if n not in bad]
    assert sum(piece.stats.all_records for piece in pieces) == len(offsets)
    assert sum(piece.stats.size_bytes for piece in pieces) == batch.size_bytes
    for piece in pieces:
        within = [*piece.work, *(failure.offset for failure in piece.failures)]
        assert all(piece.start <= n < piece.end for n in within)
        assert {failure.error_code for failure in piece.failures} <= {HANDLER_FAILED}
        assert all(f"cannot bear {f.offset}" in f.error_detail for f in piece.failures)


@given(batches())
def test_a_batch_that_decodes_is_decoded_once(batch: RecordBatch) -> None:
    asked = []

    def decode(one: RecordBatch) -> DecodedBatch:
        asked.append(one)
        return choking_on(set())(one)

    assert len(list(decode_apart(decode, batch))) == 1
    assert asked == [batch]


def test_errors_that_are_no_fault_of_the_data_come_out_at_once() -> None:
    asked = []

    def decode(one: RecordBatch) -> DecodedBatch:
        asked.append(one)
        raise ConnectionError("the schema registry is away")

    batch = RecordBatch(CLAIM, 0, 4, [Record(n, b"x") for n in range(4)], 4)
    with pytest.raises(ConnectionError, match="registry"):
        list(decode_apart(decode, batch, (ConnectionError, KeyError)))
    assert asked == [batch], "it may not be halved"


def test_a_decoder_that_chokes_on_nothing_at_all_is_not_the_datas_fault() -> None:
    def decode(one: RecordBatch) -> DecodedBatch:
        raise RuntimeError("not configured")

    for records in ([], [Record(0, b"x")], [Record(n, b"x") for n in range(5)]):
        with pytest.raises(RuntimeError, match="not configured"):
            list(decode_apart(decode, RecordBatch(CLAIM, 0, 5, records, len(records))))
