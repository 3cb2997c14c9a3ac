"""Cut batches against sets of offsets: no record is lost, moved or kept where it was counted before."""

from hypothesis import given
from hypothesis import strategies as st

from offsets.processing.deduplication import split
from offsets.ranges import KnownRange, OffsetRange, cut
from offsets.types import Claim, RangeKind, RecordBatch
from tests.support.records import batches, ledgers

CLAIM = Claim(1, "t", 0, 1, 0)


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
