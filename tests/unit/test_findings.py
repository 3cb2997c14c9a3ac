"""What is wrong, from plain values: each cause gives its own finding, and what merely takes its time gives none."""

from collections.abc import Sequence
from typing import Any

import pytest

from offsets.monitoring.event_times import QUIET_SECONDS, ImplausibleTimes
from offsets.monitoring.group_state import (
    AffectedRange,
    DeathState,
    PartitionState,
    WorkerState,
)
from offsets.monitoring.status import Status
from tests.support.findings import NOW, STACK, ago, failed, found, keys, only, partition


def test_a_healthy_group_has_none() -> None:
    healthy = [partition(number=n, log_start=0, log_end=1000, claimed_at=ago(600)) for n in range(3)]
    assert found(*healthy, workers=[WorkerState("w-1", ago(0), dead=False)]) == []
    assert found() == []


# --- One partition --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind", "critical", "began", "ranges"),
    [
        (partition(Status.STALLED), "stalled", False, 60, []),
        (partition(Status.STOPPED), "stalled", True, 60, []),
        (partition(Status.LAGGING), "lagging", False, 60, []),
        (partition(Status.SLOW), "lagging", False, 60, []),
        (
            partition(Status.HALTED, halt_reason="expired", halted_at=ago(42), log_start=1200, log_end=5000),
            *("halted_expired", True, 42, [("expired", 1000, 1200)]),
        ),
        # Nothing is lost yet, or nobody knows what.
        (partition(Status.HALTED, halt_reason="expired", log_start=1000), "halted_expired", True, 60, []),
        (partition(Status.HALTED, halt_reason="expired"), "halted_expired", True, 60, []),
        (partition(Status.HALTED, halt_reason="truncated", log_start=1200), "halted_truncated", True, 60, []),
        (partition(Status.HALTED, halt_reason="recreated"), "halted_recreated", True, 60, []),
        (partition(Status.HALTED, halt_reason="store_missing"), "halted_store_missing", True, 60, []),
        (
            partition(failed=[failed(10, 20, since=50), failed(30, 35, since=70)]),
            *("failed_ranges", False, 70, [("failed", 10, 20), ("failed", 30, 35)]),
        ),
        (
            partition(Status.FAILED, failed=[failed(10, 20), failed(30, 35, retried=False)]),
            *("failed_ranges", True, 100, [("failed", 10, 20), ("failed", 30, 35)]),
        ),
        (
            partition(Status.PAUSED, paused_by="auto:circuit-breaker", paused_reason="too many dead letters"),
            *("circuit_breaker", True, 60, []),
        ),
        (partition(Status.UNOWNED), "no_worker", True, 60, []),
    ],
    ids=lambda value: value.verdict.status.name if isinstance(value, PartitionState) else None,
)
def test_each_trouble_of_a_partition_is_one_finding(
    state: PartitionState, kind: str, critical: bool, began: float, ranges: list[tuple[str, int, int]]
) -> None:
    finding = only(found(state))
    assert (finding.kind, finding.critical, finding.began_at) == (kind, critical, ago(began))
    assert list(finding.ranges) == [AffectedRange("t", 0, *one) for one in ranges]
    if kind != "no_worker":
        assert (finding.subject, finding.checkpoint_id, finding.worker_id) == ("t-0", 100, "w-1")


@pytest.mark.parametrize(
    "state",
    [
        partition(Status.OK),
        partition(Status.PAUSED, paused_by="olga", paused_reason="a deployment"),
        partition(Status.REWOUND),
        partition(Status.STUCK),  # told of the worker, once, and with its stack
        partition(Status.UNOWNED, for_seconds=9),
        partition(Status.OWNER_DEAD, for_seconds=9),
    ],
    ids=lambda state: state.verdict.status.name,
)
def test_what_is_wanted_or_takes_its_time_is_none(state: PartitionState) -> None:
    assert found(state) == []


def test_the_words_name_the_partition_the_cause_and_what_to_do() -> None:
    lost = only(found(partition(failed=[failed(10, 20), failed(30, 35)])))
    assert lost.summary == "15 offsets of t-0 could not be applied: DataError: no. An automatic replay retries."
    given_up = only(found(partition(Status.FAILED, failed=[failed(10, 20, retried=False)])))
    assert "No retries left: fix the cause, then replay them." in given_up.summary
    breaker = only(found(partition(Status.PAUSED, paused_by="auto:circuit-breaker", paused_reason="5 % are bad")))
    assert breaker.summary.startswith("t-0 was paused because 5 % are bad.")


