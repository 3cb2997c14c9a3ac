"""What the application can listen to."""

from dataclasses import dataclass

from django.dispatch import Signal

from offsets.types import BatchStats, Semantics, TopicPartition


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """One partition's share of a commit: the offsets `[start, end)`, and what was counted in them."""

    topic_partition: TopicPartition
    start: int
    end: int
    epoch: int
    stats: BatchStats
    #: Read again, and left out because the ledger had them.
    deduplicated: int


@dataclass(frozen=True, slots=True)
class Committed:
    """One transaction that has been committed."""

    group_id: str
    worker_id: str
    semantics: Semantics
    batches: tuple[CommittedBatch, ...]


#: Sent with `committed: Committed` in the worker, after COMMIT, from the thread that commits: receivers are waited for,
#: and their errors are logged and change nothing. At most once: a worker killed right after its COMMIT sends nothing.
batch_committed = Signal()
