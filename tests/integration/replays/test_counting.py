"""A replay counts what was not counted, and nothing twice."""

from collections import Counter
from collections.abc import Callable

import pytest

from analytics.metrics_store import MetricsStore
from offsets.actions.guards import Request, Source
from offsets.models import (
    DeadLetter,
    JournalEntry,
    LedgerRange,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
)
from offsets.monitoring import invariants
from offsets.ranges import OffsetRange
from offsets.replays import requests
from offsets.replays import rows as replay_rows
from offsets.replays.plans import Wanted
from tests.support.cases import Case
from tests.support.processes import background, wait_for
from tests.support.replay_scenario import ADA, Scenario
from tests.support.replays import numbers, run
from tests.support.truth import counts_of

pytestmark = pytest.mark.django_db(transaction=True)


MakeCase = Callable[..., Case]


def test_it_counts_what_was_not_counted_and_nothing_twice(scenario: Scenario) -> None:
    scenario.append(
        (20, "processed"), (20, "failed"), (10, "skipped"), (20, "processed"), (10, "claimed"), (5, "processed")
    )
    before = scenario.checkpoint()
    wanted = scenario.wanted(10, 85)
    (plan,) = requests.preview([wanted], ADA)
    assert (plan.to_count, plan.deduplicated) == ({"failed": 20, "skipped": 10, "claimed": 10}, 35)
    assert not Replay.objects.exists(), "a preview changes nothing"
    replay = scenario.begin(wanted)
    assert (replay.status, numbers(replay)) == ("queued", {"total": 75})
    ended = run(replay)
    assert (ended.status, ended.starts) == ("done", 1)
    assert numbers(ended) == {"done": 75, "total": 75, "counted": 40, "deduplicated": 35}
    assert ended.detail == "40 events counted, 35 already counted."
    assert {kind for _, _, kind in scenario.ranges()} == {"processed"}
    scenario.assert_counted((0, 85))
    after = scenario.checkpoint()
    assert (after.next_offset, after.epoch, after.owner_id) == (before.next_offset, before.epoch, before.owner_id)
    assert replay_rows.progress(ended)["counted"] == 40
    again = run(scenario.begin(wanted))
    assert numbers(again) == {"done": 75, "total": 75, "deduplicated": 75}
    scenario.assert_counted((0, 85))


def test_it_is_audited_and_told_in_the_journal(scenario: Scenario) -> None:
    scenario.append((20, "failed"))
    replay = scenario.begin(scenario.wanted(0, 20), reason="  the handler is mended\x00 ")
    action = OperatorAction.objects.get(kind="replay")
    assert (action.outcome, action.username, action.reason) == ("applied", "ada", "the handler is mended")
    assert action.checkpoint == scenario.checkpoint()
    assert action.after["ranges"][0]["by_kind"] == {"failed": 20}
    assert "20 offsets are counted (20 failed)" in action.detail
    assert replay.action == action
    run(replay)
    told = list(JournalEntry.objects.filter(kind="replay").order_by("pk").values_list("message", "level"))
    assert told == [
        (f"Replay {replay.pk} of 20 offsets by ada: the handler is mended", "info"),
        (f"Replay {replay.pk} done: 20 events counted, 0 already counted.", "info"),
    ]


def test_it_keeps_bad_records_as_dead_letters(fails_at: Callable[..., None]) -> None:
    scenario = Scenario()
    scenario.produce(30, poison=(3, 4, 17))
    scenario.append((10, "processed"), (20, "failed"))
    fails_at("ChokesInDecode", 12, 29)
    ended = run(scenario.begin(scenario.wanted(0, 30)))
    assert numbers(ended) == {"done": 30, "total": 30, "counted": 17, "deduplicated": 10, "dead_letters": 3}
    assert scenario.letters() == [
        (3, "malformed"),
        (4, "malformed"),
        (12, "handler_failed"),
        (17, "malformed"),
        (29, "handler_failed"),
    ]
    scenario.assert_counted((0, 12), (13, 29))
    assert "3 dead letters" in ended.detail