def test_a_partition_with_several_troubles_has_a_finding_for_each() -> None:
    state = partition(
        Status.FAILED,
        paused_by="auto:circuit-breaker",
        failed=[failed(10, 20, retried=False)],
        log_start=5,
        log_start_rate=1.0,
    )
    assert keys(found(state)) == {("circuit_breaker", "t-0"), ("failed_ranges", "t-0"), ("retention", "t-0")}


# --- Without an owner -----------------------------------------------------------------------------


def test_one_unowned_partition_among_others_is_its_own() -> None:
    finding = only(found(partition(Status.UNOWNED, 0), partition(number=1)))
    assert (finding.key, finding.critical, finding.worker_id) == (("unowned", "t-0"), True, "")


def test_a_group_without_any_worker_is_one_finding_since_the_first_was_left() -> None:
    finding = only(found(*(partition(Status.UNOWNED, n, for_seconds=20 * (n + 1)) for n in range(3))))
    assert (finding.key, finding.began_at, finding.checkpoint_id) == (("no_worker", "group"), ago(60), None)
    # The last one was left a moment ago: still nobody is there.
    waiting = (partition(Status.UNOWNED, 0), partition(Status.UNOWNED, 1, for_seconds=1))
    assert only(found(*waiting)).kind == "no_worker"


@pytest.mark.parametrize(("claimed", "kinds"), [(2, set()), (30, {"unowned"})])
def test_while_partitions_change_hands_the_others_wait_for_their_turn(claimed: float, kinds: set[str]) -> None:
    states = [partition(Status.UNOWNED, 0, for_seconds=120), partition(number=1, claimed_at=ago(claimed))]
    assert {finding.kind for finding in found(*states)} == kinds


def test_a_claim_of_one_that_has_gone_again_says_nothing() -> None:
    assert only(found(partition(Status.UNOWNED, claimed_at=ago(1)))).kind == "no_worker"


def test_what_an_owner_left_behind_that_ended_is_unowned() -> None:
    """It stopped without releasing, so it is no dead worker; but nobody counts."""
    left = partition(Status.OWNER_DEAD, 0, owner="w-gone")
    finding = only(found(left, partition(number=1)))
    assert (finding.key, finding.summary) == (("unowned", "t-0"), left.verdict.detail)
    assert only(found(left)).kind == "no_worker"


# --- Retention ------------------------------------------------------------------------------------

BEHIND = {"log_start": 900, "log_end": 1500}


@pytest.mark.parametrize(
    ("fields", "ranges"),
    [
        # By the rate at which the log start comes nearer.
        ({"log_start_rate": 1.0}, [("unread", 1000, 1500)]),
        ({"log_start_rate": 100 / 3599}, [("unread", 1000, 1500)]),
        ({"log_start_rate": 100 / 3601}, []),
        ({"log_start_rate": None}, []),
        ({"log_start_rate": 1.0, "log_start": None}, []),
        # By the topic's retention and how long the oldest unread record has waited.
        ({"retention_seconds": 7200.0, "unread_seconds": 3601.0}, [("unread", 1000, 1500)]),
        ({"retention_seconds": 7200.0, "unread_seconds": 3599.0}, []),
        ({"retention_seconds": 7200.0, "unread_seconds": 9999.0}, [("unread", 1000, 1500)]),
        ({"retention_seconds": 7200.0, "unread_seconds": None}, []),
        ({"retention_seconds": None, "unread_seconds": 9999.0}, []),
        # By what Kafka says of the records' own times: a place that nobody has watched for so long.
        ({"old_below": 1001}, [("unread", 1000, 1500)]),
        ({"old_below": 1000}, []),
        ({"old_below": 1000, "failed": [failed(950, 960, since=1)]}, [("failed", 950, 960)]),
        # Whichever comes first.
        ({"retention_seconds": 1e9, "unread_seconds": 5.0, "log_start_rate": 1.0}, [("unread", 1000, 1500)]),
        ({"retention_seconds": 60.0, "unread_seconds": 5.0, "log_start_rate": 1e-9}, [("unread", 1000, 1500)]),
        # Nothing is unread.
        ({"log_start_rate": 1.0, "log_end": 1000}, []),
        ({"log_start_rate": 1.0, "log_end": None}, []),
        # Failed offsets wait from when they failed; those below the log start are gone already.
        ({"log_start_rate": 1.0, "log_end": 1000, "failed": [failed(950, 960)]}, [("failed", 950, 960)]),
        ({"log_start_rate": 1.0, "log_end": 1000, "failed": [failed(850, 860)]}, []),
        (
            {"retention_seconds": 7200.0, "failed": [failed(950, 960, since=3700), failed(970, 980, since=10)]},
            [("failed", 950, 960)],
        ),
    ],
)
def test_it_warns_before_kafka_deletes_what_is_not_counted(
    fields: dict[str, Any], ranges: list[tuple[str, int, int]]
) -> None:
    state = partition(Status.LAGGING, **(BEHIND | fields))
    warned = [finding for finding in found(state) if finding.kind == "retention"]
    assert [list(finding.ranges) for finding in warned] == (
        [[AffectedRange("t", 0, *one) for one in ranges]] if ranges else []
    )
    assert all(finding.critical for finding in warned)


