"""Replays on real Kafka and PostgreSQL: what was not counted is counted, once, whatever happens meanwhile."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from analytics.metrics_store import MetricsStore
from analytics.processor import EngagementProcessor
from offsets import failpoints, leases, ledger
from offsets.actions.guards import Actor, ReasonError, Source, UnknownPartitionError
from offsets.actions.moves import logs_of
from offsets.database import WorkerSession
from offsets.errors import NotAllowedError, RefusedError, StalePreviewError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.reader import OutOfRangeError, RangeReader
from offsets.models import (
    DeadLetter,
    JournalEntry,
    Lease,
    LedgerRange,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
    ReplayRange,
)
from offsets.monitoring import invariants
from offsets.ranges import OffsetRange
from offsets.replays import requests, runner
from offsets.replays import rows as replay_rows
from offsets.replays.plans import Wanted
from offsets.types import DecodedBatch, PartitionCommit, RecordBatch
from tests.cases import Case
from tests.crash_matrix import counts_of
from tests.harness import background, wait_for
from tests.replay_world import ADA, World, once, other_session, take_over

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]
AUTOMATIC = Actor("auto:test", allowed=True)


@pytest.fixture
def world() -> World:
    """A partition of 100 events, of which nothing is read."""
    made = World()
    made.produce(100)
    return made


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK_RECORDS", 10)


@pytest.fixture
def fails_at(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the handler of this name (tests.failing_handlers) fail at these offsets of partition 0."""

    def set_(handler: str, *offsets: int) -> None:
        settings.BATCH_HANDLER = f"tests.failing_handlers.{handler}"
        monkeypatch.setenv("FAIL_AT", ",".join(f"0:{n}" for n in offsets))

    return set_


def run(replay: Replay) -> Replay:
    """Run it to its end in this process."""
    ended = runner.run(replay.pk)
    assert ended is not None
    return ended


def numbers(replay: Replay) -> dict[str, int]:
    names = ("done_offsets", "total_offsets", "counted", "deduplicated", "dead_letters", "expired_offsets")
    return {name.removesuffix("_offsets"): getattr(replay, name) for name in names if getattr(replay, name)}


def assert_refused(
    world: World, says: str, *wanted: Wanted, error: type[RefusedError] = RefusedError, **more: Any
) -> None:
    """It is refused in these words, audited, and nothing is changed."""
    before = list(PartitionCheckpoint.objects.order_by("pk").values()), world.counted(), Replay.objects.count()
    audited = OperatorAction.objects.filter(kind="replay", outcome="applied").count()
    with pytest.raises(error, match=says):
        world.begin(*wanted, **more)
    assert (
        list(PartitionCheckpoint.objects.order_by("pk").values()),
        world.counted(),
        Replay.objects.count(),
    ) == before
    assert OperatorAction.objects.filter(kind="replay", outcome="applied").count() == audited
    action = OperatorAction.objects.latest("pk")
    assert (action.kind, action.outcome, action.source) == ("replay", "refused", "command")
    assert action.before == action.after


# --- What is counted ------------------------------------------------------------------------------


def test_it_counts_what_was_not_counted_and_nothing_twice(world: World) -> None:
    world.lay((20, "processed"), (20, "failed"), (10, "skipped"), (20, "processed"), (10, "claimed"), (5, "processed"))
    before = world.checkpoint()
    wanted = world.wanted(10, 85)
    (plan,) = requests.preview([wanted], ADA)
    assert (plan.to_count, plan.deduplicated) == ({"failed": 20, "skipped": 10, "claimed": 10}, 35)
    assert not Replay.objects.exists(), "a preview changes nothing"
    replay = world.begin(wanted)
    assert (replay.status, numbers(replay)) == ("queued", {"total": 75})
    ended = run(replay)
    assert (ended.status, ended.starts) == ("done", 1)
    assert numbers(ended) == {"done": 75, "total": 75, "counted": 40, "deduplicated": 35}
    assert ended.detail == "40 events counted, 35 left out, because they were counted."
    assert {kind for _, _, kind in world.ranges()} == {"processed"}
    world.assert_counted((0, 85))
    after = world.checkpoint()
    assert (after.next_offset, after.epoch, after.owner_id) == (before.next_offset, before.epoch, before.owner_id)
    assert replay_rows.progress(ended)["counted"] == 40
    again = run(world.begin(wanted))
    assert numbers(again) == {"done": 75, "total": 75, "deduplicated": 75}
    world.assert_counted((0, 85))


def test_it_is_audited_and_told_in_the_journal(world: World) -> None:
    world.lay((20, "failed"))
    replay = world.begin(world.wanted(0, 20), reason="  the handler is mended\x00 ")
    action = OperatorAction.objects.get(kind="replay")
    assert (action.outcome, action.username, action.reason) == ("applied", "ada", "the handler is mended")
    assert action.checkpoint == world.checkpoint()
    assert action.after["ranges"][0]["by_kind"] == {"failed": 20}
    assert "20 offsets are counted (20 failed)" in action.detail
    assert replay.action == action
    run(replay)
    told = list(JournalEntry.objects.filter(kind="replay").order_by("pk").values_list("message", "level"))
    assert told == [
        (f"Replay {replay.pk} of 20 offsets by ada: the handler is mended", "info"),
        (f"Replay {replay.pk} done: 20 events counted, 0 left out, because they were counted.", "info"),
    ]


def test_it_keeps_bad_records_as_dead_letters(fails_at: Callable[..., None]) -> None:
    world = World()
    world.produce(30, poison=(3, 4, 17))
    world.lay((10, "processed"), (20, "failed"))
    fails_at("ChokesInDecode", 12, 29)
    ended = run(world.begin(world.wanted(0, 30)))
    assert numbers(ended) == {"done": 30, "total": 30, "counted": 17, "deduplicated": 10, "dead_letters": 3}
    assert world.letters() == [
        (3, "malformed"),
        (4, "malformed"),
        (12, "handler_failed"),
        (17, "malformed"),
        (29, "handler_failed"),
    ]
    world.assert_counted((0, 12), (13, 29))
    assert "3 dead letters" in ended.detail


