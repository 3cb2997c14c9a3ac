"""Logs that are deleted, truncated or recreated before or during a replay."""

from typing import Any

import pytest

from offsets.actions.logs import logs_of
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.divergence import Comparison
from offsets.models import (
    LedgerRange,
    PartitionCheckpoint,
    Replay,
    ReplayRange,
)
from offsets.replays import requests, runner
from offsets.types import TopicPartition
from tests.support.replay_scenario import ADA, Scenario
from tests.support.replays import assert_refused, database_back_after, numbers, run

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_is_gone_before_it_begins_is_reported_and_the_rest_is_counted(scenario: Scenario) -> None:
    scenario.append((10, "processed"), (20, "failed"), (10, "skipped"), (10, "processed"))
    scenario.delete_records(35)
    (plan,) = requests.preview([scenario.wanted(0, 50)], ADA)
    assert (plan.readable, plan.expired, plan.to_count) == ((35, 50), 25, {"skipped": 5})
    ended = run(scenario.begin(scenario.wanted(0, 50)))
    assert numbers(ended) == {"done": 15, "total": 15, "counted": 5, "deduplicated": 10, "expired": 25}
    assert "25 offsets no longer in Kafka" in ended.detail
    scenario.assert_counted((0, 10), (35, 50))
    assert_refused(scenario, "Kafka no longer has these offsets. They are lost", scenario.wanted(10, 30))


def test_what_is_deleted_meanwhile_is_lost_and_the_rest_is_counted(scenario: Scenario) -> None:
    scenario.append((10, "failed"), (10, "skipped"), (20, "failed"), (10, "processed"))
    replay = scenario.begin(scenario.wanted(0, 50))
    scenario.delete_records(25)
    ended = run(replay)
    assert ended.status == "done"
    assert numbers(ended) == {"done": 50, "total": 50, "counted": 15, "deduplicated": 10, "expired": 25}
    assert scenario.ranges() == [
        (0, 10, "expired"),
        (10, 20, "skipped"),
        (20, 25, "expired"),
        (25, 40, "processed"),
        (40, 50, "processed"),
    ]
    scenario.assert_counted((25, 50))
    assert run(scenario.begin(scenario.wanted(0, 50))).expired_offsets == 25, "told again, and not retried"


def test_what_is_deleted_whole_is_lost_and_not_tried_again(scenario: Scenario) -> None:
    scenario.append((20, "failed"), (10, "processed"))
    replay = scenario.begin(scenario.wanted(0, 20))
    scenario.delete_records(30)
    ended = run(replay)
    assert (ended.status, numbers(ended)) == ("done", {"done": 20, "total": 20, "expired": 20})
    assert ReplayRange.objects.get().state == "expired"
    expired = LedgerRange.objects.get(kind="expired")
    assert "Kafka no longer has offset 0" in expired.detail
    assert not LedgerRange.objects.filter(kind="failed").exists()
    scenario.assert_counted((20, 30))


def test_nothing_is_called_lost_while_kafka_does_not_tell_where_the_log_begins(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition without a leader, for a moment."""
    scenario.append((20, "failed"), (10, "processed"))
    replay = scenario.begin(scenario.wanted(0, 20))
    scenario.delete_records(5)
    bounds = KafkaAdmin.log_bounds
    silent: list[dict[Any, Any]] = [{}]

    def without_leader(self: Any, places: Any) -> Any:
        return silent.pop() if silent else bounds(self, places)

    monkeypatch.setattr(KafkaAdmin, "log_bounds", without_leader)
    with database_back_after(lambda: None, monkeypatch) as slept:
        assert numbers(run(replay)) == {"done": 20, "total": 20, "counted": 15, "expired": 5}
    assert len(slept) == 1
    scenario.assert_counted((5, 30))


def test_a_topic_of_the_same_name_is_another_topic(scenario: Scenario) -> None:
    scenario.append((20, "failed"))
    wanted = scenario.wanted(0, 20)
    replay = scenario.begin(wanted)
    scenario.delete_topic()
    scenario.create_topic()
    scenario.values.clear()
    scenario.produce(20)
    assert_refused(scenario, "the topic was deleted and created again", wanted)
    ended = run(replay)
    assert ended.status == "failed"
    assert "the topic was deleted, so its offsets mean other records now" in ended.detail
    assert LedgerRange.objects.get().attempts == 1
    scenario.assert_counted()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("step", [0.0, 1.0])
def test_a_topic_that_is_made_anew_meanwhile_is_noticed_before_anything_of_it_is_counted(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """However little time has passed since it was last asked: after each fetch it is asked again."""
    scenario.append((50, "failed"))
    replay = scenario.begin(scenario.wanted(0, 50))
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


def test_a_truncated_log_is_not_replayed(scenario: Scenario) -> None:
    scenario.append((50, "failed"))
    PartitionCheckpoint.objects.update(next_offset=120, ledger_end=120)
    LedgerRange.objects.update(offsets=(0, 120))
    assert_refused(
        scenario, "the log ends at 100, but the ledger at 120. The log was truncated", scenario.wanted(0, 50)
    )


def test_a_log_that_was_truncated_and_has_grown_again_is_not_replayed(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end says nothing: a broker compares the leader epoch of what was read with its log."""
    scenario.append((50, "failed"))
    place = TopicPartition(scenario.name, 0)
    monkeypatch.setattr("offsets.kafka.divergence.compare", lambda read: {place: Comparison(True, 40)} if read else {})
    PartitionCheckpoint.objects.update(leader_epoch=None)
    assert scenario.begin(scenario.wanted(0, 10)), "unknown is no reason to refuse"
    PartitionCheckpoint.objects.update(leader_epoch=99)
    assert_refused(scenario, "was truncated at 40 and has grown again", scenario.wanted(10, 50))


def test_a_worker_that_counts_on_meanwhile_does_not_make_the_log_look_truncated(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((50, "failed"), (50, "processed"))

    def and_then(rows: Any) -> Any:
        seen = logs_of(rows)
        scenario.produce(20)
        scenario.append((20, "failed"))
        return seen

    monkeypatch.setattr("offsets.replays.requests.logs_of", and_then)
    replay = scenario.begin(scenario.wanted(0, 200))
    assert numbers(replay) == {"total": 120}
    run(replay)
    scenario.assert_counted((0, 120))