@pytest.mark.parametrize("status", [Status.PAUSED, Status.STALLED, Status.LAGGING, Status.STUCK, Status.OWNER_DEAD])
def test_it_warns_where_nobody_reads_on(status: Status) -> None:
    findings = found(partition(status, log_start_rate=1.0, **BEHIND))
    assert ("retention", "t-0") in keys(findings)
    assert "about 2 min" in next(finding.summary for finding in findings if finding.kind == "retention")


def test_a_partition_that_keeps_up_reads_on_before_retention_comes() -> None:
    state = partition(Status.OK, log_start_rate=1.0, retention_seconds=60.0, unread_seconds=1.0, **BEHIND)
    assert found(state) == []
    # What failed stays where it is, however well the rest goes.
    again = partition(Status.OK, log_start_rate=1.0, failed=[failed(950, 960)], **BEHIND)
    assert ("retention", "t-0") in keys(found(again))


def test_a_halted_partition_is_told_once() -> None:
    state = partition(Status.HALTED, halt_reason="truncated", log_start_rate=1.0, **BEHIND)
    assert only(found(state)).kind == "halted_truncated"


# --- Workers --------------------------------------------------------------------------------------


def test_a_dead_worker_is_named_with_what_it_leaves_unread() -> None:
    mine = [
        partition(Status.OWNER_DEAD, 0, owner="w-1", log_end=1500),
        partition(Status.OWNER_DEAD, 1, owner="w-1", log_end=None),
        partition(number=2, owner="w-2", log_end=9999),
    ]
    finding = only(found(*mine, workers=[WorkerState("w-1", ago(33), dead=True, stack=STACK, last_error="e")]))
    assert (finding.key, finding.critical, finding.began_at) == (("worker_dead", "w-1"), True, ago(33))
    assert finding.worker_id == "w-1"
    assert finding.ranges == [AffectedRange("t", 0, "unread", 1000, 1500), AffectedRange("t", 1, "unread", 1000, 1000)]
    assert "other workers take over t-0, t-1" in finding.summary


def test_a_dead_worker_that_owns_nothing_is_a_warning() -> None:
    finding = only(found(partition(owner="w-2"), workers=[WorkerState("w-1", ago(33), dead=True)]))
    assert (finding.kind, finding.critical, finding.ranges) == ("worker_dead", False, [])
    assert "Other workers have taken over" in finding.summary


def death(*checkpoint_ids: int) -> DeathState:
    return DeathState(
        "w-1", ago(90), frozenset(checkpoint_ids), "It is dead.", (AffectedRange("t", 0, "unread", 1, 2),)
    )


@pytest.mark.parametrize(
    ("state", "goes_on"),
    [
        (partition(Status.UNOWNED, for_seconds=1), True),
        (partition(Status.OWNER_DEAD, for_seconds=1), True),
        (partition(Status.OK), False),
        (partition(Status.STALLED), False),
        (partition(Status.UNOWNED, 5, for_seconds=1), False),
    ],
)
def test_a_death_lasts_until_somebody_lives_who_has_its_partitions(state: PartitionState, goes_on: bool) -> None:
    findings = [one for one in found(state, deaths=[death(100)]) if one.kind == "worker_dead"]
    assert len(findings) == goes_on
    for finding in findings:
        assert (finding.subject, finding.summary, finding.began_at) == ("w-1", "It is dead.", ago(90))
        assert finding.ranges == death(100).ranges
        assert finding.critical


def test_a_death_without_partitions_is_over_at_once() -> None:
    assert found(partition(), deaths=[death()]) == []


def test_a_worker_that_is_dead_still_is_one_finding() -> None:
    workers = [WorkerState("w-1", ago(33), dead=True)]
    finding = only(found(partition(Status.OWNER_DEAD), workers=workers, deaths=[death(100)]))
    assert finding.began_at == ago(33)


