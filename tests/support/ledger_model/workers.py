"""What workers of the stateful ledger tests hold, and what they can do with it."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from analytics.processor import EngagementProcessor
from offsets import failpoints
from offsets.database import WorkerSession
from offsets.processing.pipeline import Pending
from offsets.types import Claim, PartitionCommit, RangeKind, Semantics
from tests.support.ledger_model.truth import GOOD, HOLE, POISON, Book, Bounds, Log, runs
from tests.support.records import Record, event

T = TypeVar("T")

TOPIC = "t"
HANDLER = EngagementProcessor()
SESSION = WorkerSession("stateful")
#: What a log begins with.
FIRST_SLOTS = (GOOD, POISON, GOOD, HOLE, GOOD, GOOD, POISON, HOLE, GOOD, GOOD)
WORKERS = ("A", "B", "C")
#: Records fall into these minutes, half of which a purge carries over.
FIRST_MINUTE = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Holding:
    """A claim and what its worker has in hand. It stays when another claims: that makes it a zombie's."""

    claim: Claim
    book: Book
    semantics: Semantics
    #: Where the worker reads next.
    at: int
    in_hand: Pending | None = None
    #: What the ledger said of the offsets in hand when they were read.
    believed: dict[int, RangeKind | None] = field(default_factory=dict)
    #: At least once: recorded, and not followed by the store yet.
    recorded: PartitionCommit | None = None

    @property
    def bounds(self) -> list[Bounds]:
        return runs(self.believed)

    def drop(self) -> None:
        self.in_hand = None
        self.believed = {}

    def commit(self) -> PartitionCommit:
        """As the decoding thread makes it."""
        assert self.in_hand is not None
        merged = HANDLER.combine(self.in_hand.batches)
        return replace(merged, segments=tuple(self.in_hand.segments))


@dataclass
class Unsettled:
    """At most once, between its two halves."""

    holding: Holding
    commit: PartitionCommit
    batch: uuid.UUID
    bounds: list[Bounds]


class AcceptingStore:
    """Takes every offset; what stores refuse is their own tests' business."""

    def commit(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        return {}


#: Where a commit can break off, by what was promised.
POINTS = ("before_sql", "before_commit", "after_commit")
BREAKS = {
    Semantics.EXACTLY_ONCE: POINTS,
    Semantics.AT_LEAST_ONCE: (*POINTS, "after_store"),
    Semantics.AT_MOST_ONCE: (*POINTS, "after_store", "before_settle"),
}


#: What a worker may do with the batch in hand: leave it there, commit it (losing the connection on the way, or its
#: life), or write the first half of what its promise takes and leave the second for later.
ACTS = ("keep", "commit", "commit", "break", "die", "first half", "first half")


@contextmanager
def failing(point: str | None) -> Iterator[Callable[[float], None]]:
    """Lose the connection once at `point`. Yields the committer's `wait`, which is when the database comes back."""
    failpoints._points = {point: ("error", 1, "")} if point else {}
    failpoints._passages = Counter()
    try:
        yield lambda _: failpoints._points.clear()
    finally:
        failpoints._points = {}


def pick(choices: Sequence[T], which: int) -> T:
    return choices[which % len(choices)]


def record_of(log: Log, offset: int) -> Record:
    minute = FIRST_MINUTE + timedelta(minutes=offset % 6)
    at = int(minute.timestamp() * 1000)
    value = event("view", offset % 3, log.content(offset), at) if log.slots[offset] == GOOD else b"poison"
    return Record(offset, value, at)


def breaking(holding: Holding, which: int) -> str:
    """A place at which the commit of this promise can break off."""
    return pick(BREAKS[holding.semantics], which)
