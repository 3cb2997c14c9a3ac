"""The queues between the threads of a StreamProcessor, what they carry, and the totals.

fetch ── RecordBatch ──▶ decode + combine ── unit of PartitionCommits ──▶ commit

One condition guards all of it: the work per entry is a batch, so the lock is taken some hundred times a second.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from offsets.clock import Deadline, monotonic
from offsets.types import BatchStats, Claim, DecodedBatch, PartitionCommit, RangeKind, RecordBatch, Segment

#: What a fetched message costs beside its payload: the client's message object.
RECORD_OVERHEAD_BYTES = 300


class EventKind(Enum):
    #: The offsets are passed: counted, or quarantined as a failed range.
    COMMITTED = auto()
    FENCED = auto()
    #: The handler or the database refused the data; nothing was written.
    REFUSED = auto()


@dataclass(slots=True)
class Event:
    """The fate of a batch, posted to the fetching thread; the poster never waits for an answer (R8)."""

    claim: Claim
    kind: EventKind
    start: int
    end: int
    detail: str = ""


def failure_bytes(result: DecodedBatch) -> int:
    """What a decoded batch keeps of its messages: those that failed, whole."""
    return sum(RECORD_OVERHEAD_BYTES + len(f.value or b"") + len(f.key or b"") for f in result.failures)


@dataclass(slots=True)
class Pending:
    """Decoded batches of one claim, waiting to become one commit."""

    claim: Claim
    batches: list[DecodedBatch] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    #: Fetched batches; one of them may be decoded in several pieces.
    fetched: int = 0
    #: Records that were left out because the ledger has them.
    dropped: int = 0
    records: int = 0
    kept_bytes: int = 0

    def add(self, batch: RecordBatch, pieces: Sequence[tuple[DecodedBatch, RangeKind | None]], dropped: int) -> None:
        """A fetched batch, decoded piece by piece, with the kind of range that the ledger holds for each."""
        self.fetched += 1
        self.dropped += dropped
        self.records += len(batch.records)
        for decoded, found in pieces:
            self.batches.append(decoded)
            self.kept_bytes += failure_bytes(decoded)
            self._extend(decoded, found)

    @property
    def stats(self) -> BatchStats:
        return sum((batch.stats for batch in self.batches), BatchStats())

    def _extend(self, decoded: DecodedBatch, found: RangeKind | None) -> None:
        start, records, failed = decoded.start, decoded.stats.records, decoded.stats.failed_records
        if self.segments and self.segments[-1].found is found:
            before = self.segments.pop()
            start = before.start
            records += before.records
            failed += before.failed_records
        self.segments.append(Segment(start, decoded.end, found, records, failed))


#: What one transaction applies: for each partition its decoded batches and the commit combined from them.
Unit = list[tuple[Pending, PartitionCommit]]


@dataclass(slots=True)
class Accounts:
    """Totals since the start of the worker, and the batch in hand."""

    records: int = 0
    failed_records: int = 0
    #: Whole batches that became failed ranges.
    failed_batches: int = 0
    size_bytes: int = 0
    commits: int = 0
    fenced: int = 0
    #: Records read again and not counted again, because the ledger had them (R12).
    deduplicated: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    first_fetch_at: float | None = None
    last_commit_at: float | None = None


class Pipeline:
    """The queues between the threads, bounded in bytes and in records.

    A batch is *in flight* from `put` until `finish`; `drain` waits until none of a set of checkpoints is.
    """

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._changed = threading.Condition()
        self._fetched: deque[RecordBatch] = deque()
        self._unit: Unit | None = None
        self._committing = False
        self._closed = False
        self._flush_wanted = 0
        self._in_flight: dict[int, int] = {}
        self._bytes = 0
        self._records = 0
        self._max_bytes = max_bytes
        self._max_records = max_records
        self.events: deque[Event] = deque()
        self.accounts = Accounts()

    # --- Fetching thread ---------------------------------------------------------------------------

    def has_room(self) -> bool:
        with self._changed:
            return self._bytes < self._max_bytes and self._records < self._max_records

    def wait_for_room(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._bytes < self._max_bytes and self._records < self._max_records, seconds
            )

    def put(self, batches: Sequence[RecordBatch]) -> None:
        with self._changed:
            if self.accounts.first_fetch_at is None and batches:
                self.accounts.first_fetch_at = monotonic()
            for batch in batches:
                self._fetched.append(batch)
                self._in_flight[batch.claim.checkpoint_id] = self._in_flight.get(batch.claim.checkpoint_id, 0) + 1
                self._bytes += batch.size_bytes
                self._records += len(batch.records)
            self._changed.notify_all()

    def drain_all(self, deadline: Deadline) -> None:
        """Wait until nothing at all is in flight, or the deadline."""
        with self._changed:
            in_flight = list(self._in_flight)
        self.drain(in_flight, deadline)

    def drain(self, checkpoint_ids: Iterable[int], deadline: Deadline) -> set[int]:
        """Wait until nothing of these checkpoints is in flight, or the deadline. Returns those with nothing left."""
        wanted = set(checkpoint_ids)
        with self._changed:
            self._flush_wanted += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: self._closed or not wanted & self._in_flight.keys(), deadline.remaining_seconds
                )
            finally:
                self._flush_wanted -= 1
            return wanted - self._in_flight.keys()

    def discard_fetched(self) -> None:
        """Drop what is not decoded yet."""
        with self._changed:
            dropped = list(self._fetched)
            self._fetched.clear()
        for batch in dropped:
            self.finish(batch.claim.checkpoint_id, 1, len(batch.records), batch.size_bytes)

    def in_flight(self) -> int:
        """Records fetched and not yet committed or dropped."""
        with self._changed:
            return self._records

    # --- Decoding thread ---------------------------------------------------------------------------

    def take_batch(self, timeout_seconds: float) -> RecordBatch | None:
        """The next fetched batch; None after the timeout, when closed, or when a flush finds nothing queued."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._fetched or (self._flush_wanted and not self._busy()), timeout_seconds
            )
            return self._fetched.popleft() if self._fetched else None

    def _busy(self) -> bool:
        return self._unit is not None or self._committing

    @property
    def closed(self) -> bool:
        return self._closed

    def flush_wanted(self) -> bool:
        with self._changed:
            return self._flush_wanted > 0 and not self._fetched

    def can_take_unit(self) -> bool:
        """Whether the commit thread has nothing to do: then a short wait costs more than a small unit."""
        with self._changed:
            return not self._busy()

    def decoded(self, batch: RecordBatch, results: Iterable[DecodedBatch]) -> None:
        """Account for a decoded batch: its messages are gone, only failures keep their bytes."""
        kept = sum(map(failure_bytes, results))
        with self._changed:
            self._bytes -= batch.size_bytes - kept
            self._changed.notify_all()

    def put_unit(self, unit: Unit) -> None:
        """Hand a unit to the commit thread; waits while it has one."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._unit is None)
            self._unit = unit
            self._changed.notify_all()

    # --- Commit thread -----------------------------------------------------------------------------

    def take_unit(self, timeout_seconds: float) -> Unit | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._unit is not None, timeout_seconds)
            unit, self._unit = self._unit, None
            self._committing = unit is not None
            self._changed.notify_all()
            return unit

    def unit_done(self) -> None:
        with self._changed:
            self._committing = False
            self._changed.notify_all()

    # --- Any thread --------------------------------------------------------------------------------

    def finish(self, checkpoint_id: int, batches: int, records: int, size_bytes: int) -> None:
        """`batches` of a checkpoint are committed or dropped."""
        with self._changed:
            left = self._in_flight.get(checkpoint_id, 0) - batches
            if left > 0:
                self._in_flight[checkpoint_id] = left
            else:
                self._in_flight.pop(checkpoint_id, None)
            self._records -= records
            self._bytes -= size_bytes
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Sleep, but not past `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
