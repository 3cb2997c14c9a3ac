"""What a worker's process knows of the partitions that it owns. Pure."""

import threading
from dataclasses import dataclass, field

from offsets.types import Claim


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
