"""What is refused, cancelled, throttled and forgotten."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from offsets import leases
from offsets.actions.guards import Actor, ReasonError, Request, Source, UnknownPartitionError
from offsets.errors import NotAllowedError, RefusedError, StalePreviewError
from offsets.models import (
    Lease,
    OperatorAction,
    Replay,
)
from offsets.monitoring import invariants
from offsets.ranges import OffsetRange
from offsets.replays import requests, runner
from offsets.replays import rows as replay_rows
from offsets.replays.plans import Wanted
from tests.support.replay_scenario import ADA, Scenario, once
from tests.support.replays import assert_refused, run

pytestmark = pytest.mark.django_db(transaction=True)


AUTOMATIC = Actor("auto:test", allowed=True)


def test_offsets_that_are_being_replayed_are_not_replayed_beside_it(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    first = scenario.begin(scenario.wanted(10, 20), scenario.wanted(30, 40))
    for start, end in ((0, 11), (19, 25), (12, 13), (5, 45)):
        assert_refused(
            scenario, f"of replay {first.pk}, which is active. Wait, or cancel it", scenario.wanted(start, end)
        )
    scenario.begin(scenario.wanted(0, 10), scenario.wanted(20, 30))
    run(first)
    scenario.assert_counted((10, 20), (30, 40))
    scenario.begin(scenario.wanted(12, 18))


def test_a_preview_that_is_not_true_any_more_is_refused(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    run(scenario.begin(scenario.wanted(0, 5)))
    says = (
        "has changed since you looked: 50 offsets were to be counted, now 45. Nothing was changed; refresh the preview"
    )
    assert_refused(scenario, says, scenario.wanted(0, 50, to_count=50), error=StalePreviewError)
    assert run(scenario.begin(scenario.wanted(0, 50, to_count=45))).counted == 45


@pytest.mark.parametrize(("start", "end"), [(5, 5), (7, 3), (-1, 5), (0, 2**63), (2**62, 2**62 + 1), (2**80, 2**90)])
def test_an_absurd_range_is_refused(scenario: Scenario, start: int, end: int) -> None:
    scenario.append((50, "failed"))
    assert_refused(scenario, "Invalid range", scenario.wanted(start, end))
    with pytest.raises(RefusedError, match="Invalid range"):
        requests.preview([scenario.wanted(start, end)], ADA)


@pytest.mark.parametrize("rate", [0, -5, 2**31])
def test_an_absurd_rate_is_refused(scenario: Scenario, rate: int) -> None:
    scenario.append((50, "failed"))
    assert_refused(scenario, "reads from 1 to 2,147,483,647 records a second", scenario.wanted(0, 50), rate=rate)


def test_what_cannot_be_replayed_is_refused_as_it_was_asked(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((50, "failed"))
    monkeypatch.setattr(requests, "MAX_RANGES", 2)
    assert_refused(scenario, "At most 2 ranges at once, not 3", *(scenario.wanted(n, n + 1) for n in range(3)))
    assert_refused(scenario, "overlap; name each offset once", scenario.wanted(0, 10), scenario.wanted(9, 20))
    assert_refused(scenario, "overlap; name each offset once", scenario.wanted(0, 10), scenario.wanted(0, 10))
    assert_refused(scenario, "nothing to replay", scenario.wanted(60, 70))
    assert_refused(scenario, "nothing to replay", scenario.wanted(0, 10), scenario.wanted(60, 70))
    assert_refused(scenario, "Nothing to replay")
    assert_refused(scenario, "Unknown checkpoint 12345", Wanted(12345, OffsetRange(0, 5)), error=UnknownPartitionError)
    assert_refused(scenario, "Enter a reason", scenario.wanted(0, 5), reason=" \x00 ", error=ReasonError)
    assert_refused(scenario, "the maximum is 500", scenario.wanted(0, 5), reason="x" * 501, error=ReasonError)
    stranger = Actor("eve", allowed=False)
    assert_refused(scenario, "eve may not replay", scenario.wanted(0, 5), actor=stranger, error=NotAllowedError)
    with pytest.raises(NotAllowedError):
        requests.preview([scenario.wanted(0, 5)], stranger)
    assert OperatorAction.objects.latest("pk").username == "eve"


def test_an_automatic_replay_leaves_out_what_is_refused() -> None:
    """One partition whose topic was deleted may not hold up the others of the group."""
    scenario, other = Scenario(), Scenario()
    scenario.produce(20)
    other.produce(20)
    scenario.append((20, "failed"))
    other.append((20, "failed"))
    other.delete_topic()
    wanted = [other.wanted(0, 20), scenario.wanted(0, 20)]
    due = Request(AUTOMATIC, "due", Source.AUTOMATIC)
    replay = requests.begin(wanted, due, automatic=True)
    assert (replay.automatic, replay.group_id, replay.total_offsets) == (True, scenario.name, 20)
    assert run(replay).counted == 20
    with pytest.raises(Exception, match="Cannot read the log bounds"):
        requests.begin(wanted[:1], due, automatic=True)
    scenario.rebuild()
    with pytest.raises(RefusedError, match="retired"):
        requests.begin(wanted[1:], due, automatic=True)
    assert not OperatorAction.objects.filter(kind="replay").exists(), "what nobody asked for is not audited"


def test_many_ranges_cost_few_questions(scenario: Scenario, django_assert_max_num_queries: Any) -> None:
    """They are planned while the partition's row is locked, and a live worker waits for it."""
    scenario.append((100, "failed"))
    wanted = [scenario.wanted(n, n + 1, to_count=1) for n in range(0, 100, 2)]
    with django_assert_max_num_queries(20):
        replay = scenario.begin(*wanted)
    assert replay.ranges.count() == 50