def test_a_stuck_worker_is_a_finding_with_its_stack() -> None:
    worker = WorkerState("w-1", ago(0), dead=False, stage="decoding t-0 [1, 2)", stage_seconds=45.0, stack=STACK)
    finding = only(found(partition(Status.STUCK), workers=[worker]))
    assert (finding.key, finding.critical, finding.evidence) == (("worker_stuck", "w-1"), True, STACK)
    assert finding.began_at == ago(45)
    assert "has been decoding t-0 [1, 2) for 45 s" in finding.summary


def test_a_worker_that_says_why_it_waits_is_a_warning() -> None:
    finding = only(found(partition(), workers=[WorkerState("w-1", ago(1), dead=False, last_error="database: refused")]))
    assert (finding.key, finding.critical) == (("worker_trouble", "w-1"), False)
    assert finding.summary == "w-1 is waiting and retries: database: refused"


def test_a_long_stage_of_which_the_worker_tells_no_stack_is_none() -> None:
    assert found(workers=[WorkerState("w-1", ago(0), dead=False, stage="decoding", stage_seconds=29.0)]) == []


# --- The rest -------------------------------------------------------------------------------------


def test_a_service_that_does_not_answer_is_a_finding_since_it_does_not() -> None:
    services = {"kafka": ("no broker.", ago(20)), "redis": ("refused.", ago(5))}
    kafka, redis = found(partition(), services=services)
    assert (kafka.key, kafka.began_at, kafka.critical) == (("kafka_unavailable", "kafka"), ago(20), True)
    assert kafka.summary.startswith("Kafka does not respond: no broker. Nothing is lost;")
    assert redis.key == ("redis_unavailable", "redis")


@pytest.mark.parametrize(("unclaimed", "count"), [(None, 0), ((), 0), (("t-3", "t-4"), 2)])
def test_partitions_that_nobody_has_claimed_yet_are_warnings(unclaimed: Sequence[str] | None, count: int) -> None:
    findings = found(partition(), unclaimed=unclaimed)
    assert [finding.subject for finding in findings] == list(unclaimed or ())[:count]
    assert all(finding.kind == "partition_new" and not finding.critical for finding in findings)


def test_violated_invariants_are_one_finding() -> None:
    finding = only(found(violated=["I1", "I3"], violated_at=ago(7)))
    assert (finding.key, finding.critical, finding.began_at) == (("invariants", "ledger"), True, ago(7))
    assert "(I1, I3)" in finding.summary
    assert only(found(violated=["I1"])).began_at == NOW


def test_an_orphaned_replay_is_a_warning() -> None:
    first, second = found(orphaned_replays=[(7, ago(40)), (8, ago(30))])
    assert (first.key, first.critical, first.began_at) == (("replay_orphaned", "replay 7"), False, ago(40))
    assert second.subject == "replay 8"


def test_each_cause_at_each_subject_is_found_once() -> None:
    findings = found(partition(Status.STALLED), partition(Status.STALLED, owner="w-2"))
    assert keys(findings) == {("stalled", "t-0")}
    assert len(findings) == 1


def implausible(topic: str = "t", source: str = "event", unit: str = "seconds", **fields: Any) -> ImplausibleTimes:
    defaults: dict[str, Any] = {"events": 3000, "first_seen_at": ago(50), "age_seconds": 1.0}
    return ImplausibleTimes(topic, source, unit, **(defaults | fields))


def test_implausible_event_times_are_one_warning_for_each_topic() -> None:
    times = [implausible(), implausible(source="record", events=1), implausible("u", unit="unknown")]

    first, second = found(implausible=times)

    assert (first.key, first.critical, first.began_at) == (("event_time", "t"), False, ago(50))
    assert first.summary.startswith("3,000 events of t: the event time looks like seconds. Minute used: the record's,")
    assert "1 record of t: the timestamp looks like seconds. Minute used: the event's own," in first.summary
    assert "Totals are exact" in first.summary
    assert second.key == ("event_time", "u")
    assert second.summary.startswith("3,000 events of u: implausible event time. ")


@pytest.mark.parametrize(("age", "kinds"), [(0.0, 1), (QUIET_SECONDS, 1), (QUIET_SECONDS + 1, 0)])
def test_implausible_event_times_are_over_when_none_came_for_a_while(age: float, kinds: int) -> None:
    assert len(found(implausible=[implausible(age_seconds=age)])) == kinds
