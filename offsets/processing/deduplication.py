"""Cuts fetched batches where the kind of the ledger's ranges changes, so that nothing is counted twice (R12)."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from offsets import ledger
from offsets.clock import Backoff
from offsets.database import DATABASE_LOST, WorkerSession
from offsets.ranges import KnownRange, OffsetRange, cut
from offsets.types import RangeKind, RecordBatch, Semantics


@dataclass(frozen=True, slots=True)
class BatchPiece:
    """A part of a fetched batch; the ledger holds one kind of range there, `found`, or none. `dropped` of its records
    were counted before.
    """

    batch: RecordBatch
    found: RangeKind | None
    dropped: int = 0


def split(batch: RecordBatch, pieces: list[KnownRange], *, subtract: bool) -> list[BatchPiece]:
    """The batch, cut at `pieces`, which cover it. With `subtract`, processed pieces lose their records. Pure."""
    offsets = [record.offset() for record in batch.records]
    parts = []
    for start, end, found in pieces:
        records = batch.records[bisect_left(offsets, start) : bisect_left(offsets, end)]
        drop = subtract and found is RangeKind.PROCESSED
        size = 0 if drop else sum(map(len, records))
        kept = RecordBatch(batch.claim, start, end, [] if drop else records, size)
        parts.append(BatchPiece(kept, found, len(records) if drop else 0))
    return parts


class LedgerCutter:
    """Asks the ledger about batches that begin below its end. Use it from one thread.

    `wanted(batch)` returns whether the batch is still this process's to count; `wait(seconds)` sleeps between tries.
    """

    def __init__(
        self,
        session: WorkerSession,
        semantics: Semantics,
        *,
        wanted: Callable[[RecordBatch], bool],
        wait: Callable[[float], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._session = session
        self._semantics = semantics
        self._wanted = wanted
        self._wait = wait
        self._on_trouble = on_trouble

    def pieces(self, batch: RecordBatch) -> list[BatchPiece]:
        """The batch in pieces; whole, without a query, past the ledger's end. Empty when it is not wanted any more."""
        if batch.start >= batch.claim.ledger_end:
            return [BatchPiece(batch, None)]
        within = OffsetRange(batch.start, batch.end)
        backoff = Backoff()
        while self._wanted(batch):
            try:
                with self._session.transaction():
                    known = ledger.known_ranges(batch.claim.checkpoint_id, within)
            except DATABASE_LOST as error:
                self._on_trouble(f"database: {' '.join(str(error).split())}")
                self._wait(backoff.next_seconds())
            else:
                self._on_trouble("")
                return split(batch, cut(within, known), subtract=self._semantics.subtracts)
        return []
