"""Many batches in one call of the handler: only where it offers that, and with the same result as one by one."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.aggregation import DecodingOptions, combine, combine_many, decode, decode_many
from analytics.dimensions import EVENT_TYPES
from offsets.database import WorkerSession
from offsets.policies import ByCount
from offsets.processing.batching import joint_method
from offsets.processing.decoder import Decoder
from offsets.processing.pipeline import EventKind, Pipeline
from offsets.types import BatchStats, Claim, DecodedBatch, PartitionCommit, RecordBatch, Semantics
from tests.support.records import HOUR, Record, event

OPTIONS = DecodingOptions(max_bytes=1024, time_tolerance_seconds=3600)
DIMENSIONS = (("content", "user"), ("content",), ())


def batch(partition: int, start: int, values: Sequence[bytes], dimensions: tuple[str, ...] = ()) -> RecordBatch:
    records = [Record(start + 2 * n, value) for n, value in enumerate(values)]
    claim = Claim(partition + 1, "t", partition, 1, 0, dimensions)
    return RecordBatch(claim, start, start + 2 * len(values) + 1, records, sum(map(len, values)))


events = st.builds(
    event,
    st.sampled_from(EVENT_TYPES),
    st.one_of(st.integers(0, 3), st.integers(2**63 - 3, 2**63 - 1)),
    st.integers(0, 2**40),
    st.integers(9, 11).map(lambda hour: hour * HOUR),
)
values = st.lists(st.one_of(events, events, st.sampled_from([b"poison", b"", b"{}", b"1\n2"])), max_size=6)


def seen(decoded: DecodedBatch) -> object:
    columns = [column.tolist() for column in decoded.work]
    return decoded.claim, decoded.start, decoded.end, decoded.stats, list(decoded.failures), columns


def counted(commit: PartitionCommit) -> object:
    work = commit.work
    place = commit.claim, commit.start, commit.end, commit.leader_epoch
    return place, commit.stats, commit.failures, work.delta_rows, work.delta_count, work.minutes.tolist()


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=6), st.booleans())
def test_batches_decoded_and_counted_together_are_the_same_as_one_by_one(
    contents: list[list[bytes]], as_columns: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analytics.aggregation.COLUMNAR_FROM", 2 if as_columns else 1000)
        patch.setattr("analytics.aggregation.JOINT_RECORDS", 7)
        batches = [batch(n, 10 * n, content, DIMENSIONS[n % 3]) for n, content in enumerate(contents)]
        together = decode_many(batches, OPTIONS)
        alone = [decode(one, OPTIONS) for one in batches]
        assert [seen(one) for one in together] == [seen(one) for one in alone]
        joint = combine_many([[one] for one in together])
        assert [counted(one) for one in joint] == [counted(combine([one])) for one in alone]


# --- Which methods are used ------------------------------------------------------------------------


class Joint:
    def decode(self) -> None: ...
    def decode_many(self) -> None: ...


class ReplacesOne(Joint):
    def decode(self) -> None: ...


class ReplacesBoth(ReplacesOne):
    def decode_many(self) -> None: ...


class Single:
    def decode(self) -> None: ...


class Wrapper(Single):
    """Passes on what it does not have."""

    def __getattr__(self, name: str) -> object:
        return getattr(Joint(), name)


@pytest.mark.parametrize(
    ("handler", "used"),
    [(Joint(), True), (ReplacesOne(), False), (ReplacesBoth(), True), (Single(), False), (Wrapper(), False)],
)
def test_a_subclass_that_replaces_only_decode_is_called_batch_by_batch(handler: object, used: bool) -> None:
    assert (joint_method(handler, "decode_many", "decode") is not None) is used


def test_a_method_replaced_on_the_instance_counts_too() -> None:
    handler = Joint()
    handler.decode = lambda: None  # type: ignore[method-assign]
    assert joint_method(handler, "decode_many", "decode") is None


# --- In the decoding thread ------------------------------------------------------------------------


class Handler:
    """`fails_together` makes the joint calls raise; a record `bad` makes `decode` raise, too."""

    dimensions = ()

    def __init__(self, *, fails_together: bool = False, leaves_out: int = 0) -> None:
        self.fails_together, self.leaves_out = fails_together, leaves_out
        self.calls: list[tuple[str, int]] = []

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        self.calls.append(("decode", 1))
        if any(record.value() == b"bad" for record in batch.records):
            raise ZeroDivisionError("bad")
        return DecodedBatch(batch.claim, batch.start, batch.end, BatchStats(len(batch.records)), (), None)

    def decode_many(self, batches: Sequence[RecordBatch]) -> Sequence[DecodedBatch]:
        self.calls.append(("decode_many", len(batches)))
        if self.fails_together or any(record.value() == b"bad" for batch in batches for record in batch.records):
            raise ZeroDivisionError("together")
        own = [DecodedBatch(b.claim, b.start, b.end, BatchStats(len(b.records)), (), None) for b in batches]
        return own[self.leaves_out :]

    def combine(self, batches: Sequence[DecodedBatch]) -> PartitionCommit:
        self.calls.append(("combine", 1))
        stats = BatchStats.total(batch.stats for batch in batches)
        return PartitionCommit(batches[0].claim, batches[0].start, batches[-1].end, stats, (), None)

    def combine_many(self, groups: Sequence[Sequence[DecodedBatch]]) -> Sequence[PartitionCommit]:
        if self.fails_together:
            raise ZeroDivisionError("together")
        commits = [self.combine(group) for group in groups]
        self.calls = [call for call in self.calls if call[0] != "combine"] + [("combine_many", len(groups))]
        return commits


def through(handler: Handler, batches: Sequence[RecordBatch]) -> tuple[Pipeline, list[PartitionCommit]]:
    pipeline = Pipeline(1 << 30, 1 << 30)
    decoder = Decoder(
        pipeline,
        handler,  # type: ignore[arg-type]
        ByCount(1),
        WorkerSession("nobody"),
        Semantics.EXACTLY_ONCE,
        is_current=lambda claim: True,
        on_trouble=lambda source, text: None,
    )
    pipeline.put(batches)
    decoder._take(pipeline.take_batches(0, 1000))
    decoder._hand_over()
    return pipeline, [commit for _, commit in pipeline.take_unit(0) or []]


def test_what_is_queued_is_decoded_and_counted_in_one_call_each() -> None:
    handler = Handler()
    _, commits = through(handler, [batch(n, 0, [b"good"] * (n + 1)) for n in range(5)])
    assert handler.calls == [("decode_many", 5), ("combine_many", 5)]
    assert [commit.stats.records for commit in commits] == [1, 2, 3, 4, 5]
    assert all(commit.stats.decode_seconds is not None for commit in commits)
    assert all(commit.stats.combine_seconds is not None for commit in commits)
    assert [span for commit in commits for span in commit.stats.offsets.values()] == [(0, 2 * n + 3) for n in range(5)]


@pytest.mark.parametrize("handler", [Handler(fails_together=True), Handler(leaves_out=1)])
def test_a_joint_call_that_fails_changes_nothing(handler: Handler) -> None:
    _, commits = through(handler, [batch(n, 0, [b"good"]) for n in range(3)])
    assert [(commit.claim.partition, commit.stats.records) for commit in commits] == [(0, 1), (1, 1), (2, 1)]
    assert handler.calls.count(("decode", 1)) == 3


def test_a_record_that_makes_the_handler_fail_is_still_found_by_halving() -> None:
    pipeline, commits = through(Handler(), [batch(0, 0, [b"good"] * 2), batch(1, 0, [b"good", b"bad", b"good"])])
    assert [(commit.claim.partition, commit.stats.records) for commit in commits] == [(0, 2), (1, 2)]
    assert [stats.failed_records for stats in (commit.stats for commit in commits)] == [0, 1]
    assert not pipeline.events


def test_a_partition_that_the_handler_cannot_count_leaves_the_others_whole() -> None:
    class Broken(Handler):
        def decode(self, batch: RecordBatch) -> DecodedBatch:
            if batch.claim.partition == 1:
                raise ZeroDivisionError("whatever it holds")
            return super().decode(batch)

        def decode_many(self, batches: Sequence[RecordBatch]) -> Sequence[DecodedBatch]:
            raise ZeroDivisionError("together")

    pipeline, commits = through(Broken(), [batch(0, 0, [b"a"]), batch(1, 0, [b"b"]), batch(1, 3, [b"c"])])
    assert [commit.claim.partition for commit in commits] == [0]
    assert [(event.kind, event.claim.partition) for event in pipeline.events] == [(EventKind.REFUSED, 1)]
    assert pipeline.in_flight() == 1, "what follows the refused batch is dropped"


def test_the_queue_is_taken_in_bounded_steps() -> None:
    pipeline = Pipeline(1 << 30, 1 << 30)
    pipeline.put([batch(n, 0, [b"good"] * 4) for n in range(3)])
    assert [len(pipeline.take_batches(0, 9)) for _ in range(3)] == [2, 1, 0]
    pipeline.put([batch(0, 9, [b"good"] * 20)])
    assert len(pipeline.take_batches(0, 9)) == 1, "one that is larger is taken alone"
