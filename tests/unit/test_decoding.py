"""The decoding thread: when it asks the policy, what it tells it, and what it hands over without asking."""

from collections.abc import Sequence

import pytest
from django.db import OperationalError
from pytest_django import Settings

from offsets.clock import Deadline
from offsets.database import WorkerSession
from offsets.policies import Progress
from offsets.processing.decoder import Decoder
from offsets.processing.pipeline import EventKind, Pipeline
from offsets.types import (
    BatchHandler,
    BatchStats,
    Claim,
    DecodedBatch,
    PartitionCommit,
    RecordBatch,
    RecordFailure,
    Semantics,
    TopicPartition,
)
from tests.support.records import Record


class Handler:
    """Counts each record as a view; one whose value is `bad` fails."""

    dimensions = ()
    #: Raised when a batch of this partition is combined.
    raises: dict[int, Exception]

    def __init__(self) -> None:
        self.raises = {}

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        failures = [
            RecordFailure(r.offset(), "bad", "", None, r.value(), b"[]", None)
            for r in batch.records
            if (r.value() or b"").startswith(b"bad")
        ]
        good = len(batch.records) - len(failures)
        stats = BatchStats(good, len(failures), sum(map(len, batch.records)), {"view": good})
        return DecodedBatch(batch.claim, batch.start, batch.end, stats, failures, None)

    def combine(self, batches: Sequence[DecodedBatch]) -> PartitionCommit:
        if error := self.raises.get(batches[0].claim.partition):
            raise error
        stats = sum((batch.stats for batch in batches), BatchStats())
        return PartitionCommit(batches[0].claim, batches[0].start, batches[-1].end, stats, (), None)


class Policy:
    """Remembers what it was shown; says yes when told to."""

    def __init__(self) -> None:
        self.shown: list[Progress] = []
        self.answer = False

    def due(self, progress: Progress) -> bool:
        self.shown.append(progress)
        return self.answer


class Scenario:
    def __init__(self) -> None:
        self.pipeline = Pipeline(1 << 30, 1 << 30)
        self.policy = Policy()
        self.stale: set[Claim] = set()
        self.handler = Handler()
        handler: BatchHandler = self.handler  # type: ignore[assignment]
        self.decoder = Decoder(
            self.pipeline,
            handler,
            self.policy,
            WorkerSession("nobody"),
            Semantics.EXACTLY_ONCE,
            is_current=lambda claim: claim not in self.stale,
            on_trouble=lambda source, text: None,
        )

    def take(self, partition: int, start: int, count: int, value: bytes = b"good", epoch: int = 1) -> bool:
        """One fetched batch; returns whether what is pending is due."""
        records = [Record(start + n, value) for n in range(count)]
        claim = Claim(partition + 1, "t", partition, epoch, 0)
        batch = RecordBatch(claim, start, start + count, records, count * len(value))
        self.pipeline.put([batch])
        assert self.pipeline.take_batch(0) is batch
        self.decoder._take(batch)
        return self.decoder._due()


@pytest.fixture
def scenario() -> Scenario:
    return Scenario()


def test_it_shows_the_policy_all_that_is_pending(scenario: Scenario) -> None:
    scenario.take(0, 0, 3)
    scenario.take(1, 10, 2, b"bad")
    scenario.take(0, 3, 1)
    progress = scenario.policy.shown[-1]
    assert (progress.stats.records, progress.stats.failed_records, progress.fetched_records) == (4, 2, 6)
    assert progress.stats.by_type == {"view": 4}
    assert progress.stats.size_bytes == 4 * 4 + 2 * 3
    assert progress.offsets == {TopicPartition("t", 0): (0, 4), TopicPartition("t", 1): (10, 12)}
    assert progress.partitions == 2
    assert progress.stats.decode_seconds is not None


def test_it_forgets_what_an_older_epoch_left(scenario: Scenario) -> None:
    scenario.take(0, 0, 5)
    scenario.take(1, 0, 1)
    scenario.take(0, 2, 1, epoch=2)
    assert scenario.policy.shown[-1].fetched_records == scenario.policy.shown[-1].stats.records == 2
    assert scenario.policy.shown[-1].offsets[TopicPartition("t", 0)] == (2, 3)


