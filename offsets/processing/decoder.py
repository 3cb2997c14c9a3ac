"""The decoding thread: fetched batches in, units for the commit thread out, when the commit policy says so."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from django.conf import settings

from offsets.clock import monotonic
from offsets.database import DATABASE_LOST, NOT_THE_BATCH, WorkerSession
from offsets.errors import OffsetsError
from offsets.failures import decode_apart
from offsets.policies import CommitPolicy, Progress
from offsets.processing.batching import JointCalls, measured
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
        self._joint = JointCalls(handler)
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
            # No more at once than a fetch brings, or a commit takes: the commit policy is asked after them.
            most = min(settings.FETCH_MAX_RECORDS, settings.COMMIT_MAX_RECORDS)
            batches = self._pipeline.take_batches(ASK_SECONDS if self._pending else IDLE_SECONDS, most)
            if batches:
                if not self._pending:
                    self._oldest = monotonic()
                self._take(batches)
            if self._pending and self._due():
                self._hand_over()

    def _take(self, batches: Sequence[RecordBatch]) -> None:
        """Decode fetched batches, together if possible, and hold them."""
        cut = [(batch, self._cut(batch)) for batch in batches]
        joint = self._decode_together([piece for _, pieces in cut for piece in pieces])
        freed = records = 0
        results: list[DecodedBatch] = []
        for batch, pieces in cut:
            decoded = self._decoded(batch, pieces, joint)
            if decoded is None:
                self._pipeline.finish(batch.claim.checkpoint_id, 1, len(batch.records), batch.size_bytes)
                continue
            if self._drop_older(batch.claim):
                records, results = 0, []  # counted with all that is held
            held = self._pending.get(batch.claim.checkpoint_id)
            if held is None:
                held = self._pending[batch.claim.checkpoint_id] = Pending(batch.claim)
            held.add(batch, decoded, sum(piece.dropped for piece in pieces))
            freed += batch.size_bytes - sum(failure_bytes(result) for result, _ in decoded)
            records += len(batch.records)
            results += [result for result, _ in decoded]
        self._count(results, records)
        self._pipeline.release(freed)

    def _drop_older(self, claim: Claim) -> bool:
        """Drop what is held under an earlier claim of the partition. True if there was any: the rest is recounted."""
        held = self._pending.get(claim.checkpoint_id)
        if held is None or held.claim.epoch == claim.epoch:
            return False
        self._drop(self._pending.pop(claim.checkpoint_id))
        self._recount()
        return True

    def _cut(self, batch: RecordBatch) -> list[BatchPiece]:
        """The batch cut at what the ledger knows; empty where it is not to be counted."""
        if batch.claim in self._broken or not self._is_current(batch.claim):
            return []
        return self._cutter.pieces(batch)

    def _decode_together(self, pieces: Sequence[BatchPiece]) -> dict[int, DecodedBatch]:
        """The pieces decoded in one call, by the id of each; empty where that is not possible."""
        with self._activities.track(f"decoding {len(pieces)} batches"):
            decoded = self._joint.decode([piece.batch for piece in pieces])
        return {id(piece): result for piece, result in zip(pieces, decoded, strict=True)} if decoded else {}

    def _decoded(
        self, batch: RecordBatch, pieces: Sequence[BatchPiece], joint: Mapping[int, DecodedBatch]
    ) -> list[tuple[DecodedBatch, RangeKind | None]] | None:
        """The decoded pieces of a batch, from `joint` or each by itself; None where it is not to be counted."""
        if not pieces or batch.claim in self._broken:
            return None
        if joint:
            return [(joint[id(piece)], piece.found) for piece in pieces]
        try:
            with self._activities.track(f"decoding {batch.claim.topic_partition} [{batch.start}, {batch.end})"):
                return [result for piece in pieces for result in self._decode(piece)]
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
            yield measured(decoded, seconds), piece.found

    def _count(self, decoded: Sequence[DecodedBatch], records: int) -> None:
        self._records += records
        self._stats = BatchStats.total([self._stats, *(result.stats for result in decoded)])
        self._kept_bytes += sum(map(failure_bytes, decoded))

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
        wanted = []
        for held in pending.values():
            if self._is_current(held.claim):
                wanted.append(held)
            else:
                self._drop(held)
        joint = self._joint.combine([held.batches for held in wanted])
        unit: Unit = []
        for index, held in enumerate(wanted):
            commit = _completed(held, *joint[index]) if joint else self._combined(held)
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
                *(held.claim, first.start, last.end, BatchStats(), (), None, held.leader_epoch),
                segments=tuple(held.segments),
                refusal=describe_error(error),
            )

    def _combine(self, held: Pending) -> PartitionCommit:
        started = monotonic()
        commit = self._handler.combine(held.batches)
        return _completed(held, commit, monotonic() - started)

    def _drop(self, held: Pending) -> None:
        self._pipeline.finish(held.claim.checkpoint_id, held.fetched, held.records, held.kept_bytes)


def _completed(held: Pending, commit: PartitionCommit, seconds: float) -> PartitionCommit:
    """The combined commit with what was measured, and the ledger's segments."""
    span = OffsetSpan(held.batches[0].start, held.batches[-1].end)
    stats = commit.stats.measured(held.decode_seconds, {held.claim.topic_partition: span}, seconds)
    # The fetching thread knows the epoch of the last offset, also where that is a marker.
    return replace(commit, stats=stats, segments=tuple(held.segments), leader_epoch=held.leader_epoch)
