"""Cut batches against sets of offsets: no record is lost, moved or kept where it was counted before."""

from hypothesis import given
from hypothesis import strategies as st

from offsets.processing.deduplication import split
from offsets.ranges import KnownRange, OffsetRange, cut
from offsets.types import Claim, RangeKind, RecordBatch
from tests.unit.test_aggregation import Record

CLAIM = Claim(1, "t", 0, 1, 0)


@st.composite
def batches(draw: st.DrawFn) -> RecordBatch:
    """A batch with holes anywhere, and perhaps nothing but holes."""
    start = draw(st.integers(0, 20))
    end = draw(st.integers(start + 1, 40))
    offsets = sorted(draw(st.sets(st.integers(start, end - 1))))
    records = [Record(n, bytes(n % 5)) for n in offsets]
    return RecordBatch(CLAIM, start, end, records, sum(map(len, records)))


@st.composite
def ledgers(draw: st.DrawFn) -> list[KnownRange]:
    """Disjoint ranges, some of which touch."""
    at, known = 0, []
    for gap, size, kind in draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.sampled_from(RangeKind)), max_size=8)
    ):
        known.append(KnownRange(at + gap, at + gap + size, kind))
        at += gap + size
    return known


@given(batches(), ledgers(), st.booleans())
def test_it_keeps_every_record_but_those_counted_before(
    batch: RecordBatch, known: list[KnownRange], subtract: bool
) -> None:
    words = {n: one.kind for one in known for n in range(one.start, one.end)}
    pieces = split(batch, cut(OffsetRange(batch.start, batch.end), known), subtract=subtract)
    kept = [record for piece in pieces for record in piece.batch.records]
    dropped = [r for r in batch.records if subtract and words.get(r.offset()) is RangeKind.PROCESSED]
    assert kept == [record for record in batch.records if record not in dropped]
    assert sum(piece.dropped for piece in pieces) == len(dropped)
    assert sum(piece.batch.size_bytes for piece in pieces) == sum(map(len, kept))
    for piece in pieces:
        assert piece.batch.claim is batch.claim
        assert {words.get(n) for n in range(piece.batch.start, piece.batch.end)} == {piece.found}
        assert all(piece.batch.start <= record.offset() < piece.batch.end for record in piece.batch.records)


@given(batches(), ledgers())
def test_it_covers_the_batch_without_a_gap(batch: RecordBatch, known: list[KnownRange]) -> None:
    pieces = split(batch, cut(OffsetRange(batch.start, batch.end), known), subtract=True)
    covered = [n for piece in pieces for n in range(piece.batch.start, piece.batch.end)]
    assert covered == list(range(batch.start, batch.end))
