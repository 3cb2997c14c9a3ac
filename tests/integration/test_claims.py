"""Claims while Kafka does not say everything: no leader, an open transaction, bounds that are older than a commit."""

import uuid
from typing import Any

import pytest

from offsets import ledger
from offsets.kafka.admin import LogBounds
from offsets.models import PartitionCheckpoint
from offsets.types import TopicPartition
from tests.support.coordinator_members import LOG_END, PLACES, TOPIC, FakeAdmin, Member

pytestmark = pytest.mark.django_db(transaction=True)

FIRST, SECOND = PLACES
THIRD = TopicPartition(TOPIC, 2)


class Scenario:
    def __init__(self) -> None:
        self.group = f"claims-{uuid.uuid4().hex[:8]}"
        self.admin = FakeAdmin()
        self.member = Member(self.group, self.admin)
        self.now = 1000.0

    def assign(self, *places: TopicPartition) -> None:
        self.member.coordinator.on_assign(list(places))

    def retry(self) -> None:
        self.now += 10
        self.member.coordinator.retry_claims()

    def row(self, place: TopicPartition) -> PartitionCheckpoint:
        return PartitionCheckpoint.objects.live(self.group).get(partition=place.partition)

    @property
    def owned(self) -> set[TopicPartition]:
        return set(self.member.owned)

    @property
    def waits(self) -> str:
        return self.member.coordinator.waits()


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> Scenario:
    made = Scenario()
    monkeypatch.setattr("offsets.processing.coordinator.monotonic", lambda: made.now)
    return made


@pytest.mark.parametrize(("baseline", "begins"), [("earliest", 7), ("latest", LOG_END), ("group", 7)])
def test_a_partition_without_a_leader_delays_only_its_own_claim(
    scenario: Scenario, settings: Any, baseline: str, begins: int
) -> None:
    settings.OFFSET_BASELINE = baseline
    scenario.admin.starts = dict.fromkeys(PLACES, 7)
    scenario.admin.leaderless = frozenset({1})
    scenario.assign(*PLACES)
    assert scenario.owned == {FIRST}
    assert "t-1 waits: it has no leader" in scenario.waits
    assert (scenario.row(SECOND).owner_id, scenario.row(SECOND).epoch) == (None, 0)

    scenario.retry()
    assert scenario.owned == {FIRST}

    scenario.admin.leaderless = frozenset()
    scenario.retry()
    assert scenario.owned == set(PLACES)
    assert scenario.waits == ""
    row = scenario.row(SECOND)
    kind = "latest" if baseline == "latest" else "earliest"
    # As of the first claim, not 0 as a partition by which the topic grew.
    assert (row.baseline_kind, row.baseline_offset, row.next_offset, row.ledger_end) == (kind, begins, begins, begins)
    assert scenario.member.client.at == {FIRST: begins, SECOND: begins}


def test_a_commit_of_the_group_is_adopted_without_a_leader(scenario: Scenario, settings: Any) -> None:
    settings.OFFSET_BASELINE = "group"
    scenario.admin.group_commits = {SECOND: 31}
    scenario.admin.leaderless = frozenset({1})
    scenario.assign(*PLACES)
    assert scenario.owned == set(PLACES)
    assert (scenario.row(SECOND).baseline_kind, scenario.row(SECOND).next_offset) == ("group", 31)


def test_a_partition_without_a_leader_by_which_the_topic_grew_begins_at_0(scenario: Scenario, settings: Any) -> None:
    settings.OFFSET_BASELINE = "latest"
    scenario.assign(*PLACES)
    scenario.admin.partitions, scenario.admin.leaderless = 3, frozenset({2})
    scenario.assign(THIRD)
    assert scenario.owned == {*PLACES, THIRD}
    assert (scenario.row(THIRD).baseline_kind, scenario.row(THIRD).next_offset) == ("grown", 0)


def test_a_leader_that_is_lost_later_delays_no_claim(scenario: Scenario) -> None:
    scenario.assign(*PLACES)
    scenario.member.coordinator.on_revoke(list(PLACES))
    scenario.admin.leaderless = frozenset({1})
    scenario.assign(*PLACES)
    assert scenario.owned == set(PLACES)


def test_a_commit_behind_an_open_transaction_is_waited_for(scenario: Scenario, settings: Any) -> None:
    settings.OFFSET_BASELINE = "group"
    scenario.admin.group_commits = {FIRST: 50, SECOND: 20}
    scenario.admin.ends[FIRST] = 40
    scenario.admin.uncommitted[FIRST] = LOG_END
    scenario.assign(*PLACES)
    assert scenario.owned == {SECOND}
    assert "t-0 waits: its next offset 50 lies behind an open transaction" in scenario.waits
    assert (scenario.row(FIRST).halt_reason, scenario.row(FIRST).owner_id) == ("", None)

    scenario.retry()
    assert scenario.row(FIRST).epoch == 0, "waiting claims nothing"

    scenario.admin.ends[FIRST] = LOG_END
    scenario.retry()
    assert scenario.owned == set(PLACES)
    assert (scenario.row(FIRST).halt_reason, scenario.waits) == ("", "")


def test_a_commit_beyond_any_record_is_truncated(scenario: Scenario, settings: Any) -> None:
    settings.OFFSET_BASELINE = "group"
    scenario.admin.group_commits = {FIRST: LOG_END + 1}
    scenario.assign(*PLACES)
    assert scenario.row(FIRST).halt_reason == "truncated"
    assert scenario.row(SECOND).halt_reason == ""


def test_bounds_that_are_older_than_a_commit_halt_nothing(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former owner reads and commits on between the question to Kafka and the claim."""
    scenario.assign(*PLACES)
    scenario.member.coordinator.on_revoke(list(PLACES))
    claim = ledger.claim

    def committed_meanwhile(*arguments: object, **more: object) -> object:
        PartitionCheckpoint.objects.live(scenario.group).update(next_offset=LOG_END + 9, ledger_end=LOG_END + 9)
        scenario.admin.ends = dict.fromkeys(PLACES, LOG_END + 9)
        return claim(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "claim", committed_meanwhile)
    scenario.assign(*PLACES)
    assert {scenario.row(place).halt_reason for place in PLACES} == {""}
    assert scenario.member.client.at == dict.fromkeys(PLACES, LOG_END + 9)


def test_bounds_that_are_older_than_a_commit_before_the_claim_halt_nothing(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.assign(*PLACES)
    scenario.member.coordinator.on_revoke(list(PLACES))
    PartitionCheckpoint.objects.live(scenario.group).update(next_offset=LOG_END + 9, ledger_end=LOG_END + 9)
    asked: list[object] = []
    bounds = scenario.admin.log_bounds

    def growing(partitions: object, **more: object) -> dict[TopicPartition, LogBounds]:
        asked.append(partitions)
        if len(asked) == 2:
            scenario.admin.ends = dict.fromkeys(PLACES, LOG_END + 9)
        return bounds(partitions, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(scenario.admin, "log_bounds", growing)
    scenario.assign(*PLACES)
    assert {scenario.row(place).halt_reason for place in PLACES} == {""}
    assert scenario.owned == set(PLACES)


def test_a_missing_topic_delays_only_its_own_partitions(scenario: Scenario) -> None:
    gone = TopicPartition("gone", 0)
    scenario.assign(FIRST, gone)
    assert scenario.owned == {FIRST}
    assert "gone-0 waits: its topic does not exist" in scenario.waits