def test_it_begins_again_after_a_hand_over_and_measures_the_commit(scenario: Scenario) -> None:
    scenario.take(0, 0, 5)
    scenario.decoder._hand_over()
    scenario.take(0, 5, 1)
    unit = scenario.pipeline.take_unit(0)
    assert unit is not None
    ((_, commit),) = unit
    assert commit.stats.offsets == {TopicPartition("t", 0): (0, 5)}
    assert commit.stats.decode_seconds is not None
    assert commit.stats.combine_seconds is not None
    assert commit.stats.apply_seconds is None, "not known before the transaction"
    scenario.pipeline.unit_done()
    scenario.decoder._due()
    assert scenario.policy.shown[-1].fetched_records == 1


def test_it_does_not_ask_while_a_commit_is_under_way(scenario: Scenario, settings: Settings) -> None:
    settings.COMMIT_MAX_RECORDS = 10
    scenario.policy.answer = True
    assert scenario.take(0, 0, 2)
    scenario.decoder._hand_over()
    asked = len(scenario.policy.shown)
    assert not scenario.take(0, 2, 2)
    assert scenario.take(0, 4, 8), "memory is bounded also then"
    assert len(scenario.policy.shown) == asked


def test_dead_letters_are_handed_over_before_they_fill_the_pipeline(scenario: Scenario, settings: Settings) -> None:
    settings.PIPELINE_MAX_BYTES = 100_000
    assert not scenario.take(0, 0, 4, b"bad" + bytes(10_000))
    assert scenario.take(0, 4, 1, b"bad" + bytes(10_000))


def test_asking_costs_the_same_however_much_is_pending(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    additions = 0
    plain = BatchStats.__add__

    def counted(one: BatchStats, other: BatchStats) -> BatchStats:
        nonlocal additions
        additions += 1
        return plain(one, other)

    monkeypatch.setattr(BatchStats, "__add__", counted)
    for n in range(300):
        scenario.take(n % 7, n, 1)
    assert additions == 300


@pytest.mark.parametrize("error", [KeyError("minute"), AttributeError("no minute"), RecursionError("too deep")])
def test_a_batch_that_cannot_be_combined_is_handed_over_with_the_reason_and_the_others_whole(
    scenario: Scenario, error: Exception
) -> None:
    scenario.handler.raises[0] = error
    scenario.take(0, 5, 3)
    scenario.take(1, 0, 2)
    scenario.decoder._hand_over()
    unit = scenario.pipeline.take_unit(0)
    assert unit is not None
    refused, whole = (commit for _, commit in unit)
    assert (refused.start, refused.end, refused.work) == (5, 8, None)
    assert refused.refusal.startswith(type(error).__name__)
    assert (whole.refusal, whole.stats.records) == ("", 2)


def test_a_database_that_is_lost_in_combine_makes_its_partition_wait(scenario: Scenario) -> None:
    scenario.handler.raises[0] = OperationalError("the connection is closed")
    scenario.take(0, 0, 3)
    scenario.take(1, 0, 2)
    scenario.decoder._hand_over()
    unit = scenario.pipeline.take_unit(0)
    assert unit is not None
    assert [commit.claim.partition for _, commit in unit] == [1]
    (event,) = scenario.pipeline.events
    assert (event.kind, event.claim.partition) == (EventKind.REFUSED, 0)
    assert scenario.pipeline.drain([1], Deadline(0)) == {1}, "nothing of it is in flight"


def test_what_is_not_decoded_is_dropped_when_the_worker_stops(scenario: Scenario) -> None:
    scenario.take(0, 0, 3)
    claim = Claim(1, "t", 0, 1, 0)
    scenario.pipeline.put([RecordBatch(claim, 3, 5, [Record(3, b"good"), Record(4, b"good")], 8)])
    scenario.pipeline.discard_fetched()
    assert scenario.pipeline.take_batch(0) is None
    assert scenario.pipeline.in_flight() == 3, "what is decoded is still to be committed"
