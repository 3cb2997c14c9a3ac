"""Replays that are stopped, taken over, or lose their connection."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError, transaction

from analytics.processor import EngagementProcessor
from offsets import failpoints, leases, ledger
from offsets.database import WorkerSession
from offsets.models import (
    Lease,
    LedgerRange,
    Replay,
    ReplayRange,
)
from offsets.replays import rows as replay_rows
from offsets.replays import runner
from offsets.types import DecodedBatch, PartitionCommit, RecordBatch
from tests.support.replay_scenario import Scenario, once, other_session, take_over
from tests.support.replays import assert_refused, database_back_after, numbers, run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.usefixtures("small_chunks")
def test_a_replay_that_was_stopped_goes_on_where_it_was(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    seen: list[Any] = []
    replay = scenario.begin(scenario.wanted(0, 50))

    def on_progress(now: Replay) -> None:
        seen.append((now.done_offsets, now.counted))

    stopped = runner.run(replay.pk, should_stop=lambda: len(seen) == 2, on_progress=on_progress)
    assert stopped is not None
    assert (stopped.status, numbers(stopped)) == ("running", {"done": 20, "total": 50, "counted": 20})
    assert seen == [(10, 10), (20, 20)]
    scenario.assert_counted((0, 20))
    assert replay_rows.without_runner(scenario.name) == [replay.pk]
    ended = run(replay)
    assert (ended.status, ended.starts, numbers(ended)) == ("done", 2, {"done": 50, "total": 50, "counted": 50})
    scenario.assert_counted((0, 50))
    assert replay_rows.without_runner(scenario.name) == []
    assert runner.run(replay.pk) is None, "it has ended"


def test_only_one_process_runs_a_replay(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
    token = leases.acquire(f"replay:{replay.pk}", "other", 60)
    assert token is not None
    assert runner.run(replay.pk) is None
    assert Replay.objects.get().status == "queued"
    assert replay_rows.without_runner(scenario.name) == []
    leases.release(token)
    assert run(replay).status == "done"


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("when", ["between chunks", "in the transaction"])
def test_a_process_whose_replay_was_taken_over_counts_nothing_more(
    scenario: Scenario, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
    take = once(lambda: take_over(replay.pk))
    if when == "between chunks":
        assert runner.run(replay.pk, on_progress=take) is None
        scenario.assert_counted((0, 10))
    else:
        insert = EngagementProcessor.insert

        def insert_and_lose(self: EngagementProcessor, commits: list[PartitionCommit], connection: Any) -> None:
            insert(self, commits, connection)
            take()

        monkeypatch.setattr(EngagementProcessor, "insert", insert_and_lose)
        assert runner.run(replay.pk) is None
        scenario.assert_counted()
    assert Lease.objects.get(pk=f"replay:{replay.pk}").holder == "other", "what is another's is not released"
    leases.drop(f"replay:{replay.pk}")
    ended = run(replay)
    assert (ended.status, ended.counted, ended.done_offsets) == ("done", 50, 50)
    scenario.assert_counted((0, 50))


def test_a_process_whose_replay_was_taken_over_refuses_nothing_either(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped just before it gave the range up; meanwhile another has done it."""
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))

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


def test_a_range_moves_only_from_where_it_was_seen_and_only_for_who_holds_the_lease(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
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


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("fate", ["before COMMIT", "at COMMIT", "after COMMIT"])
def test_it_counts_once_when_the_connection_is_lost(
    scenario: Scenario, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((30, "failed"))
    replay = scenario.begin(scenario.wanted(0, 30))
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
    scenario.assert_counted((0, 30))


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
    monkeypatch.setattr(replay_rows, "advance", noting)


def test_it_gives_up_waiting_for_a_database_that_stays_away_and_can_be_run_again(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((30, "failed"))
    replay = scenario.begin(scenario.wanted(0, 30))
    monkeypatch.setattr(failpoints, "_points", {"before_replay_commit": ("error", 1, "")})
    monkeypatch.setattr(failpoints, "_passages", Counter())
    now = [0.0]
    monkeypatch.setattr(runner, "monotonic", lambda: now[0])
    back = database_back_after(lambda: now.__setitem__(0, now[0] + 10), monkeypatch)
    with back as slept, pytest.raises(OperationalError, match="before_replay_commit"):
        runner.run(replay.pk)
    assert len(slept) == 7, "a minute, and once more"
    scenario.assert_counted()
    failpoints._points.clear()
    assert run(replay).status == "done"
    scenario.assert_counted((0, 30))


def test_it_decodes_again_what_a_live_worker_has_counted_meanwhile(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((30, "failed"), (10, "processed"))
    replay = scenario.begin(scenario.wanted(0, 30))
    decode = EngagementProcessor.decode

    def live() -> None:
        scenario.seek(0)
        scenario.append((12, "processed"))

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
    assert scenario.checkpoint().next_offset == 12
    scenario.assert_counted((0, 40))


def test_a_live_worker_decodes_again_what_a_replay_has_counted_meanwhile(scenario: Scenario) -> None:
    """The other way round: the same fence (R12)."""
    scenario.append((30, "failed"))
    scenario.seek(0)
    stale = scenario.commit_of(scenario.claim(), 0, 30)
    run(scenario.begin(scenario.wanted(0, 30)))
    with transaction.atomic(), pytest.raises(Exception, match="the ledger has changed since"):
        ledger.lock_for_commit([stale])
    scenario.assert_counted((0, 30))


def test_a_range_whose_ledger_never_keeps_still_is_tried_again_later(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((30, "failed"), (10, "skipped"))
    replay = scenario.begin(scenario.wanted(0, 30), scenario.wanted(30, 40))
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
    scenario.assert_counted((30, 40))


def test_a_rebuilt_checkpoint_takes_no_replay_any_more(scenario: Scenario) -> None:
    scenario.append((30, "failed"))
    wanted = scenario.wanted(0, 30)
    replay = scenario.begin(wanted)
    scenario.rebuild()
    assert_refused(scenario, "was retired .rebuilt.; use the live one", wanted)
    ended = run(replay)
    assert ended.status == "failed"
    assert "its checkpoint was retired (rebuilt)" in ended.detail
    scenario.assert_counted()
    scenario.append((30, "processed"))
    scenario.assert_counted((0, 30))


def test_a_topic_may_be_called_retired(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that missed is decoded again, whatever its topic's name makes of the words about it."""
    scenario.append((30, "failed"))
    miss, said = ledger.replay_miss, ["retired-users-0 [0, 30): the ledger has changed since these offsets were read"]
    monkeypatch.setattr(ledger, "replay_miss", lambda commit: said.pop() if said else miss(commit))
    assert run(scenario.begin(scenario.wanted(0, 30))).status == "done"
