"""Records and batches that fail in a replay."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from analytics.processor import EngagementProcessor
from offsets import ledger
from offsets.models import (
    LedgerRange,
)
from offsets.replays import runner
from offsets.types import PartitionCommit
from tests.support.replay_scenario import Scenario
from tests.support.replays import database_back_after, numbers, run

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_batch_that_the_database_refuses_is_halved_down_to_the_record(
    scenario: Scenario, fails_at: Callable[..., None]
) -> None:
    fails_at("RefusedByDatabase", 7, 23)
    scenario.append((10, "processed"), (10, "skipped"), (20, "failed"))
    ended = run(scenario.begin(scenario.wanted(0, 40)))
    assert scenario.letters() == [(23, "refused_by_database")]
    assert numbers(ended) == {"done": 40, "total": 40, "counted": 29, "deduplicated": 10, "dead_letters": 1}
    scenario.assert_counted((0, 23), (24, 40))


def test_a_refused_record_among_counted_ones_is_set_apart_and_they_are_reported(
    scenario: Scenario, fails_at: Callable[..., None]
) -> None:
    """Only one record of the chunk is tried at all: there is nothing to halve."""
    scenario.append((10, "processed"), (1, "failed"), (10, "processed"))
    fails_at("RefusedByDatabase", 10)
    ended = run(scenario.begin(scenario.wanted(0, 21)))
    assert scenario.letters() == [(10, "refused_by_database")]
    assert numbers(ended) == {"done": 21, "total": 21, "deduplicated": 20, "dead_letters": 1}
    scenario.assert_counted((0, 10), (11, 21))


def test_no_half_is_passed_over_when_the_ledger_changes_while_records_are_isolated(
    scenario: Scenario, fails_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.append((16, "failed"))
    fails_at("RefusedByDatabase", 4)
    miss = ledger.replay_miss
    missed: list[int] = []

    def miss_once(commit: PartitionCommit) -> str:
        if commit.failures and not missed:
            missed.append(commit.start)
            return "the ledger has changed"
        return miss(commit)

    monkeypatch.setattr(ledger, "replay_miss", miss_once)
    ended = run(scenario.begin(scenario.wanted(0, 16)))
    assert missed == [4]
    assert numbers(ended) == {"done": 16, "total": 16, "counted": 15, "dead_letters": 1}
    assert scenario.ranges() == [(0, 16, "processed")]
    scenario.assert_counted((0, 4), (5, 16))


def test_records_that_are_all_refused_are_no_matter_of_data(
    scenario: Scenario, fails_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_REFUSED_IN_A_ROW", 5)
    scenario.append((40, "failed"))
    fails_at("RefusedByDatabase", *range(10, 40))
    ended = run(scenario.begin(scenario.wanted(0, 40)))
    assert ended.status == "failed"
    assert ended.detail.startswith("6 records in a row were rejected: ")
    assert "division by zero" in ended.detail
    assert [offset for offset, _ in scenario.letters()] == [10, 11, 12, 13, 14]
    (left,) = LedgerRange.objects.filter(kind="failed")
    assert (left.offsets.lower, left.offsets.upper, left.attempts) == (15, 40, 1)
    scenario.assert_counted((0, 10))


def test_few_refused_records_among_good_ones_are_no_row(
    scenario: Scenario, fails_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_REFUSED_IN_A_ROW", 2)
    scenario.append((40, "failed"))
    fails_at("RefusedByDatabase", *range(0, 40, 4))
    ended = run(scenario.begin(scenario.wanted(0, 40)))
    assert (ended.status, ended.dead_letters, ended.counted) == ("done", 10, 30)


@pytest.mark.parametrize(
    ("where", "error"),
    [("decode", RuntimeError("no\x00 \ud83d")), ("combine", RuntimeError("no")), ("update", AttributeError("no"))],
)
def test_a_handler_that_fails_at_anything_is_tried_ever_less_often(
    scenario: Scenario, where: str, error: Exception, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    scenario.append((30, "failed"))

    def fail(*_: object) -> None:
        raise error

    settings.REPLAY_ATTEMPTS = 2
    with monkeypatch.context() as broken:
        broken.setattr(EngagementProcessor, where, fail)
        assert run(scenario.begin(scenario.wanted(0, 30))).status == "failed"
        failed = LedgerRange.objects.get(kind="failed")
        assert failed.attempts == 1
        assert failed.retry_at is not None
        assert f"{type(error).__name__}: no" in failed.detail
        assert run(scenario.begin(scenario.wanted(0, 30))).status == "failed"
    given_up = LedgerRange.objects.get(kind="failed")
    assert given_up.attempts == 2
    assert given_up.retry_at is None, "never again by itself"
    scenario.assert_counted()
    assert run(scenario.begin(scenario.wanted(0, 30))).status == "done", "a person may still replay it"
    scenario.assert_counted((0, 30))


def test_it_waits_for_a_service_that_the_handler_needs(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the database are no fault of the data, in the handler as well: no dead letter, no refusal."""
    scenario.append((30, "failed"))
    update, away = EngagementProcessor.update, [OperationalError("away")]

    def flaky(self: EngagementProcessor, commits: list[PartitionCommit], connection: Any) -> None:
        update(self, commits, connection)
        if away:
            raise away.pop()

    monkeypatch.setattr(EngagementProcessor, "update", flaky)
    with database_back_after(lambda: None, monkeypatch):
        assert run(scenario.begin(scenario.wanted(0, 30))).status == "done"
    scenario.assert_counted((0, 30))
    assert scenario.letters() == []