def test_it_replays_many_ranges_of_many_partitions_and_leaves_the_rest_alone() -> None:
    world = World(2)
    for partition in (0, 1):
        world.produce(60, partition)
        world.lay((20, "failed"), (20, "processed"), (20, "skipped"), partition=partition)
    ended = run(world.begin(world.wanted(5, 10), world.wanted(12, 15), world.wanted(40, 60), world.wanted(0, 40, 1)))
    assert numbers(ended) == {"done": 68, "total": 68, "counted": 48, "deduplicated": 20}
    assert world.ranges()[:5] == [
        (0, 5, "failed"),
        (5, 10, "processed"),
        (10, 12, "failed"),
        (12, 15, "processed"),
        (15, 20, "failed"),
    ]
    assert world.ranges(1)[-1] == (40, 60, "skipped")
    world.assert_counted((5, 10), (12, 15), (20, 60), (0, 40, 1))


def test_it_leaves_what_the_live_worker_has_not_read_to_it(world: World) -> None:
    world.lay((20, "failed"))
    (plan,) = requests.preview([world.wanted(0, 2**62)], ADA)
    assert (plan.readable, plan.counted) == ((0, 20), 20)
    ended = run(world.begin(world.wanted(0, 2**62)))
    assert numbers(ended) == {"done": 20, "total": 20, "counted": 20}
    assert world.checkpoint().next_offset == 20
    world.assert_counted((0, 20))
    world.lay((30, "processed"))
    world.assert_counted((0, 50))


def test_it_replays_past_a_live_offset_that_was_moved_back(world: World) -> None:
    """What lies there is counted once, by whoever comes first."""
    world.lay((20, "processed"), (20, "failed"), (20, "processed"))
    world.seek(10)
    ended = run(world.begin(world.wanted(5, 60)))
    assert numbers(ended) == {"done": 55, "total": 55, "counted": 20, "deduplicated": 35}
    assert world.checkpoint().next_offset == 10
    world.assert_counted((0, 60))
    world.lay((70, "processed"))
    world.assert_counted((0, 80))


def test_a_hole_below_an_old_baseline_stays_the_live_workers() -> None:
    world = World(baseline=20)
    world.produce(60)
    world.lay((20, "failed"))
    world.seek(10)
    world.lay((2, "processed"))
    (plan,) = requests.preview([world.wanted(0, 60)], ADA)
    assert (plan.readable, plan.counted, plan.deduplicated) == ((10, 40), 20, 2)
    assert (plan.outside, plan.not_read_yet) == (10, 8 + 20)
    assert numbers(run(world.begin(world.wanted(0, 60)))) == {"done": 30, "total": 30, "counted": 20, "deduplicated": 2}
    assert world.ranges() == [(10, 12, "processed"), (20, 40, "processed")]
    world.assert_counted((10, 12), (20, 40))
    assert world.checkpoint().next_offset == 12
    world.lay((48, "processed"))
    world.assert_counted((10, 60))


def test_it_runs_beside_a_live_worker_that_goes_on_counting(case: MakeCase) -> None:
    this = case(3_000, partitions=2, poison=0.01)
    failing = {"BATCH_HANDLER": "tests.failing_handlers.RefusedByDatabase", "FAIL_AT": "0:100,1:50,0:900"}
    small = {"FETCH_MAX_RECORDS": "200", "COMMIT_MAX_RECORDS": "200", "FAILED_BATCHES_MAX_IN_A_ROW": "100"}
    failed = LedgerRange.objects.filter(checkpoint__group_id=this.group, kind="failed")
    with background({**this.env, **failing, **small}, this.folder / "worker.log", *this.run_consumer()) as worker:
        wait_for("three failed ranges", lambda: failed.count() == 3)
        wait_for("the backlog to be read", lambda: _read(this) == 3_000)
        more = ("--count", "2000", "--rate", "2000", "--topic", this.topic, "--truth", str(this.folder / "more.csv"))
        with background(this.env, this.folder / "producer.log", "produce_events", *more) as producer:
            wait_for("it to read on", lambda: _read(this) > 3_000)
            wanted = [Wanted(r.checkpoint_id, OffsetRange(r.offsets.lower, r.offsets.upper)) for r in failed.all()]
            replay = requests.begin(wanted, actor=ADA, reason="mended", source=Source.COMMAND)
            assert run(replay).status == "done"
            assert producer.process.wait(60) == 0, producer.output()
        wait_for("all of it to be read", lambda: _read(this) == 5_000)
        assert worker.end() == 0, worker.output()
    assert not failed.exists()
    result = invariants.check(this.group)
    assert result.ok, result
    names = ("views", "likes", "comments", "shares")
    counted = Counter(
        {
            (str(number), name): count
            for dimension, number, *counts in MetricsStore().export(this.group)
            if dimension == "content"
            for name, count in zip(names, counts, strict=True)
        }
    )
    assert not DeadLetter.objects.filter(error_code__in=("refused_by_database", "handler_failed")).exists()
    assert counted == counts_of(this.truth) + counts_of(this.folder / "more.csv")


def _read(this: Case) -> int:
    rows = PartitionCheckpoint.objects.filter(group_id=this.group, retired_at__isnull=True)
    return sum(rows.values_list("next_offset", flat=True))


# --- Chunks, crashes, takeovers -------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
def test_a_replay_that_was_stopped_goes_on_where_it_was(world: World) -> None:
    world.lay((50, "failed"))
    seen: list[Any] = []
    replay = world.begin(world.wanted(0, 50))

    def on_progress(now: Replay) -> None:
        seen.append((now.done_offsets, now.counted))

    stopped = runner.run(replay.pk, should_stop=lambda: len(seen) == 2, on_progress=on_progress)
    assert stopped is not None
    assert (stopped.status, numbers(stopped)) == ("running", {"done": 20, "total": 50, "counted": 20})
    assert seen == [(10, 10), (20, 20)]
    world.assert_counted((0, 20))
    assert replay_rows.without_runner(world.name) == [replay.pk]
    ended = run(replay)
    assert (ended.status, ended.starts, numbers(ended)) == ("done", 2, {"done": 50, "total": 50, "counted": 50})
    world.assert_counted((0, 50))
    assert replay_rows.without_runner(world.name) == []
    assert runner.run(replay.pk) is None, "it has ended"


