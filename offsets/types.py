"""The vocabulary of this project, as types.

* **offset**: the position of one record in a partition's log.
* **next_offset** = *committed offset*: the next offset to read. Never "the last one processed".
* **range**: half-open `[start, end)`; `end` is the first offset that is *not* in it.
* **log_start_offset**: the first offset the log still holds. **log_end_offset**: the end that a `read_committed` reader
  can reach. **lag** = `log_end_offset - next_offset`, in records that Kafka still has.
* **position**: where the client will read next; it may lie past the last record delivered, because transaction
  markers and compacted records occupy offsets that are never delivered.
* **epoch**: our fencing token. Each claim of a partition, and each operator's action on it, adds one; a commit that
  names an older epoch is refused. **leader_epoch** is Kafka's, and not related.
* **checkpoint**: the database row that holds a partition's `next_offset`, epoch and owner.
* **claim**: what a worker holds after it has become a checkpoint's owner.
Pure: no Django, no Kafka client.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

#: The circuit breaker's name in the audit log.
CIRCUIT_BREAKER = "auto:circuit-breaker"
#: Why a checkpoint is retired that no other one has replaced: an operator ended the watching of its partition.
RETIRED = "retired"


class RangeKind(enum.StrEnum):
    """The outcome of the offsets of a ledger range."""

    PROCESSED = "processed"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    CLAIMED = "claimed"


class DesiredState(enum.StrEnum):
    """Whether the operator wants a partition read; its owner reads it with every heartbeat."""

    RUNNING = "running"
    PAUSED = "paused"


class HaltReason(enum.StrEnum):
    """Why a partition cannot go on without an operator."""

    NONE = ""
    EXPIRED = "expired"  # next_offset lies below the log start: Kafka deleted unread records
    TRUNCATED = "truncated"  # the log lost records that were counted: it ended before next_offset
    RECREATED = "recreated"  # another topic_id: the offsets mean other records now
    UNREADABLE = "unreadable"  # the client cannot read the records at next_offset: a corrupt batch
    STORE_MISSING = "store_missing"  # the offset store is empty where it held something


class EpochCause(enum.StrEnum):
    CREATED = "created"
    CLAIM = "claim"
    ACTION = "action"


class DeadLetterStatus(enum.StrEnum):
    PENDING = "pending"
    COUNTED = "counted"
    DISCARDED = "discarded"


class Semantics(enum.StrEnum):
    """What a group promises about an event when a worker dies (design §6)."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"

    @property
    def subtracts(self) -> bool:
        """Whether offsets that the ledger holds as processed are left out when they are read again (R12)."""
        return self is not Semantics.AT_LEAST_ONCE


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class KafkaRecord(Protocol):
    """The part of a consumed Kafka message that batch handlers use."""

    def __len__(self) -> int:
        """Bytes of the value."""
        ...

    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]:
        """(timestamp type, milliseconds since the epoch); type 0 means none is available."""
        ...

    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def leader_epoch(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition that this process owns, as the database stood when it was claimed.

    `dimensions` are those frozen on the checkpoint at its baseline.
    """

    checkpoint_id: int
    topic: str
    partition: int
    epoch: int
    next_offset: int
    dimensions: tuple[str, ...] = ()
    topic_id: str = ""
    leader_epoch: int | None = None
    paused: bool = False
    halt_reason: HaltReason = HaltReason.NONE
    #: Below it the ledger may hold ranges already: what is read there is compared with them (R12).
    ledger_end: int = 0
    #: The epoch that the last action began which moved `next_offset`: it wins over an older stored offset (R18).
    moved_epoch: int = 0
    #: The offset store that the checkpoint was last committed with; empty before the first claim.
    store: str = ""
    #: Whether anything was ever committed: then the store must hold an offset.
    committed: bool = False

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the client reads next, and the leader epoch of what it read last, markers included; None: unknown."""

    offset: int
    leader_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one partition, as fetched; covers the offsets `[start, end)`, holes included.

    `records` are in offset order and may be empty (a stretch of transaction markers).
    """

    claim: Claim
    start: int
    end: int
    records: Sequence[KafkaRecord]
    size_bytes: int
    #: Kafka's leader epoch of the last offset, whether or not it has a record; None: unknown.
    leader_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class RecordFailure:
    """One record that cannot be counted, with all that is needed to inspect and requeue it.

    `headers` is JSON: a list of `[name, base64 of the value | null]`.
    """

    offset: int
    error_code: str
    error_detail: str
    key: bytes | None
    value: bytes | None
    headers: bytes
    timestamp_ms: int | None


class OffsetSpan(NamedTuple):
    """Offsets `[start, end)`, holes included; may be empty."""

    start: int
    end: int

    def hull(self, other: "OffsetSpan") -> "OffsetSpan":
        """The shortest span that covers both."""
        return OffsetSpan(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What one batch held, and what it cost. `records` were counted, `failed_records` became dead letters.

    Handlers fill in the first four; the pipeline measures the rest. Adding is commutative and associative, and an
    empty BatchStats changes nothing, so that batches, partitions and whole commits are summed in any order.
    """

    records: int = 0
    failed_records: int = 0
    #: Of the values as fetched, both kinds of records.
    size_bytes: int = 0
    #: Counted events by the handler's own names of their types.
    by_type: Mapping[str, int] = field(default_factory=dict)
    #: Spent in `BatchHandler.decode`; None when it was not measured.
    decode_seconds: float | None = None
    #: Spent in `BatchHandler.combine`; None before.
    combine_seconds: float | None = None
    #: Spent in the transaction, or None: a partition's share of a transaction is not known.
    apply_seconds: float | None = None
    #: From the first offset read to the next one to read, per partition. Sums keep the hull.
    offsets: Mapping[TopicPartition, OffsetSpan] = field(default_factory=dict)

    @property
    def all_records(self) -> int:
        """Records read: counted ones and dead letters."""
        return self.records + self.failed_records

    def __add__(self, other: "BatchStats") -> "BatchStats":
        return BatchStats.total((self, other))

    @staticmethod
    def total(parts: Iterable["BatchStats"]) -> "BatchStats":
        """The sum of all, in one pass: adding one by one would copy the mappings each time."""
        records = failed_records = size_bytes = 0
        decode_seconds: float | None = None
        combine_seconds: float | None = None
        apply_seconds: float | None = None
        by_type: dict[str, int] = {}
        offsets: dict[TopicPartition, OffsetSpan] = {}
        for part in parts:
            records += part.records
            failed_records += part.failed_records
            size_bytes += part.size_bytes
            # None means unknown: the sum is that of what is known.
            if part.decode_seconds is not None:
                decode_seconds = (decode_seconds or 0.0) + part.decode_seconds
            if part.combine_seconds is not None:
                combine_seconds = (combine_seconds or 0.0) + part.combine_seconds
            if part.apply_seconds is not None:
                apply_seconds = (apply_seconds or 0.0) + part.apply_seconds
            for name, count in part.by_type.items():
                by_type[name] = by_type.get(name, 0) + count
            for place, span in part.offsets.items():
                known = offsets.get(place)
                offsets[place] = span if known is None else span.hull(known)
        return BatchStats(
            records, failed_records, size_bytes, by_type, decode_seconds, combine_seconds, apply_seconds, offsets
        )

    def measured(
        self,
        decode_seconds: float | None,
        offsets: Mapping[TopicPartition, OffsetSpan],
        combine_seconds: float | None = None,
    ) -> "BatchStats":
        """The same with what the pipeline measures. Without `dataclasses.replace`, which takes as long as the rest."""
        return BatchStats(
            self.records,
            self.failed_records,
            self.size_bytes,
            self.by_type,
            decode_seconds,
            combine_seconds,
            self.apply_seconds,
            offsets,
        )


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """A batch after `BatchHandler.decode`; `work` is the handler's own, opaque to the pipeline."""

    claim: Claim
    start: int
    end: int
    stats: BatchStats
    failures: Sequence[RecordFailure]
    work: Any
    leader_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive offsets `[start, end)` of a batch for which the ledger holds one kind of range, or none."""

    start: int
    end: int
    #: The kind of range that lies there; None where there is none.
    found: RangeKind | None
    #: Counted here, and dead letters here; both 0 where `found` is processed and was subtracted.
    records: int = 0
    failed_records: int = 0

    @property
    def bounds(self) -> tuple[int, int, RangeKind | None]:
        return self.start, self.end, self.found


@dataclass(frozen=True, slots=True)
class PartitionCommit(DecodedBatch):
    """Everything one transaction writes for one partition: decoded batches merged, `[start, end)` of its log."""

    #: The ranges that the ledger held for these offsets when they were decoded, in order; empty when it held none.
    segments: tuple[Segment, ...] = ()
    #: Why the handler could not combine it; it holds no work then, and becomes a failed range.
    refusal: str = ""

    @property
    def parts(self) -> tuple[Segment, ...]:
        """The segments; a commit that was never cut is one, for which the ledger holds no range."""
        return self.segments or (Segment(self.start, self.end, None, self.stats.records, self.stats.failed_records),)


class BatchHandler(Protocol):
    """What the application does with records. Loaded from the setting `BATCH_HANDLER`.

    `decode` and `combine` are pure and run on a thread of their own. `insert` and `update` run inside the
    transaction that also moves the checkpoint; neither may commit, and both may run again after a rollback.
    """

    #: Names of the dimensions that new checkpoints keep; frozen on the checkpoint at its baseline.
    dimensions: tuple[str, ...]

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        """Decode one fetched batch; records that cannot be decoded become failures, and nothing raises."""
        ...

    def combine(self, batches: Sequence[DecodedBatch]) -> PartitionCommit:
        """Merge consecutive batches of one claim (never empty, `batches[i].end == batches[i+1].start`)."""
        ...

    def insert(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        """Append-only writes, before any row lock is held (one binary COPY)."""
        ...

    def update(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        """Writes to rows that others may share, after the checkpoints are locked in id order."""
        ...

    def counted_sql(self) -> str:
        """A SELECT of `(checkpoint_id bigint, dimension text, events numeric)`: all that is counted (I3).

        SQL rather than a number, because an invariant is read in one statement with the ledger.
        """
        ...

    def counted_by_time_sql(self) -> str:
        """A SELECT of `(checkpoint_id bigint, events numeric)`: minute buckets and their carry (I4)."""
        ...

    # A handler may also have `implausible_times_sql()`: a SELECT of `(checkpoint_id, source, unit, events,
    # first_seen_at, last_seen_at)`, counted events whose time cannot be right (`offsets.monitoring.event_times`).


class DecodesMany(Protocol):
    """Optional methods of a batch handler, which save the fixed cost of a call for each small batch.

    They return what `decode` and `combine` return for each, in the same order. If one raises, those are called instead.
    """

    def decode_many(self, batches: Sequence[RecordBatch]) -> Sequence[DecodedBatch]:
        """`decode` of several batches, of any partitions."""
        ...

    def combine_many(self, groups: Sequence[Sequence[DecodedBatch]]) -> Sequence[PartitionCommit]:
        """`combine` of several groups of batches, one for each claim."""
        ...


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """The next offset to read, and who stored it under which epoch. Epoch 0 and no worker: another tool stored it."""

    next_offset: int
    epoch: int = 0
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class StoreCommit:
    """Move one partition from `expected` (None: nothing is stored yet) to `next_offset`."""

    topic_partition: TopicPartition
    expected: int | None
    next_offset: int
    epoch: int
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What a store can do; semantics and the contract suite depend on it."""

    #: Offsets move in the transaction that writes the metrics.
    transactional: bool
    #: A commit is refused unless the store holds what its writer expects.
    compare_and_set: bool
    #: Others may write to it while workers run.
    writable_from_outside: bool
    several_workers: bool
