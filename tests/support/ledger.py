"""What the tests of the ledger share."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection

from analytics.metrics_store import MetricsStore
from analytics.processor import EngagementProcessor
from offsets import ledger, workers
from offsets.database import WorkerSession
from offsets.models import LedgerRange, PartitionCheckpoint
from offsets.monitoring import invariants
from offsets.processing.committer import BatchCommitter, CommitOutcome
from offsets.types import (
    Claim,
    PartitionCommit,
    RecordBatch,
    TopicPartition,
)
from tests.support.records import Record, event

GROUP = "ledger-test"


HANDLER = EngagementProcessor()


def tp(number: int) -> TopicPartition:
    return TopicPartition("t", number)


def worker() -> str:
    name = workers.new_worker_id()
    workers.register(name, GROUP)
    return name


def claimed(number: int = 0, by: str | None = None) -> Claim:
    (claim,) = ledger.claim(GROUP, by or worker(), [tp(number)])
    return claim


def commit_of(claim: Claim, start: int, end: int, *, poison: tuple[int, ...] = ()) -> PartitionCommit:
    records = [Record(n, b"bad" if n in poison else event("view", n % 3, n % 5)) for n in range(start, end)]
    return HANDLER.combine([HANDLER.decode(RecordBatch(claim, start, end, records, 0))])


def apply(*commits: PartitionCommit) -> CommitOutcome:
    committer = BatchCommitter(
        WorkerSession("test"), HANDLER, is_current=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
    )
    return committer.commit(commits)


def checkpoint(number: int = 0) -> PartitionCheckpoint:
    return PartitionCheckpoint.objects.get(group_id=GROUP, partition=number)


def ranges(number: int = 0) -> list[tuple[int, int, str, int, int]]:
    rows = LedgerRange.objects.filter(checkpoint=checkpoint(number)).order_by("offsets")
    return [(r.offsets.lower, r.offsets.upper, r.kind, r.records, r.failed_records) for r in rows]


def assert_whole(events: int) -> None:
    result = invariants.check(GROUP)
    assert result.ok, result
    assert sum(MetricsStore().totals(GROUP).values()) == events


@contextmanager
def other_session() -> Iterator[psycopg.Connection]:
    """A second connection, outside Django's."""
    values = connection.get_connection_params()
    values.pop("cursor_factory", None)
    values.pop("context", None)
    with psycopg.connect(**values) as other:
        yield other