def test_only_one_process_runs_a_replay(world: World) -> None:
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    token = leases.acquire(f"replay:{replay.pk}", "other", 60)
    assert token is not None
    assert runner.run(replay.pk) is None
    assert Replay.objects.get().status == "queued"
    assert replay_rows.without_runner(world.name) == []
    leases.release(token)
    assert run(replay).status == "done"


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("when", ["between chunks", "in the transaction"])
def test_a_process_whose_replay_was_taken_over_counts_nothing_more(
    world: World, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    take = once(lambda: take_over(replay.pk))
    if when == "between chunks":
        assert runner.run(replay.pk, on_progress=take) is None
        world.assert_counted((0, 10))
    else:
        insert = EngagementProcessor.insert

        def insert_and_lose(self: EngagementProcessor, commits: list[PartitionCommit], connection: Any) -> None:
            insert(self, commits, connection)
            take()

        monkeypatch.setattr(EngagementProcessor, "insert", insert_and_lose)
        assert runner.run(replay.pk) is None
        world.assert_counted()
    assert Lease.objects.get(pk=f"replay:{replay.pk}").holder == "other", "what is another's is not released"
    leases.drop(f"replay:{replay.pk}")
    ended = run(replay)
    assert (ended.status, ended.counted, ended.done_offsets) == ("done", 50, 50)
    world.assert_counted((0, 50))


def test_a_process_whose_replay_was_taken_over_refuses_nothing_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped just before it gave the range up; meanwhile another has done it."""
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))

    def decode(self: EngagementProcessor, batch: RecordBatch) -> DecodedBatch:
        take_over(replay.pk)
        raise RuntimeError("not even nothing")

    with monkeypatch.context() as broken:
        broken.setattr(EngagementProcessor, "decode", decode)
        assert runner.run(replay.pk) is None
    assert ReplayRange.objects.get().state == "waiting"
    assert LedgerRange.objects.get(kind="failed").attempts == 0
    leases.drop(f"replay:{replay.pk}")
    assert numbers(run(replay)) == {"done": 50, "total": 50, "counted": 50}


def test_a_range_moves_only_from_where_it_was_seen_and_only_for_who_holds_the_lease(world: World) -> None:
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    token = leases.acquire(f"replay:{replay.pk}", "me", 60)
    assert token is not None
    seen, stale = ReplayRange.objects.get(), ReplayRange.objects.get()
    replay_rows.advance(seen, replay_rows.Progress(20, counted=20), token)
    for act in (
        lambda: replay_rows.advance(stale, replay_rows.Progress(10, counted=10), token),
        lambda: replay_rows.pass_over(stale, 10, "gone", token, expired=10),
        lambda: replay_rows.give_up(stale, "refused", token),
        lambda: replay_rows.give_up(ReplayRange.objects.get(), "refused", replace(token, epoch=token.epoch + 1)),
    ):
        with pytest.raises(replay_rows.TakenOverError), transaction.atomic():
            act()
    now = ReplayRange.objects.get()
    assert (now.position, now.state, now.detail) == (20, "waiting", "")
    replay.refresh_from_db()
    assert numbers(replay) == {"done": 20, "total": 50, "counted": 20}


@contextmanager
def database_back_after(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What a replay sleeps for, without sleeping; `act` happens meanwhile."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        act()

    with monkeypatch.context() as patched:
        patched.setattr(runner, "time", SimpleNamespace(sleep=sleep))
        yield slept


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("fate", ["before COMMIT", "at COMMIT", "after COMMIT"])
def test_it_counts_once_when_the_connection_is_lost(world: World, fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lay((30, "failed"))
    replay = world.begin(world.wanted(0, 30))
    if fate == "before COMMIT":
        monkeypatch.setattr(failpoints, "_points", {"before_replay_commit": ("error", 2, "")})
        monkeypatch.setattr(failpoints, "_passages", Counter())
    elif fate == "at COMMIT":
        kill = once(lambda: end_session(f"replay-{replay.pk}"))
        monkeypatch.setattr(runner, "failpoint", lambda name: kill() if name == "before_replay_commit" else None)
    else:
        lose_the_answer(monkeypatch)
    with database_back_after(lambda: failpoints._points.clear(), monkeypatch) as slept:
        ended = run(replay)
    assert len(slept) == 1, "it waited for the database"
    assert numbers(ended) == {"done": 30, "total": 30, "counted": 30}
    world.assert_counted((0, 30))


def end_session(application_name: str) -> None:
    with other_session() as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s",
            [application_name],
        ).fetchall()
    assert ended == [(True,)]


def lose_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first COMMIT that moves a replay is done; its answer is never seen."""
    real, advance = WorkerSession.transaction, replay_rows.advance
    moved: list[int] = []

    @contextmanager
    def losing(self: WorkerSession) -> Iterator[None]:
        with real(self):
            yield
        if moved == [1]:
            moved.append(2)
            self.drop()
            raise OperationalError("the connection was lost around COMMIT")

    def noting(*arguments: Any) -> None:
        advance(*arguments)
        if not moved:
            moved.append(1)

    monkeypatch.setattr(WorkerSession, "transaction", losing)
    monkeypatch.setattr(requests, "advance", noting)


def test_it_gives_up_waiting_for_a_database_that_stays_away_and_can_be_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((30, "failed"))
    replay = world.begin(world.wanted(0, 30))
    monkeypatch.setattr(failpoints, "_points", {"before_replay_commit": ("error", 1, "")})
    monkeypatch.setattr(failpoints, "_passages", Counter())
    now = [0.0]
    monkeypatch.setattr(runner, "monotonic", lambda: now[0])
    back = database_back_after(lambda: now.__setitem__(0, now[0] + 10), monkeypatch)
    with back as slept, pytest.raises(OperationalError, match="before_replay_commit"):
        runner.run(replay.pk)
    assert len(slept) == 7, "a minute, and once more"
    world.assert_counted()
    failpoints._points.clear()
    assert run(replay).status == "done"
    world.assert_counted((0, 30))


# --- The ledger changes ---------------------------------------------------------------------------


def test_it_decodes_again_what_a_live_worker_has_counted_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((30, "failed"), (10, "processed"))
    replay = world.begin(world.wanted(0, 30))
    decode = EngagementProcessor.decode

    def live() -> None:
        world.seek(0)
        world.lay((12, "processed"))

    meanwhile = once(live)
    decoded = []

    def decode_meanwhile(self: EngagementProcessor, batch: RecordBatch) -> DecodedBatch:
        done = decode(self, batch)
        if batch.records:
            decoded.append((batch.start, batch.end))
            meanwhile()
        return done

    monkeypatch.setattr(EngagementProcessor, "decode", decode_meanwhile)
    ended = run(replay)
    assert numbers(ended) == {"done": 30, "total": 30, "counted": 18, "deduplicated": 12}
    # By the replay, by the live worker, and by the replay again: what was decoded in vain is not halved.
    assert decoded == [(0, 30), (0, 12), (12, 30)]
    assert world.checkpoint().next_offset == 12
    world.assert_counted((0, 40))


def test_a_live_worker_decodes_again_what_a_replay_has_counted_meanwhile(world: World) -> None:
    """The other way round: the same fence (R12)."""
    world.lay((30, "failed"))
    world.seek(0)
    stale = world.commit_of(world.claim(), 0, 30)
    run(world.begin(world.wanted(0, 30)))
    with transaction.atomic(), pytest.raises(Exception, match="the ledger has changed since"):
        ledger.lock_for_commit([stale])
    world.assert_counted((0, 30))


def test_a_range_whose_ledger_never_keeps_still_is_tried_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((30, "failed"), (10, "skipped"))
    replay = world.begin(world.wanted(0, 30), world.wanted(30, 40))
    miss = ledger.replay_miss
    asked = []

    def missing(commit: PartitionCommit) -> str:
        asked.append(commit.start)
        return "the ledger has changed" if commit.start < 30 else miss(commit)

    monkeypatch.setattr(ledger, "replay_miss", missing)
    ended = run(replay)
    assert asked.count(0) == runner.MAX_REDOS
    assert ended.status == "failed"
    assert "the ledger keeps changing there" in ended.detail
    assert numbers(ended) == {"done": 40, "total": 40, "counted": 10}
    failed = LedgerRange.objects.get(kind="failed")
    assert (failed.attempts, failed.detail) == (1, ended.detail)
    assert failed.retry_at is not None
    world.assert_counted((30, 40))


def test_a_rebuilt_checkpoint_takes_no_replay_any_more(world: World) -> None:
    world.lay((30, "failed"))
    wanted = world.wanted(0, 30)
    replay = world.begin(wanted)
    world.rebuild()
    assert_refused(world, "was retired .rebuilt.; act on the live one", wanted)
    ended = run(replay)
    assert ended.status == "failed"
    assert "its checkpoint was retired (rebuilt)" in ended.detail
    world.assert_counted()
    world.lay((30, "processed"))
    world.assert_counted((0, 30))


def test_a_topic_may_be_called_retired(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that missed is decoded again, whatever its topic's name makes of the words about it."""
    world.lay((30, "failed"))
    miss, said = ledger.replay_miss, ["retired-users-0 [0, 30): the ledger has changed since these offsets were read"]
    monkeypatch.setattr(ledger, "replay_miss", lambda commit: said.pop() if said else miss(commit))
    assert run(world.begin(world.wanted(0, 30))).status == "done"


# --- Refused data ---------------------------------------------------------------------------------


def test_a_batch_that_the_database_refuses_is_halved_down_to_the_record(
    world: World, fails_at: Callable[..., None]
) -> None:
    fails_at("RefusedByDatabase", 7, 23)
    world.lay((10, "processed"), (10, "skipped"), (20, "failed"))
    ended = run(world.begin(world.wanted(0, 40)))
    assert world.letters() == [(23, "refused_by_database")]
    assert numbers(ended) == {"done": 40, "total": 40, "counted": 29, "deduplicated": 10, "dead_letters": 1}
    world.assert_counted((0, 23), (24, 40))


def test_a_refused_record_among_counted_ones_is_set_apart_and_they_are_reported(
    world: World, fails_at: Callable[..., None]
) -> None:
    """Only one record of the chunk is tried at all: there is nothing to halve."""
    world.lay((10, "processed"), (1, "failed"), (10, "processed"))
    fails_at("RefusedByDatabase", 10)
    ended = run(world.begin(world.wanted(0, 21)))
    assert world.letters() == [(10, "refused_by_database")]
    assert numbers(ended) == {"done": 21, "total": 21, "deduplicated": 20, "dead_letters": 1}
    world.assert_counted((0, 10), (11, 21))


def test_no_half_is_passed_over_when_the_ledger_changes_while_records_are_isolated(
    world: World, fails_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((16, "failed"))
    fails_at("RefusedByDatabase", 4)
    miss = ledger.replay_miss
    missed: list[int] = []

    def miss_once(commit: PartitionCommit) -> str:
        if commit.failures and not missed:
            missed.append(commit.start)
            return "the ledger has changed"
        return miss(commit)

    monkeypatch.setattr(ledger, "replay_miss", miss_once)
    ended = run(world.begin(world.wanted(0, 16)))
    assert missed == [4]
    assert numbers(ended) == {"done": 16, "total": 16, "counted": 15, "dead_letters": 1}
    assert world.ranges() == [(0, 16, "processed")]
    world.assert_counted((0, 4), (5, 16))


def test_records_that_are_all_refused_are_no_matter_of_data(
    world: World, fails_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_REFUSED_IN_A_ROW", 5)
    world.lay((40, "failed"))
    fails_at("RefusedByDatabase", *range(10, 40))
    ended = run(world.begin(world.wanted(0, 40)))
    assert ended.status == "failed"
    assert ended.detail.startswith("6 records in a row were refused: ")
    assert "division by zero" in ended.detail
    assert [offset for offset, _ in world.letters()] == [10, 11, 12, 13, 14]
    (left,) = LedgerRange.objects.filter(kind="failed")
    assert (left.offsets.lower, left.offsets.upper, left.attempts) == (15, 40, 1)
    world.assert_counted((0, 10))


def test_few_refused_records_among_good_ones_are_no_row(
    world: World, fails_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_REFUSED_IN_A_ROW", 2)
    world.lay((40, "failed"))
    fails_at("RefusedByDatabase", *range(0, 40, 4))
    ended = run(world.begin(world.wanted(0, 40)))
    assert (ended.status, ended.dead_letters, ended.counted) == ("done", 10, 30)


@pytest.mark.parametrize(
    ("where", "error"),
    [("decode", RuntimeError("no\x00 \ud83d")), ("combine", RuntimeError("no")), ("update", AttributeError("no"))],
)
def test_a_handler_that_fails_at_anything_is_tried_ever_less_often(
    world: World, where: str, error: Exception, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    world.lay((30, "failed"))

    def fail(*_: object) -> None:
        raise error

    settings.REPLAY_ATTEMPTS = 2
    with monkeypatch.context() as broken:
        broken.setattr(EngagementProcessor, where, fail)
        assert run(world.begin(world.wanted(0, 30))).status == "failed"
        failed = LedgerRange.objects.get(kind="failed")
        assert failed.attempts == 1
        assert failed.retry_at is not None
        assert f"{type(error).__name__}: no" in failed.detail
        assert run(world.begin(world.wanted(0, 30))).status == "failed"
    given_up = LedgerRange.objects.get(kind="failed")
    assert given_up.attempts == 2
    assert given_up.retry_at is None, "never again by itself"
    world.assert_counted()
    assert run(world.begin(world.wanted(0, 30))).status == "done", "a person may still replay it"
    world.assert_counted((0, 30))


def test_it_waits_for_a_service_that_the_handler_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the database are no fault of the data, in the handler as well: no dead letter, no refusal."""
    world.lay((30, "failed"))
    update, away = EngagementProcessor.update, [OperationalError("away")]

    def flaky(self: EngagementProcessor, commits: list[PartitionCommit], connection: Any) -> None:
        update(self, commits, connection)
        if away:
            raise away.pop()

    monkeypatch.setattr(EngagementProcessor, "update", flaky)
    with database_back_after(lambda: None, monkeypatch):
        assert run(world.begin(world.wanted(0, 30))).status == "done"
    world.assert_counted((0, 30))
    assert world.letters() == []


# --- What Kafka has deleted -----------------------------------------------------------------------


def test_what_is_gone_before_it_begins_is_reported_and_the_rest_is_counted(world: World) -> None:
    world.lay((10, "processed"), (20, "failed"), (10, "skipped"), (10, "processed"))
    world.delete_records(35)
    (plan,) = requests.preview([world.wanted(0, 50)], ADA)
    assert (plan.readable, plan.expired, plan.to_count) == ((35, 50), 25, {"skipped": 5})
    ended = run(world.begin(world.wanted(0, 50)))
    assert numbers(ended) == {"done": 15, "total": 15, "counted": 5, "deduplicated": 10, "expired": 25}
    assert "25 offsets gone from Kafka" in ended.detail
    world.assert_counted((0, 10), (35, 50))
    assert_refused(world, "Kafka does not have these offsets any more. They are lost", world.wanted(10, 30))


def test_what_is_deleted_meanwhile_is_lost_and_the_rest_is_counted(world: World) -> None:
    world.lay((10, "failed"), (10, "skipped"), (20, "failed"), (10, "processed"))
    replay = world.begin(world.wanted(0, 50))
    world.delete_records(25)
    ended = run(replay)
    assert ended.status == "done"
    assert numbers(ended) == {"done": 50, "total": 50, "counted": 15, "deduplicated": 10, "expired": 25}
    assert world.ranges() == [
        (0, 10, "expired"),
        (10, 20, "skipped"),
        (20, 25, "expired"),
        (25, 40, "processed"),
        (40, 50, "processed"),
    ]
    world.assert_counted((25, 50))
    assert run(world.begin(world.wanted(0, 50))).expired_offsets == 25, "told again, and not retried"


def test_what_is_deleted_whole_is_lost_and_not_tried_again(world: World) -> None:
    world.lay((20, "failed"), (10, "processed"))
    replay = world.begin(world.wanted(0, 20))
    world.delete_records(30)
    ended = run(replay)
    assert (ended.status, numbers(ended)) == ("done", {"done": 20, "total": 20, "expired": 20})
    assert ReplayRange.objects.get().state == "expired"
    expired = LedgerRange.objects.get(kind="expired")
    assert "Kafka does not have offset 0 any more" in expired.detail
    assert not LedgerRange.objects.filter(kind="failed").exists()
    world.assert_counted((20, 30))


def test_nothing_is_called_lost_while_kafka_does_not_tell_where_the_log_begins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition without a leader, for a moment."""
    world.lay((20, "failed"), (10, "processed"))
    replay = world.begin(world.wanted(0, 20))
    world.delete_records(5)
    bounds = KafkaAdmin.log_bounds
    silent: list[dict[Any, Any]] = [{}]

    def without_leader(self: Any, places: Any) -> Any:
        return silent.pop() if silent else bounds(self, places)

    monkeypatch.setattr(KafkaAdmin, "log_bounds", without_leader)
    with database_back_after(lambda: None, monkeypatch) as slept:
        assert numbers(run(replay)) == {"done": 20, "total": 20, "counted": 15, "expired": 5}
    assert len(slept) == 1
    world.assert_counted((5, 30))


def test_a_topic_of_the_same_name_is_another_topic(world: World) -> None:
    world.lay((20, "failed"))
    wanted = world.wanted(0, 20)
    replay = world.begin(wanted)
    world.delete_topic()
    world.create_topic()
    world.values.clear()
    world.produce(20)
    assert_refused(world, "the topic was deleted and created again", wanted)
    ended = run(replay)
    assert ended.status == "failed"
    assert "the topic was deleted, so its offsets mean other records now" in ended.detail
    assert LedgerRange.objects.get().attempts == 1
    world.assert_counted()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("step", [0.0, 1.0])
def test_a_topic_that_is_made_anew_meanwhile_is_noticed_before_anything_of_it_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """However little time has passed since it was last asked: after each fetch it is asked again."""
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    now = [0.0]
    monkeypatch.setattr(runner, "monotonic", lambda: now[0])

    def another(_: Replay) -> None:
        PartitionCheckpoint.objects.update(topic_id="of the topic before")
        now[0] += step

    # What the checkpoint says was read with the range; what Kafka says is asked again.
    asked = []
    describe = KafkaAdmin.describe_topics

    def recreated(self: Any, topics: Any) -> Any:
        asked.append(now[0])
        return describe(self, topics) if len(asked) <= 2 else {}

    monkeypatch.setattr(KafkaAdmin, "describe_topics", recreated)
    ended = runner.run(replay.pk, on_progress=another)
    assert ended is not None
    assert (ended.status, ended.counted, asked) == ("failed", 10, [0.0, 0.0, step])


def test_a_truncated_log_is_not_replayed(world: World) -> None:
    world.lay((50, "failed"))
    PartitionCheckpoint.objects.update(next_offset=120, ledger_end=120)
    LedgerRange.objects.update(offsets=(0, 120))
    assert_refused(world, "the log ends at 100, but the ledger at 120: it was truncated", world.wanted(0, 50))


def test_a_worker_that_counts_on_meanwhile_does_not_make_the_log_look_truncated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((50, "failed"), (50, "processed"))

    def and_then(rows: Any) -> Any:
        seen = logs_of(rows)
        world.produce(20)
        world.lay((20, "failed"))
        return seen

    monkeypatch.setattr("offsets.replays.requests.logs_of", and_then)
    replay = world.begin(world.wanted(0, 200))
    assert numbers(replay) == {"total": 120}
    run(replay)
    world.assert_counted((0, 120))


# --- Refusals -------------------------------------------------------------------------------------


def test_offsets_that_are_being_replayed_are_not_replayed_beside_it(world: World) -> None:
    world.lay((50, "failed"))
    first = world.begin(world.wanted(10, 20), world.wanted(30, 40))
    for start, end in ((0, 11), (19, 25), (12, 13), (5, 45)):
        assert_refused(
            world, f"of replay {first.pk}, which has not ended. Wait, or cancel it", world.wanted(start, end)
        )
    world.begin(world.wanted(0, 10), world.wanted(20, 30))
    run(first)
    world.assert_counted((10, 20), (30, 40))
    world.begin(world.wanted(12, 18))


def test_a_preview_that_is_not_true_any_more_is_refused(world: World) -> None:
    world.lay((50, "failed"))
    run(world.begin(world.wanted(0, 5)))
    says = "has changed since you looked: 50 offsets were to be counted, now 45. Nothing was changed; look again"
    assert_refused(world, says, world.wanted(0, 50, to_count=50), error=StalePreviewError)
    assert run(world.begin(world.wanted(0, 50, to_count=45))).counted == 45


@pytest.mark.parametrize(("start", "end"), [(5, 5), (7, 3), (-1, 5), (0, 2**63), (2**62, 2**62 + 1), (2**80, 2**90)])
def test_an_absurd_range_is_refused(world: World, start: int, end: int) -> None:
    world.lay((50, "failed"))
    assert_refused(world, "is no range of offsets", world.wanted(start, end))
    with pytest.raises(RefusedError, match="is no range of offsets"):
        requests.preview([world.wanted(start, end)], ADA)


@pytest.mark.parametrize("rate", [0, -5, 2**31])
def test_an_absurd_rate_is_refused(world: World, rate: int) -> None:
    world.lay((50, "failed"))
    assert_refused(world, "reads from 1 to 2,147,483,647 records a second", world.wanted(0, 50), rate=rate)


def test_what_cannot_be_replayed_is_refused_as_it_was_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lay((50, "failed"))
    monkeypatch.setattr(requests, "MAX_RANGES", 2)
    assert_refused(world, "At most 2 ranges at once, not 3", *(world.wanted(n, n + 1) for n in range(3)))
    assert_refused(world, "overlap; name each offset once", world.wanted(0, 10), world.wanted(9, 20))
    assert_refused(world, "overlap; name each offset once", world.wanted(0, 10), world.wanted(0, 10))
    assert_refused(world, "nothing of it can be replayed", world.wanted(60, 70))
    assert_refused(world, "nothing of it can be replayed", world.wanted(0, 10), world.wanted(60, 70))
    assert_refused(world, "Nothing is to be replayed")
    assert_refused(world, "There is no checkpoint 12345", Wanted(12345, OffsetRange(0, 5)), error=UnknownPartitionError)
    assert_refused(world, "Say why", world.wanted(0, 5), reason=" \x00 ", error=ReasonError)
    assert_refused(world, "at most 500 are kept", world.wanted(0, 5), reason="x" * 501, error=ReasonError)
    stranger = Actor("eve", allowed=False)
    assert_refused(world, "eve may not replay", world.wanted(0, 5), actor=stranger, error=NotAllowedError)
    with pytest.raises(NotAllowedError):
        requests.preview([world.wanted(0, 5)], stranger)
    assert OperatorAction.objects.latest("pk").username == "eve"


def test_an_automatic_replay_leaves_out_what_is_refused() -> None:
    """One partition whose topic was deleted may not hold up the others of the group."""
    world, other = World(), World()
    world.produce(20)
    other.produce(20)
    world.lay((20, "failed"))
    other.lay((20, "failed"))
    other.delete_topic()
    wanted = [other.wanted(0, 20), world.wanted(0, 20)]
    more = {"actor": AUTOMATIC, "reason": "due", "source": Source.AUTOMATIC, "automatic": True}
    replay = requests.begin(wanted, **more)  # type: ignore[arg-type]
    assert (replay.automatic, replay.group_id, replay.total_offsets) == (True, world.name, 20)
    assert run(replay).counted == 20
    with pytest.raises(Exception, match="Kafka does not tell"):
        requests.begin(wanted[:1], **more)  # type: ignore[arg-type]
    world.rebuild()
    with pytest.raises(RefusedError, match="retired"):
        requests.begin(wanted[1:], **more)  # type: ignore[arg-type]
    assert not OperatorAction.objects.filter(kind="replay").exists(), "what nobody asked for is not audited"


def test_many_ranges_cost_few_questions(world: World, django_assert_max_num_queries: Any) -> None:
    """They are planned while the partition's row is locked, and a live worker waits for it."""
    world.lay((100, "failed"))
    wanted = [world.wanted(n, n + 1, to_count=1) for n in range(0, 100, 2)]
    with django_assert_max_num_queries(20):
        replay = world.begin(*wanted)
    assert replay.ranges.count() == 50


# --- Cancelling -----------------------------------------------------------------------------------


def cancel(replay: Replay, actor: Actor = ADA, reason: str = "enough") -> Replay:
    return requests.cancel(replay.pk, actor=actor, reason=reason, source=Source.COMMAND)


def test_a_queued_replay_is_cancelled_at_once(world: World) -> None:
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    done = cancel(replay)
    assert (done.status, done.detail) == ("cancelled", "Cancelled before it began.")
    assert runner.run(replay.pk) is None
    done.refresh_from_db()
    assert (done.status, done.started_at, done.starts) == ("cancelled", None, 0)
    assert replay_rows.progress(done)["seconds"] is None
    assert replay_rows.without_runner(world.name) == []
    world.assert_counted()
    world.begin(world.wanted(0, 50))


@pytest.mark.usefixtures("small_chunks")
def test_a_running_replay_ends_after_the_chunk_in_hand(world: World) -> None:
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    ended = runner.run(replay.pk, on_progress=once(lambda: cancel(replay)))
    assert ended is not None
    assert (ended.status, ended.detail) == ("cancelled", "Cancelled; what it had counted stays counted.")
    assert (ended.counted, ended.done_offsets) == (10, 10)
    world.assert_counted((0, 10))
    assert OperatorAction.objects.filter(kind="cancel_replay", outcome="applied", username="ada").count() == 1
    assert run(world.begin(world.wanted(0, 50))).counted == 40


@pytest.mark.usefixtures("small_chunks")
def test_a_replay_whose_process_is_gone_can_be_cancelled(world: World) -> None:
    """Nobody works at it any more; whoever takes it next ends it, and its offsets are free."""
    world.lay((50, "failed"))
    seen: list[Any] = []
    replay = world.begin(world.wanted(0, 50))
    runner.run(replay.pk, should_stop=lambda: bool(seen), on_progress=seen.append)
    assert cancel(replay).status == "running"
    assert replay_rows.without_runner(world.name) == [replay.pk]
    ended = run(replay)
    assert (ended.status, ended.counted) == ("cancelled", 10)
    assert replay_rows.without_runner(world.name) == []
    assert run(world.begin(world.wanted(0, 50))).counted == 40


def test_what_cannot_be_cancelled_is_refused_and_audited(world: World) -> None:
    world.lay((50, "failed"))
    replay = world.begin(world.wanted(0, 50))
    for actor, reason, says in ((Actor("eve", allowed=False), "x", "eve may not"), (ADA, " ", "Say why")):
        with pytest.raises(RefusedError, match=says):
            cancel(replay, actor, reason)
    assert run(replay).status == "done"
    with pytest.raises(RefusedError, match=f"Replay {replay.pk} cannot be cancelled. It is done already"):
        cancel(replay)
    with pytest.raises(RefusedError, match="There is no such replay"):
        requests.cancel(replay.pk + 1, actor=ADA, reason="x", source=Source.COMMAND)
    audited = OperatorAction.objects.filter(kind="cancel_replay")
    assert set(audited.values_list("outcome", flat=True)) == {"refused"}
    assert audited.count() == 4


# --- Pace, progress, order ------------------------------------------------------------------------


def test_a_throttled_replay_keeps_its_pace_and_its_lease(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lay((35, "failed"))
    replay = world.begin(world.wanted(0, 35), rate=10)
    settings.HEARTBEAT_TIMEOUT_SECONDS = 2
    now, seen, renewed = [0.0], [], [0]
    monkeypatch.setattr(runner, "monotonic", lambda: now[0])
    renew = leases.renew

    def renewing(*arguments: Any) -> bool:
        renewed[0] += 1
        return renew(*arguments)

    monkeypatch.setattr(leases, "renew", renewing)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds
        renewed[0] = 0

    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=sleep))
    ended = runner.run(replay.pk, on_progress=lambda done: seen.append((round(now[0], 6), done.counted)))
    assert ended is not None
    assert ended.status == "done"
    assert seen == [(0, 10), (1, 20), (2, 30), (3, 35)], "about a second's worth at once, and no wait after the last"
    assert max(slept) <= 0.5, "a quarter of the lease"
    assert renewed[0] > 0, "each sleep is followed by a renewal"


def test_a_throttled_replay_that_sleeps_can_be_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lay((35, "failed"))
    replay = world.begin(world.wanted(0, 35), rate=10)
    now, stop = [0.0], list[float]()
    monkeypatch.setattr(runner, "monotonic", lambda: now[0])
    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=stop.append))
    stopped = runner.run(replay.pk, should_stop=lambda: bool(stop))
    assert stopped is not None
    assert (stopped.status, stopped.counted, len(stop)) == ("running", 10, 1)


def test_progress_tells_rate_and_what_is_left(world: World) -> None:
    world.lay((40, "failed"))
    replay = world.begin(world.wanted(0, 40))
    queued = replay_rows.progress(replay)
    assert (queued["status"], queued["done_offsets"], queued["total_offsets"]) == ("queued", 0, 40)
    assert [queued[name] for name in ("offsets_per_second", "eta_seconds", "seconds", "started_at")] == [None] * 4
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_replay SET status = 'running', done_offsets = 10,"
            " started_at = clock_timestamp() - interval '10 seconds'"
        )
    replay.refresh_from_db()
    running = replay_rows.progress(replay)
    assert running["offsets_per_second"] == pytest.approx(1.0, abs=0.2)
    assert running["eta_seconds"] == pytest.approx(30, abs=6)
    ended = replay_rows.progress(run(replay))
    assert (ended["status"], ended["eta_seconds"], ended["username"]) == ("done", None, "ada")
    assert ended["finished_at"] is not None


@pytest.mark.parametrize(
    ("done", "total", "seconds", "ended", "rates"),
    [
        (0, 100, None, False, (None, None, None)),
        (0, 100, 5.0, False, (None, None, 5.0)),
        (50, 100, 0.0, False, (None, None, 0.0)),
        (50, 100, 10.0, False, (5.0, 10.0, 10.0)),
        (100, 100, 10.0, True, (10.0, None, 10.0)),
        (50, 100, 10.0, True, (5.0, None, 10.0)),
    ],
)
def test_what_is_unknown_is_not_nought(
    done: int, total: int, seconds: float | None, ended: bool, rates: tuple[float | None, ...]
) -> None:
    told = replay_rows.rates(done, total, seconds, ended=ended)
    assert (told["offsets_per_second"], told["eta_seconds"], told["seconds"]) == rates


@pytest.mark.usefixtures("small_chunks")
def test_a_replay_whose_process_is_gone_is_told_with_when_it_was_last_alive(world: World) -> None:
    world.lay((50, "failed"))
    seen: list[Any] = []
    replay = world.begin(world.wanted(0, 50))
    assert replay_rows.orphaned(world.name) == [], "it was never begun"
    runner.run(replay.pk, should_stop=lambda: bool(seen), on_progress=seen.append)
    ((orphan, since),) = replay_rows.orphaned(world.name)
    assert orphan == replay.pk
    assert since <= Lease.objects.get(pk=f"replay:{replay.pk}").expires_at
    assert replay_rows.active_ranges(world.name) == [(world.checkpoint().pk, 0, 50)]
    run(replay)
    assert replay_rows.orphaned(world.name) == []
    assert replay_rows.active_ranges(world.name) == []


def test_old_replays_are_forgotten_and_unended_ones_are_not(world: World) -> None:
    world.lay((50, "failed"))
    old, new, waiting = (world.begin(world.wanted(n, n + 10)) for n in (0, 10, 20))
    run(old)
    run(new)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_replay SET finished_at = finished_at - interval '31 days' WHERE id = %s", [old.pk]
        )
    assert replay_rows.purge(30) == 1
    assert set(Replay.objects.values_list("pk", flat=True)) == {new.pk, waiting.pk}
    assert OperatorAction.objects.filter(kind="replay").count() == 3
    assert invariants.check(world.name).ok


# --- Reading --------------------------------------------------------------------------------------


@contextmanager
def a_reader() -> Iterator[RangeReader]:
    reader = RangeReader()
    try:
        yield reader
    finally:
        reader.close()


def read(reader: RangeReader, world: World, start: int, end: int, at_once: int = 1000) -> list[int]:
    """All offsets that it brings of `[start, end)`, in as many reads as it takes."""
    found: list[int] = []
    while start < end:
        records, upto = reader.read(world.place(), start, end, at_once)
        assert start < upto <= end
        assert all(start <= record.offset() < upto for record in records)
        assert len(records) <= at_once
        found += [record.offset() for record in records]
        start = upto
    return found


def test_it_reads_exactly_a_range_again_and_again_in_any_order(world: World) -> None:
    with a_reader() as reader:
        for start, end, at_once in ((40, 60, 1000), (10, 31, 7), (0, 100, 33), (99, 100, 5), (0, 1, 5), (1, 3, 1)):
            assert read(reader, world, start, end, at_once) == list(range(start, end))


def test_it_ends_where_the_range_does_also_where_no_record_lies_there() -> None:
    world = World()
    with world.transaction() as producer:
        world.produce(5, by=producer)  # 0 to 4, the marker at 5
    with world.transaction(abort=True) as producer:
        producer.produce(world.name, b"aborted", partition=0)  # at 6, its marker at 7
        producer.flush(10)
    with a_reader() as reader:
        assert read(reader, world, 0, 8) == [0, 1, 2, 3, 4]
        assert read(reader, world, 6, 8) == []
        world.produce(4)  # 8 to 11
        # Where the range has holes the client brings what lies behind it, too.
        assert read(reader, world, 3, 6) == [3, 4]
        assert read(reader, world, 6, 8) == []
        assert read(reader, world, 8, 10) == [8, 9]
        assert read(reader, world, 10, 12) == [10, 11]
        assert read(reader, world, 5, 6) == []


def test_what_was_aborted_is_replayed_as_the_nothing_that_it_is() -> None:
    world = World()
    with world.transaction() as producer:
        world.produce(5, by=producer)
    with world.transaction(abort=True) as producer:
        producer.produce(world.name, b"aborted", partition=0)
        producer.flush(10)
    world.lay((8, "failed"))
    ended = run(world.begin(world.wanted(0, 8)))
    assert numbers(ended) == {"done": 8, "total": 8, "counted": 5}
    assert world.ranges() == [(0, 8, "processed")]
    world.assert_counted((0, 8))


def test_it_says_when_the_log_does_not_have_the_offset(world: World) -> None:
    world.delete_records(50)
    with a_reader() as reader:
        for start in (0, 49, 200):
            with pytest.raises(OutOfRangeError, match=f"Kafka does not have offset {start} any more"):
                reader.read(world.place(), start, start + 5, 10)
        assert read(reader, world, 50, 60) == list(range(50, 60)), "and goes on elsewhere"


def test_nobody_joins_a_group_by_replaying(world: World) -> None:
    world.lay((20, "failed"))
    run(world.begin(world.wanted(0, 20)))
    admin = world.admin()
    groups = admin.list_consumer_groups(request_timeout=10).result().valid
    assert not [one.group_id for one in groups if one.group_id.startswith("replay-")]