def test_it_replays_many_ranges_of_many_partitions_and_leaves_the_rest_alone() -> None:
    scenario = Scenario(2)
    for partition in (0, 1):
        scenario.produce(60, partition)
        scenario.append((20, "failed"), (20, "processed"), (20, "skipped"), partition=partition)
    ended = run(
        scenario.begin(
            scenario.wanted(5, 10), scenario.wanted(12, 15), scenario.wanted(40, 60), scenario.wanted(0, 40, 1)
        )
    )
    assert numbers(ended) == {"done": 68, "total": 68, "counted": 48, "deduplicated": 20}
    assert scenario.ranges()[:5] == [
        (0, 5, "failed"),
        (5, 10, "processed"),
        (10, 12, "failed"),
        (12, 15, "processed"),
        (15, 20, "failed"),
    ]
    assert scenario.ranges(1)[-1] == (40, 60, "skipped")
    scenario.assert_counted((5, 10), (12, 15), (20, 60), (0, 40, 1))


def test_it_leaves_what_the_live_worker_has_not_read_to_it(scenario: Scenario) -> None:
    scenario.append((20, "failed"))
    (plan,) = requests.preview([scenario.wanted(0, 2**62)], ADA)
    assert (plan.readable, plan.counted) == ((0, 20), 20)
    ended = run(scenario.begin(scenario.wanted(0, 2**62)))
    assert numbers(ended) == {"done": 20, "total": 20, "counted": 20}
    assert scenario.checkpoint().next_offset == 20
    scenario.assert_counted((0, 20))
    scenario.append((30, "processed"))
    scenario.assert_counted((0, 50))


def test_it_replays_past_a_live_offset_that_was_moved_back(scenario: Scenario) -> None:
    """What lies there is counted once, by whoever comes first."""
    scenario.append((20, "processed"), (20, "failed"), (20, "processed"))
    scenario.seek(10)
    ended = run(scenario.begin(scenario.wanted(5, 60)))
    assert numbers(ended) == {"done": 55, "total": 55, "counted": 20, "deduplicated": 35}
    assert scenario.checkpoint().next_offset == 10
    scenario.assert_counted((0, 60))
    scenario.append((70, "processed"))
    scenario.assert_counted((0, 80))


def test_a_hole_below_an_old_baseline_stays_the_live_workers() -> None:
    scenario = Scenario(baseline=20)
    scenario.produce(60)
    scenario.append((20, "failed"))
    scenario.seek(10)
    scenario.append((2, "processed"))
    (plan,) = requests.preview([scenario.wanted(0, 60)], ADA)
    assert (plan.readable, plan.counted, plan.deduplicated) == ((10, 40), 20, 2)
    assert (plan.outside, plan.not_read_yet) == (10, 8 + 20)
    assert numbers(run(scenario.begin(scenario.wanted(0, 60)))) == {
        "done": 30,
        "total": 30,
        "counted": 20,
        "deduplicated": 2,
    }
    assert scenario.ranges() == [(10, 12, "processed"), (20, 40, "processed")]
    scenario.assert_counted((10, 12), (20, 40))
    assert scenario.checkpoint().next_offset == 12
    scenario.append((48, "processed"))
    scenario.assert_counted((10, 60))


def test_it_runs_beside_a_live_worker_that_goes_on_counting(case: MakeCase) -> None:
    this = case(3_000, partitions=2, poison=0.01)
    failing = {"BATCH_HANDLER": "tests.support.handlers.RefusedByDatabase", "FAIL_AT": "0:100,1:50,0:900"}
    small = {"FETCH_MAX_RECORDS": "200", "COMMIT_MAX_RECORDS": "200", "FAILED_BATCHES_MAX_IN_A_ROW": "100"}
    failed = LedgerRange.objects.filter(checkpoint__group_id=this.group, kind="failed")
    with background({**this.env, **failing, **small}, this.folder / "worker.log", *this.run_consumer()) as worker:
        wait_for("three failed ranges", lambda: failed.count() == 3)
        wait_for("the backlog to be read", lambda: _read(this) == 3_000)
        more = ("--count", "2000", "--rate", "2000", "--topic", this.topic, "--truth", str(this.folder / "more.csv"))
        with background(this.env, this.folder / "producer.log", "produce_events", *more) as producer:
            wait_for("it to read on", lambda: _read(this) > 3_000)
            wanted = [Wanted(r.checkpoint_id, OffsetRange(r.offsets.lower, r.offsets.upper)) for r in failed.all()]
            replay = requests.begin(wanted, Request(ADA, "mended", Source.COMMAND))
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
