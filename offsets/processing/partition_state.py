"""What a worker's process knows of the partitions that it owns. Pure."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from offsets.errors import LedgerConflictError
from offsets.processing.pipeline import RECORD_OVERHEAD_BYTES
from offsets.types import Claim, KafkaRecord, RecordBatch


@dataclass(slots=True)
class LocalPartition:
    """What this process knows of a partition it owns. Only the fetching thread changes it."""

    claim: Claim
    #: Where the next fetched batch starts.
    start: int
    #: Committed as far as this process has seen.
    committed: int
    #: The last answered request of the operator to mirror again; None before the first look.
    mirror_requests: int | None = None
    operator_paused: bool = False
    halted: bool = False

    @property
    def reading(self) -> bool:
        return not (self.operator_paused or self.halted)

    def take(self, records: Sequence[KafkaRecord], position: int | None) -> RecordBatch | None:
        """The next batch: `records`, and the offsets without a record up to the client's position (R7).

        None when there is nothing new. Raises LedgerConflictError for a record that was taken before.
        """
        start = self.start
        if records and records[0].offset() < start:
            offset = records[0].offset()
            raise LedgerConflictError(f"{self.claim.topic_partition}: offset {offset} arrived again after {start}")
        end = max(records[-1].offset() + 1 if records else start, start if position is None else position)
        if end <= start:
            return None
        self.start = end
        size_bytes = sum(map(len, records)) + RECORD_OVERHEAD_BYTES * len(records)
        return RecordBatch(self.claim, start, end, records, size_bytes)


@dataclass(slots=True)
class Fences:
    """The current epoch of each owned checkpoint, shared with the other threads: what they hold against it is stale
    when it differs (R8). Written by the fetching thread only.
    """

    _epochs: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_current(self, claim: Claim) -> bool:
        with self._lock:
            return self._epochs.get(claim.checkpoint_id) == claim.epoch

    def raise_to(self, claim: Claim) -> None:
        with self._lock:
            self._epochs[claim.checkpoint_id] = claim.epoch

    def drop(self, claim: Claim) -> None:
        with self._lock:
            self._epochs.pop(claim.checkpoint_id, None)