def cancel(replay: Replay, actor: Actor = ADA, reason: str = "enough") -> Replay:
    return requests.cancel(replay.pk, Request(actor, reason, Source.COMMAND))


def test_a_queued_replay_is_cancelled_at_once(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
    done = cancel(replay)
    assert (done.status, done.detail) == ("cancelled", "Cancelled before it began.")
    assert runner.run(replay.pk) is None
    done.refresh_from_db()
    assert (done.status, done.started_at, done.starts) == ("cancelled", None, 0)
    assert replay_rows.progress(done)["seconds"] is None
    assert replay_rows.without_runner(scenario.name) == []
    scenario.assert_counted()
    scenario.begin(scenario.wanted(0, 50))


@pytest.mark.usefixtures("small_chunks")
def test_a_running_replay_ends_after_the_chunk_in_hand(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
    ended = runner.run(replay.pk, on_progress=once(lambda: cancel(replay)))
    assert ended is not None
    assert (ended.status, ended.detail) == ("cancelled", "Cancelled; counts so far stay.")
    assert (ended.counted, ended.done_offsets) == (10, 10)
    scenario.assert_counted((0, 10))
    assert OperatorAction.objects.filter(kind="cancel_replay", outcome="applied", username="ada").count() == 1
    assert run(scenario.begin(scenario.wanted(0, 50))).counted == 40


@pytest.mark.usefixtures("small_chunks")
def test_a_replay_whose_process_is_gone_can_be_cancelled(scenario: Scenario) -> None:
    """Nobody works at it any more; whoever takes it next ends it, and its offsets are free."""
    scenario.append((50, "failed"))
    seen: list[Any] = []
    replay = scenario.begin(scenario.wanted(0, 50))
    runner.run(replay.pk, should_stop=lambda: bool(seen), on_progress=seen.append)
    assert cancel(replay).status == "running"
    assert replay_rows.without_runner(scenario.name) == [replay.pk]
    ended = run(replay)
    assert (ended.status, ended.counted) == ("cancelled", 10)
    assert replay_rows.without_runner(scenario.name) == []
    assert run(scenario.begin(scenario.wanted(0, 50))).counted == 40


def test_what_cannot_be_cancelled_is_refused_and_audited(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
    for actor, reason, says in ((Actor("eve", allowed=False), "x", "eve may not"), (ADA, " ", "Enter a reason")):
        with pytest.raises(RefusedError, match=says):
            cancel(replay, actor, reason)
    assert run(replay).status == "done"
    with pytest.raises(RefusedError, match=f"Replay {replay.pk} cannot be cancelled. It is already done"):
        cancel(replay)
    with pytest.raises(RefusedError, match="Unknown replay"):
        requests.cancel(replay.pk + 1, Request(ADA, "x", Source.COMMAND))
    audited = OperatorAction.objects.filter(kind="cancel_replay")
    assert set(audited.values_list("outcome", flat=True)) == {"refused"}
    assert audited.count() == 4


def test_a_throttled_replay_keeps_its_pace_and_its_lease(
    scenario: Scenario, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((35, "failed"))
    replay = scenario.begin(scenario.wanted(0, 35), rate=10)
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


def test_a_throttled_replay_that_sleeps_can_be_stopped(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.append((35, "failed"))
    replay = scenario.begin(scenario.wanted(0, 35), rate=10)
    now, stop = [0.0], list[float]()
    monkeypatch.setattr(runner, "monotonic", lambda: now[0])
    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=stop.append))
    stopped = runner.run(replay.pk, should_stop=lambda: bool(stop))
    assert stopped is not None
    assert (stopped.status, stopped.counted, len(stop)) == ("running", 10, 1)


def test_progress_tells_rate_and_what_is_left(scenario: Scenario) -> None:
    scenario.append((40, "failed"))
    replay = scenario.begin(scenario.wanted(0, 40))
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
def test_a_replay_whose_process_is_gone_is_told_with_when_it_was_last_alive(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    seen: list[Any] = []
    replay = scenario.begin(scenario.wanted(0, 50))
    assert replay_rows.orphaned(scenario.name) == [], "it was never begun"
    runner.run(replay.pk, should_stop=lambda: bool(seen), on_progress=seen.append)
    ((orphan, since),) = replay_rows.orphaned(scenario.name)
    assert orphan == replay.pk
    assert since <= Lease.objects.get(pk=f"replay:{replay.pk}").expires_at
    assert replay_rows.active_ranges(scenario.name) == [(scenario.checkpoint().pk, 0, 50)]
    run(replay)
    assert replay_rows.orphaned(scenario.name) == []
    assert replay_rows.active_ranges(scenario.name) == []


def test_old_replays_are_forgotten_and_unended_ones_are_not(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    old, new, waiting = (scenario.begin(scenario.wanted(n, n + 10)) for n in (0, 10, 20))
    run(old)
    run(new)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_replay SET finished_at = finished_at - interval '31 days' WHERE id = %s", [old.pk]
        )
    assert replay_rows.purge(30) == 1
    assert set(Replay.objects.values_list("pk", flat=True)) == {new.pk, waiting.pk}
    assert OperatorAction.objects.filter(kind="replay").count() == 3
    assert invariants.check(scenario.name).ok
