"""Why no worker reads a partition: the status, the words, the findings and the headline."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from offsets.cluster_facts import GroupMember
from offsets.monitoring.absence import Absence, Reader, absence_of, foreign
from offsets.monitoring.finding import Finding, FindingLimits
from offsets.monitoring.findings import find
from offsets.monitoring.group_state import GroupState, PartitionState, WorkerState
from offsets.monitoring.headline import GroupFacts, group_status, headline
from offsets.monitoring.status import Status, assess
from offsets.types import TopicPartition
from tests.support.facts import FINE, LIMITS

PLACE = TopicPartition("engagement", 3)
READS = Reader("w-1", ["engagement"])
REFUSED = Reader("w-1", ["engagement"], "JoinGroup failed: Broker: Inconsistent group protocol")
READS_OTHER = Reader("w-2", ["likes"])
HOLDER = GroupMember("kafka-console-consumer", "/10.0.0.7", frozenset({PLACE}))
IDLE = GroupMember("somebody", "/10.0.0.8")
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def verdict_of(absence: Absence, **changes: Any) -> Any:
    changes = {"owner": None, "owner_heartbeat_age_seconds": None, "absence": absence} | changes
    return assess(dataclasses.replace(FINE, **changes), LIMITS)


@pytest.mark.parametrize(
    ("readers", "strangers", "status", "words", "not_words"),
    [
        ([], [], Status.UNOWNED, ["No worker owns it", "Start a worker"], []),
        ([READS], [], Status.UNOWNED, ["Not assigned yet", "w-1 subscribes to the topic"], ["Start a worker"]),
        ([REFUSED], [], Status.REFUSED, ["refuses worker w-1", "Inconsistent group protocol. Fix"], ["Start a worker"]),
        # Another worker is a member of the group: it will get the partition.
        ([REFUSED, READS._replace(worker_id="w-3")], [], Status.UNOWNED, ["w-3 subscribes"], ["refuses", "w-1"]),
        (
            [REFUSED],
            [HOLDER],
            Status.REFUSED,
            ["client 'kafka-console-consumer' on host /10.0.0.7", "Stop it, or use another group."],
            ["Start a worker"],
        ),
        ([REFUSED], [IDLE], Status.REFUSED, ["client 'somebody'"], []),
        (
            [READS],
            [IDLE, HOLDER],
            Status.UNOWNED,
            [
                "engagement-3 is assigned to client 'kafka-console-consumer' on host /10.0.0.7, which is not one of "
                "our workers. Stop it, or use another group."
            ],
            ["Start a worker", "somebody"],
        ),
        (
            [READS_OTHER],
            [],
            Status.UNOWNED,
            ["No running worker reads topic 'engagement'; they read likes.", "retire_partitions --topic engagement"],
            ["Start a worker"],
        ),
        # A worker of an earlier version does not say what it reads.
        ([READS_OTHER, Reader("w-0", [])], [], Status.UNOWNED, ["Start a worker"], ["they read"]),
    ],
)
def test_an_unowned_partition_says_why(readers, strangers, status, words, not_words):
    verdict = verdict_of(absence_of(PLACE, readers, strangers=strangers))

    assert verdict.status == status
    assert all(word in verdict.detail for word in words), verdict.detail
    assert not [word for word in not_words if word in verdict.detail]
    assert verdict.detail.endswith(".")


@pytest.mark.parametrize("owner", [None, "w-1"])
def test_a_missing_topic_comes_before_its_owner_and_after_a_halt(owner):
    missing = absence_of(PLACE, [READS], missing={PLACE})

    verdict = verdict_of(missing, owner=owner, owner_heartbeat_age_seconds=0.1 if owner else None)
    halted = verdict_of(missing, halt_reason="recreated")

    assert verdict.status is Status.TOPIC_MISSING
    assert "manage.py retire_partitions --topic engagement" in verdict.detail
    assert halted.status is Status.HALTED


@pytest.mark.parametrize(
    ("readers", "words"),
    [
        ([], "Another worker takes over when Kafka assigns it."),
        ([READS], "Another worker takes over when Kafka assigns it."),
        ([REFUSED], "Kafka refuses worker w-1"),
        ([READS_OTHER], "retire_partitions --topic engagement"),
    ],
)
def test_a_dead_owner_is_told_with_the_reason_why_nobody_takes_over(readers, words):
    verdict = verdict_of(absence_of(PLACE, readers), owner="w-0", owner_stopped=True)

    assert verdict.status is Status.OWNER_DEAD
    assert verdict.detail.startswith("Its owner w-0 stopped without releasing it. ")
    assert words in verdict.detail


def test_an_owned_partition_is_judged_as_ever():
    absence = absence_of(PLACE, [REFUSED], strangers=[HOLDER])

    assert verdict_of(absence, owner="w-1", owner_heartbeat_age_seconds=0.1).status is Status.OK


def test_our_workers_are_known_by_their_client_id():
    ours = GroupMember("w-1", "/10.0.0.1", frozenset({PLACE}))

    assert foreign([ours, HOLDER, IDLE], {"w-1", "w-2"}) == [HOLDER, IDLE]


# --- Findings -------------------------------------------------------------------------------------


def row(number: int, absence: Absence, *, seconds: float = 60, owner: str | None = None) -> PartitionState:
    facts: dict[str, Any] = {
        "name": f"engagement-{number}",
        "owner": owner,
        "owner_heartbeat_age_seconds": 0.1 if owner else None,
    }
    verdict = assess(dataclasses.replace(FINE, **facts, absence=absence), LIMITS)
    since = NOW - timedelta(seconds=seconds)
    return PartitionState(
        number, "engagement", number, 1000, verdict, since, owner=owner, claimed_at=since, log_end=1200, absence=absence
    )


def rows(readers: list[Reader], **known: Any) -> list[PartitionState]:
    return [row(n, absence_of(TopicPartition("engagement", n), readers, **known)) for n in (3, 4)]


def found(partitions: list[PartitionState], readers: list[Reader] = [], **state: Any) -> list[Finding]:  # noqa: B006
    workers = [WorkerState(r.worker_id, NOW, dead=False, topics=r.topics, refusal=r.refusal) for r in readers]
    return find(GroupState(NOW, partitions, workers, **state), FindingLimits(10, 30, 3600))


def test_a_refused_worker_is_one_critical_finding_and_nobody_is_told_to_start_one():
    [finding] = found(rows([REFUSED]), [REFUSED])

    assert (finding.kind, finding.subject, finding.critical) == ("member_refused", "w-1", True)
    assert "Inconsistent group protocol" in finding.summary


def test_the_foreign_program_that_a_worker_is_refused_for_is_in_the_same_finding():
    [finding] = found(rows([REFUSED], strangers=[HOLDER]), [REFUSED], strangers=[HOLDER])

    assert finding.kind == "member_refused"
    assert "client 'kafka-console-consumer' on host /10.0.0.7" in finding.summary


def test_a_refused_worker_beside_working_ones_is_a_warning():
    working = [row(3, Absence(), owner="w-2")]

    [finding] = found(working, [REFUSED, Reader("w-2", ["engagement"])])

    assert (finding.kind, finding.critical) == ("member_refused", False)


def test_a_refused_worker_is_found_before_any_partition_was_claimed():
    assert [finding.kind for finding in found([], [REFUSED])] == ["member_refused"]


def test_a_foreign_program_is_one_finding_with_the_partitions_it_holds():
    holds_both = HOLDER._replace(partitions=frozenset({PLACE, TopicPartition("engagement", 4)}))
    strangers = [IDLE, holds_both]

    [finding] = found(rows([READS], strangers=strangers), [READS], strangers=strangers)

    assert (finding.kind, finding.subject) == ("foreign_member", "kafka-console-consumer /10.0.0.7")
    assert finding.summary.startswith("engagement-3, engagement-4 are assigned to client 'kafka-console-consumer'")
    assert [(affected.partition, affected.start, affected.end) for affected in finding.ranges] == [
        (3, 1000, 1200),
        (4, 1000, 1200),
    ]


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({"missing": {PLACE, TopicPartition("engagement", 4)}}, "topic_missing"),
        ({}, "topic_unread"),
    ],
)
def test_a_topic_is_one_finding(known, kind):
    [finding] = found(rows([READS_OTHER], **known), [READS_OTHER])

    assert (finding.kind, finding.subject, finding.critical) == (kind, "engagement", True)
    assert "retire_partitions --topic engagement" in finding.summary


def test_nobody_is_told_to_start_a_worker_while_one_waits():
    [finding] = found(rows([READS]), [READS])

    assert finding.kind == "no_worker"
    assert "w-1 subscribes" in finding.summary
    assert "run_consumer" not in finding.summary
    assert "run_consumer" in found(rows([]))[0].summary


def test_a_rebalance_is_none():
    absence = absence_of(PLACE, [READS_OTHER], strangers=[HOLDER])

    assert found([row(3, absence, seconds=5)], [READS_OTHER], strangers=[HOLDER]) == []


# --- Headline -------------------------------------------------------------------------------------


def test_the_headline_names_the_cause_instead_of_advising_to_start_a_worker():
    verdicts = [(state.name, state.verdict) for state in rows([REFUSED])]
    facts = GroupFacts(verdicts, refusals=["Kafka refuses worker w-1."])

    assert "Start a worker" not in headline(facts)
    assert "Inconsistent group protocol" in headline(facts)
    assert "No partition has been claimed yet. Kafka refuses worker w-1." in headline(
        GroupFacts([], refusals=["Kafka refuses worker w-1."])
    )
    assert group_status(GroupFacts([], refusals=["Kafka refuses worker w-1."])) is Status.REFUSED


def test_the_headline_of_a_retired_group_says_so():
    assert (
        headline(GroupFacts([], retired=3))
        == "All 3 partitions are retired: the counts are kept, and nothing is watched."
    )
    assert headline(GroupFacts([], retired=1)).startswith("The only partition is retired")
    assert "Start a worker" in headline(GroupFacts([]))
