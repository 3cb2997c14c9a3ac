"""A group whose ledger holds whatever a test of replays wants, on real Kafka; made without a worker.

Each good event has a content id of its own, so that the counts by content say which offsets were counted how often.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from confluent_kafka import Message, Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient
from django.db import connection, transaction

from analytics.metrics_store import MetricsStore
from analytics.processor import EngagementProcessor
from offsets import ledger, workers
from offsets.actions.guards import Actor, Request, Source
from offsets.database import WorkerSession
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.config import client_config
from offsets.ledger import Baseline
from offsets.models import DeadLetter, LedgerRange, OperatorAction, PartitionCheckpoint, Replay
from offsets.monitoring import invariants
from offsets.processing.committer import BatchCommitter
from offsets.processing.deduplication import LedgerCutter
from offsets.processing.pipeline import Pending
from offsets.ranges import OffsetRange
from offsets.replays import requests
from offsets.replays.plans import Wanted
from offsets.types import Claim, PartitionCommit, RecordBatch, Semantics, TopicPartition
from tests.support.processes import wait_for
from tests.support.records import Record, event

ADA = Actor("ada", allowed=True)


class Scenario:
    """One topic, and a group of the same name that has read nothing yet."""

    def __init__(self, partitions: int = 1, *, baseline: int = 0) -> None:
        self.name = f"replay-{uuid.uuid4().hex[:8]}"
        self._handler = EngagementProcessor()
        #: What was produced: (partition, offset) → value. Offsets that hold no record are not in it.
        self.values: dict[tuple[int, int], bytes] = {}
        self.create_topic(partitions)
        topic_id = KafkaAdmin().describe_topic(self.name).topic_id
        baselines = {number: Baseline(topic_id, baseline, "earliest") for number in range(partitions)}
        ledger.insert_baselines(self.name, self.name, baselines, self._handler.dimensions)

    # --- The log -------------------------------------------------------------------------------

    def create_topic(self, partitions: int = 1) -> None:
        places = [self.place(number) for number in range(partitions)]
        wait_for("the topic to be created", lambda: KafkaAdmin().create_topic(self.name, partitions))
        wait_for("its leaders", lambda: len(KafkaAdmin().log_bounds(places)) == partitions)

    def delete_topic(self) -> None:
        admin = self.admin()  # which ends its requests when it is let go of
        admin.delete_topics([self.name])[self.name].result(10)
        wait_for("the topic to be gone", lambda: not KafkaAdmin().describe_topics([self.name]))

    def delete_records(self, below: int, partition: int = 0) -> None:
        """As retention does."""
        admin = self.admin()
        futures = admin.delete_records([KafkaTopicPartition(self.name, partition, below)])
        next(iter(futures.values())).result(10)

    @staticmethod
    def admin() -> AdminClient:
        return AdminClient(client_config())

    def produce(
        self, count: int, partition: int = 0, *, poison: Sequence[int] = (), at_ms: int = 0, by: Producer | None = None
    ) -> None:
        """Append `count` events; those whose offset is in `poison` are none."""
        producer = by or Producer({**client_config(), "linger.ms": 1})
        first = max((n + 1 for number, n in self.values if number == partition), default=0)

        def seen(error: object, message: Message) -> None:
            assert error is None, error
            self.values[message.partition(), message.offset()] = message.value()

        for n in range(first, first + count):
            value = b"poison" if n in poison else event("view", n % 3, self.content(partition, n))
            # The time is the client's own where none is named.
            producer.produce(self.name, value, partition=partition, timestamp=at_ms, on_delivery=seen)
        assert producer.flush(30) == 0

    def content(self, partition: int, offset: int) -> int:
        return partition * 1_000_000 + offset

    @contextmanager
    def transaction(self, *, abort: bool = False) -> Iterator[Producer]:
        """A transactional producer; its end writes a marker, which occupies one offset."""
        producer = Producer({**client_config(), "transactional.id": uuid.uuid4().hex})
        producer.init_transactions(30)
        producer.begin_transaction()
        yield producer
        if abort:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)

    def place(self, partition: int = 0) -> TopicPartition:
        return TopicPartition(self.name, partition)

    # --- The ledger ----------------------------------------------------------------------------

    def checkpoint(self, partition: int = 0) -> PartitionCheckpoint:
        return PartitionCheckpoint.objects.get(group_id=self.name, partition=partition, retired_at__isnull=True)

    def ranges(self, partition: int = 0) -> list[tuple[int, int, str]]:
        rows = LedgerRange.objects.filter(checkpoint=self.checkpoint(partition)).order_by("offsets")
        return [(r.offsets.lower, r.offsets.upper, r.kind) for r in rows]

    def claim(self, partition: int = 0) -> Claim:
        worker_id = workers.new_worker_id()
        workers.register(worker_id, self.name)
        (claim,) = ledger.claim(self.name, worker_id, [self.place(partition)])
        return claim

    def append(self, *pieces: tuple[int, str], partition: int = 0) -> None:
        """Go on by so many offsets of each kind, as the next offset goes on."""
        for size, kind in pieces:
            start = self.checkpoint(partition).next_offset
            getattr(self, f"_{kind}")(start, start + size, partition)

    def commit_of(self, claim: Claim, start: int, end: int) -> PartitionCommit:
        """As the decoding thread makes it."""
        cutter = LedgerCutter(
            *(WorkerSession("scenario"), Semantics.EXACTLY_ONCE),
            wanted=lambda _: True,
            wait=lambda _: None,
            on_trouble=lambda _: None,
        )
        values = ((n, self.values.get((claim.partition, n))) for n in range(start, end))
        batch = RecordBatch(claim, start, end, [Record(n, value) for n, value in values if value is not None], 0)
        pending = Pending(claim)
        pieces = cutter.pieces(batch)
        pending.add(batch, [(self._handler.decode(one.batch), one.found) for one in pieces], 0)
        return replace(self._handler.combine(pending.batches), segments=tuple(pending.segments))

    def _processed(self, start: int, end: int, partition: int) -> None:
        committer = BatchCommitter(
            *(WorkerSession("scenario"), self._handler),
            is_current=lambda _: True,
            wait=lambda _: None,
            on_trouble=lambda _: None,
        )
        outcome = committer.commit([self.commit_of(self.claim(partition), start, end)])
        assert outcome.applied, outcome

    def _failed(self, start: int, end: int, partition: int) -> None:
        commit = self.commit_of(self.claim(partition), start, end)
        with transaction.atomic():
            ledger.lock_for_commit([commit])
            ledger.record_failed(commit, uuid.uuid4(), "it failed", retry_seconds=0.0, move=True)

    def _claimed(self, start: int, end: int, partition: int) -> None:
        commit = self.commit_of(self.claim(partition), start, end)
        with transaction.atomic():
            ledger.lock_for_commit([commit])
            ledger.claim_offsets([commit], uuid.uuid4())

    def _skipped(self, start: int, end: int, partition: int) -> None:
        self.seek(end, partition)

    def seek(self, target: int, partition: int = 0) -> None:
        with transaction.atomic():
            row = ledger.lock_checkpoint(self.checkpoint(partition).pk)
            assert row is not None
            ledger.seek(row, target, action=self.action("seek"))

    def rebuild(self, partition: int = 0) -> None:
        with transaction.atomic():
            row = ledger.lock_checkpoint(self.checkpoint(partition).pk)
            assert row is not None
            ledger.retire_and_restart(
                row, action=self.action("rebuild"), reason="rebuilt", baseline=0, topic_id=row.topic_id
            )

    @staticmethod
    def action(kind: str) -> OperatorAction:
        return OperatorAction.objects.create(kind=kind, username="x", target="t", source="test", outcome="applied")

    # --- Replays -------------------------------------------------------------------------------

    def wanted(self, start: int, end: int, partition: int = 0, *, to_count: int | None = None) -> Wanted:
        return Wanted(self.checkpoint(partition).pk, OffsetRange(start, end), to_count)

    def begin(self, *wanted: Wanted, actor: Actor = ADA, reason: str = "mended", rate: int | None = None) -> Replay:
        return requests.begin(wanted, Request(actor, reason, Source.COMMAND), records_per_second=rate)

    # --- The truth -----------------------------------------------------------------------------

    def counted(self) -> Counter[int]:
        """How often the event of each content was counted."""
        rows = MetricsStore().export(self.name)
        return Counter({number: sum(counts) for dimension, number, *counts in rows if dimension == "content"})

    def good(self, start: int, end: int, partition: int = 0) -> Counter[int]:
        """The contents of these offsets, each counted once."""
        offsets = (n for n in range(start, end) if self.values.get((partition, n), b"poison") != b"poison")
        return Counter(self.content(partition, n) for n in offsets)

    def assert_counted(self, *ranges: tuple[int, int] | tuple[int, int, int]) -> None:
        """Exactly these offsets are counted, each once, and every invariant holds."""
        wanted: Counter[int] = Counter()
        for one in ranges:
            wanted += self.good(*one)
        assert self.counted() == wanted
        result = invariants.check(self.name)
        assert result.ok, result

    def letters(self, partition: int = 0) -> list[tuple[int, str]]:
        rows = DeadLetter.objects.filter(checkpoint=self.checkpoint(partition)).order_by("offset")
        return list(rows.values_list("offset", "error_code"))


@contextmanager
def other_session() -> Iterator[psycopg.Connection]:
    """A second connection to the database, outside Django's; each statement is a transaction."""
    values = connection.get_connection_params()
    values.pop("cursor_factory", None)
    values.pop("context", None)
    with psycopg.connect(**values, autocommit=True) as other:
        yield other


def take_over(replay_id: int) -> None:
    """Another process takes the replay, as it may once the lease has run out."""
    with other_session() as other:
        other.execute(
            "UPDATE offsets_lease SET holder = 'other', epoch = epoch + 1,"
            " expires_at = clock_timestamp() + interval '1 minute' WHERE name = %s",
            [f"replay:{replay_id}"],
        )


def once(act: Callable[[], object]) -> Callable[..., None]:
    """Does it at the first call, whatever the arguments."""
    left = [act]

    def call(*_: object, **__: object) -> None:
        if left:
            left.pop()()

    return call
