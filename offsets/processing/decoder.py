"""The decoding thread: fetched batches in, units for the commit thread out, when the commit policy says so."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from django.conf import settings

from offsets.clock import monotonic
from offsets.database import DATABASE_LOST, NOT_THE_BATCH, WorkerSession
from offsets.errors import OffsetsError
from offsets.failures import decode_apart
from offsets.policies import CommitPolicy, Progress
from offsets.processing.deduplication import BatchPiece, LedgerCutter
from offsets.processing.pipeline import Event, EventKind, Pending, Pipeline, Unit, failure_bytes
from offsets.processing.stuck_detector import Activities
from offsets.text import describe_error
from offsets.types import (
    BatchHandler,
    BatchStats,
    Claim,
    DecodedBatch,
    OffsetSpan,
    PartitionCommit,
    RangeKind,
    RecordBatch,
    Semantics,
)

logger = logging.getLogger(__name__)

#: How often the policy is asked while nothing is fetched; time passes for it too.
ASK_SECONDS = 0.02
IDLE_SECONDS = 1.0


class Decoder:
    """Cuts each batch at what the ledger knows, decodes it, and holds it until it is due. One thread runs it.

    `is_current(claim)` returns whether a claim is still this process's; `on_trouble(source, text)` is called with what
    keeps a batch waiting, and with "" when that is over.
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
        activities: Activities | None = None,
    ) -> None:
        self._activities = activities or Activities()
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
        # The sums over `_pending`, kept up batch by batch: summing them each time the policy is asked would cost more
        # than counting, where batches are small.
        self._stats = BatchStats()
        self._records = 0
        self._kept_bytes = 0
        self._oldest = 0.0
        #: Claims under which the handler failed: what follows cannot be counted before that.
        self._broken: set[Claim] = set()

    def run(self) -> None:
        while not self._pipeline.closed:
            batch = self._pipeline.take_batch(ASK_SECONDS if self._pending else IDLE_SECONDS)
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
            self._recount()
            held = None
        results = [result for result, _ in pieces]
        self._pipeline.decoded(batch, results)
        self._count(results, len(batch.records))
        if held is None:
            held = self._pending[claim.checkpoint_id] = Pending(claim)
        held.add(batch, pieces, dropped)

    def _decoded(self, batch: RecordBatch) -> tuple[list[tuple[DecodedBatch, RangeKind | None]], int] | None:
        """The batch in decoded pieces, and the number of records left out; None where it is not to be counted."""
        if batch.claim in self._broken or not self._is_current(batch.claim):
            return None
        pieces = self._cutter.pieces(batch)
        if not pieces:
            return None
        try:
            with self._activities.track(f"decoding {batch.claim.topic_partition} [{batch.start}, {batch.end})"):
                results = [result for piece in pieces for result in self._decode(piece)]
                return results, sum(piece.dropped for piece in pieces)
        except Exception as error:
            # No single record is to blame: the handler fails on an empty batch, too.
            self._refuse(batch.claim, batch.start, batch.end, error)
            return None

    def _refuse(self, claim: Claim, start: int, end: int, error: Exception) -> None:
        """The partition waits and shows why; the others go on."""
        logger.error("The handler failed on %s [%d, %d).", claim.topic_partition, start, end, exc_info=error)
        self._broken = {other for other in self._broken if self._is_current(other)} | {claim}
        detail = f"the handler failed: {describe_error(error)}"
        self._pipeline.events.append(Event(claim, EventKind.REFUSED, start, end, detail))

    def _decode(self, piece: BatchPiece) -> Iterator[tuple[DecodedBatch, RangeKind | None]]:
        """In one piece, or in several where a record made the handler fail (R11)."""
        started = monotonic()
        for decoded in decode_apart(self._handler.decode, piece.batch, never=(OffsetsError, *DATABASE_LOST)):
            seconds, started = monotonic() - started, monotonic()
            offsets = {decoded.claim.topic_partition: OffsetSpan(decoded.start, decoded.end)}
            yield replace(decoded, stats=replace(decoded.stats, decode_seconds=seconds, offsets=offsets)), piece.found

    def _count(self, decoded: Iterable[DecodedBatch], records: int) -> None:
        self._records += records
        for result in decoded:
            self._stats += result.stats
            self._kept_bytes += failure_bytes(result)

    def _recount(self) -> None:
        self._stats, self._records, self._kept_bytes = BatchStats(), 0, 0
        for held in self._pending.values():
            self._count(held.batches, held.records)

    # --- When to commit ----------------------------------------------------------------------------

    def _due(self) -> bool:
        # Memory first, also while the commit thread is busy. Dead letters are kept whole, and may fill half of the
        # pipeline: more, and nothing would be fetched that could ask the policy again.
        if self._records >= settings.COMMIT_MAX_RECORDS or self._kept_bytes >= settings.PIPELINE_MAX_BYTES // 2:
            return True
        if self._pipeline.flush_wanted():
            return True
        # While the commit thread is busy a short wait costs less than a small unit.
        return self._pipeline.can_take_unit() and self._policy.due(
            Progress(self._stats, monotonic() - self._oldest, self._records)
        )

    def _hand_over(self) -> None:
        pending, self._pending = self._pending, {}
        self._recount()
        unit: Unit = []
        for held in pending.values():
            commit = self._combined(held) if self._is_current(held.claim) else None
            if commit is None:
                self._drop(held)
            else:
                unit.append((held, commit))
        if unit:
            self._pipeline.put_unit(unit)

    def _combined(self, held: Pending) -> PartitionCommit | None:
        """None where a service that the handler needs is away: the partition is claimed again later."""
        first, last = held.batches[0], held.batches[-1]
        try:
            with self._activities.track(f"combining {held.claim.topic_partition} [{first.start}, {last.end})"):
                return self._combine(held)
        except NOT_THE_BATCH as error:
            self._refuse(held.claim, first.start, last.end, error)
            return None
        except Exception as error:
            logger.exception(
                "The handler cannot combine %s [%d, %d).", held.claim.topic_partition, first.start, last.end
            )
            return PartitionCommit(
                *(held.claim, first.start, last.end, BatchStats(), (), None, last.leader_epoch),
                segments=tuple(held.segments),
                refusal=describe_error(error),
            )

    def _combine(self, held: Pending) -> PartitionCommit:
        started = monotonic()
        commit = self._handler.combine(held.batches)
        seconds, measured = monotonic() - started, held.stats
        stats = replace(
            commit.stats,
            decode_seconds=measured.decode_seconds,
            combine_seconds=seconds,
            offsets=measured.offsets,
        )
        return replace(commit, stats=stats, segments=tuple(held.segments))

    def _drop(self, held: Pending) -> None:
        self._pipeline.finish(held.claim.checkpoint_id, held.fetched, held.records, held.kept_bytes)
