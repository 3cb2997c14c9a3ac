"""What a worker's process knows of the partitions that it owns. Pure."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from offsets.errors import LedgerConflictError
from offsets.processing.pipeline import RECORD_OVERHEAD_BYTES
from offsets.types import Claim, KafkaRecord, Position, RecordBatch


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
    #: Whether the client reads it under this claim. Before that its position may be one of an earlier claim.
    started: bool = False
    #: The leader epoch of what was read last, which a broker compares with its log; None: unknown.
    leader_epoch: int | None = None

    @property
    def held(self) -> bool:
        return self.operator_paused or self.halted

    @property
    def reading(self) -> bool:
        return self.started and not self.held

    def may_start(self, position: Position | None) -> bool:
        """Whether reading can begin: wanted, not begun, and the client has forgotten any earlier position."""
        return position is None and not self.started and not self.held

    def take(self, records: Sequence[KafkaRecord], position: Position | None) -> RecordBatch | None:
        """The next batch: `records`, and the offsets without a record up to the client's position (R7).

        None when there is nothing new, and for a halted partition. Raises LedgerConflictError for a record that was
        taken before.
        """
        if self.halted:
            return None
        if not self.started:
            position = None
        start = self.start
        if records and records[0].offset() < start:
            offset = records[0].offset()
            raise LedgerConflictError(f"{self.claim.topic_partition}: offset {offset} arrived again after {start}")
        end = max(records[-1].offset() + 1 if records else start, start if position is None else position.offset)
        if end <= start:
            return None
        self.start = end
        if position is not None and position.offset == end:
            self.leader_epoch = position.leader_epoch
        else:
            self.leader_epoch = records[-1].leader_epoch()
        size_bytes = sum(map(len, records)) + RECORD_OVERHEAD_BYTES * len(records)
        return RecordBatch(self.claim, start, end, records, size_bytes, self.leader_epoch)


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
