"""The decoding thread: fetched batches in, units for the commit thread out, when the commit policy says so."""

import logging
from collections.abc import Callable
from dataclasses import replace

from django.conf import settings

from offsets.clock import monotonic
from offsets.dedup import BatchPiece, LedgerCutter
from offsets.pipeline import Event, Pending, Pipeline, Unit
from offsets.policies import CommitPolicy, Progress
from offsets.sessions import WorkerSession
from offsets.types import BatchHandler, BatchStats, Claim, DecodedBatch, RangeKind, RecordBatch, Semantics

logger = logging.getLogger(__name__)

#: Past the due time the commit thread is busy: look again this soon, but do not spin.
LOOK_AGAIN_SECONDS = 0.02


class Decoder:
    """Cuts each batch at what the ledger knows, decodes it, and holds it until it is due. One thread runs it.

    `is_current(claim)` tells what is still this process's to count; `on_trouble(source, text)` hears of what is wrong.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        handler: BatchHandler,
        policy: CommitPolicy,
        session: WorkerSession,
        semantics: Semantics,
        *,
        is_current: Callable[[Claim], bool],
        on_trouble: Callable[[str, str], None],
    ) -> None:
        self._pipeline = pipeline
        self._handler = handler
        self._policy = policy
        self._is_current = is_current
        self._cutter = LedgerCutter(
            session,
            semantics,
            wanted=lambda batch: not pipeline.closed and is_current(batch.claim),
            wait=pipeline.wait,
            on_trouble=lambda text: on_trouble("ledger", text),
        )
        self._pending: dict[int, Pending] = {}
        self._oldest = 0.0
        #: Claims under which the handler failed: what follows cannot be counted before that.
        self._broken: set[Claim] = set()

    def run(self) -> None:
        interval = settings.COMMIT_INTERVAL_MS / 1000
        while not self._pipeline.closed:
            wait = max(LOOK_AGAIN_SECONDS, self._oldest + interval - monotonic()) if self._pending else interval
            batch = self._pipeline.take_batch(wait)
            if batch is not None:
                if not self._pending:
                    self._oldest = monotonic()
                self._take(batch)
            if self._pending and self._due():
                self._hand_over()

    def _take(self, batch: RecordBatch) -> None:
        claim = batch.claim
        held = self._pending.get(claim.checkpoint_id)
        decoded = self._decoded(batch)
        if decoded is None:
            self._pipeline.finish(claim.checkpoint_id, 1, len(batch.records), batch.size_bytes)
            return
        pieces, dropped = decoded
        if held is not None and held.claim.epoch != claim.epoch:
            self._drop(self._pending.pop(claim.checkpoint_id))
            held = None
        self._pipeline.decoded(batch, [one for one, _ in pieces])
        if held is None:
            held = self._pending[claim.checkpoint_id] = Pending(claim)
        held.add(batch, pieces, dropped)

    def _decoded(self, batch: RecordBatch) -> tuple[list[tuple[DecodedBatch, RangeKind | None]], int] | None:
        """The batch in decoded pieces, and how many records were left out; None where it is not to be counted."""
        if batch.claim in self._broken or not self._is_current(batch.claim):
            return None
        pieces = self._cutter.pieces(batch)
        if not pieces:
            return None
        try:
            return [(self._decode(piece), piece.found) for piece in pieces], sum(piece.dropped for piece in pieces)
        except Exception as error:
            # A handler may not raise. If it does, its partition waits and says why; the others go on.
            logger.exception("The handler failed on %s [%d, %d).", batch.claim.topic_partition, batch.start, batch.end)
            self._broken = {claim for claim in self._broken if self._is_current(claim)} | {batch.claim}
            detail = f"the handler failed: {type(error).__name__}: {error}"
            self._pipeline.events.append(Event(batch.claim, "refused", batch.start, batch.end, detail))
            return None

    def _decode(self, piece: BatchPiece) -> DecodedBatch:
        started = monotonic()
        decoded = self._handler.decode(piece.batch)
        return replace(decoded, stats=replace(decoded.stats, decode_seconds=monotonic() - started))

    # --- When to commit ----------------------------------------------------------------------------

    def _due(self) -> bool:
        fetched = sum(held.records for held in self._pending.values())
        if fetched >= settings.COMMIT_MAX_RECORDS or self._pipeline.flush_wanted():
            return True
        # While the commit thread is busy a short wait costs less than a small unit.
        return self._policy.due(self._progress(fetched)) and self._pipeline.can_take_unit()

    def _progress(self, fetched: int) -> Progress:
        stats = BatchStats()
        for held in self._pending.values():
            stats += held.stats
        spans = {h.claim.topic_partition: (h.batches[0].start, h.batches[-1].end) for h in self._pending.values()}
        return Progress(stats, monotonic() - self._oldest, fetched, spans)

    def _hand_over(self) -> None:
        pending, self._pending = self._pending, {}
        unit: Unit = []
        for held in pending.values():
            if self._is_current(held.claim):
                commit = self._handler.combine(held.batches)
                unit.append((held, replace(commit, segments=tuple(held.segments))))
            else:
                self._drop(held)
        if unit:
            self._pipeline.put_unit(unit)

    def _drop(self, held: Pending) -> None:
        self._pipeline.finish(held.claim.checkpoint_id, held.fetched, held.records, held.kept_bytes)
