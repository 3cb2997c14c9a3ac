"""What the application can listen to (docs/how-to/write-a-commit-policy.md)."""

import uuid
from dataclasses import dataclass

from django.dispatch import Signal

from offsets.types import BatchStats, Semantics, TopicPartition


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """One partition's share of a commit: the offsets `[start, end)`, and what was counted in them."""

    topic_partition: TopicPartition
    start: int
    end: int
    #: Our fencing token, under which it was committed.
    epoch: int
    stats: BatchStats
    #: Read again, and left out because the ledger had them.
    deduplicated: int


@dataclass(frozen=True, slots=True)
class Committed:
    """One transaction that has been committed."""

    group_id: str
    worker_id: str
    #: The checkpoints hold the id of their latest one.
    batch_id: uuid.UUID
    semantics: Semantics
    batches: tuple[CommittedBatch, ...]
    #: From its first try to the answer to its COMMIT.
    apply_seconds: float

    @property
    def stats(self) -> BatchStats:
        """Of all its partitions together."""
        return sum((batch.stats for batch in self.batches), BatchStats(apply_seconds=self.apply_seconds))


#: Sent once for each transaction with `committed: Committed`, in the worker, after COMMIT, by the thread that commits:
#: it waits for the receivers, whose errors are logged and change nothing. At most once: a worker killed right after its
#: COMMIT sends nothing.
batch_committed = Signal()
