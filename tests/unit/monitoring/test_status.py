"""The status of one partition, case by case."""

import dataclasses
from typing import Any

import pytest

from offsets.monitoring.headline import GroupFacts, headline
from offsets.monitoring.lag import LagTime
from offsets.monitoring.status import Status, assess
from tests.support.facts import BEHIND, DEAD, FINE, LIMITS, STAGE, STUCK, TROUBLE, judged, still

GIVEN_UP: dict[str, Any] = {"failed_ranges": 3, "failed_offsets": 1200, "failed_given_up": 2}


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, Status.OK, ["211 records", "0.1 s behind"]),
        ({"lag": 0, "lag_time": LagTime(0.0, 0.0)}, Status.OK, ["0 records behind."]),
        ({"lag": 1, "lag_time": LagTime(None, 0.0)}, Status.OK, ["1 record behind."]),
        ({"lag": None, "lag_time": LagTime(None, 0.0)}, Status.OK, ["lag is unknown"]),
        ({**BEHIND, "lag_time": LagTime(10.0, 10.0)}, Status.OK, ["10 s behind"]),
        ({**BEHIND, "lag_growth_per_second": 0.0}, Status.LAGGING, ["11,118 records", "38 s behind", "run_consumer"]),
        ({**BEHIND, "lag_growth_per_second": 12.0}, Status.LAGGING, ["not catching up"]),
        ({**BEHIND, "lag_growth_per_second": None}, Status.CATCHING_UP, ["only just begun to read"]),
        ({**BEHIND, "lag_growth_per_second": -1000.0}, Status.CATCHING_UP, ["Catching up", "done in about 11 s"]),
        ({**BEHIND, "lag_growth_per_second": -0.1}, Status.LAGGING, ["not catching up"]),
        ({**BEHIND, "lag_time": LagTime(None, 300.0)}, Status.LAGGING, ["more than 5 min behind"]),
        ({"desired_state": "paused", **BEHIND}, Status.PAUSED, ["offset 790,000", "11,118 records behind", "Resume"]),
        ({"desired_state": "paused", "lag": None}, Status.PAUSED, ["Resume"]),
        ({"owner": None, "owner_heartbeat_age_seconds": None}, Status.UNOWNED, ["No worker owns it", "run_consumer"]),
        (DEAD, Status.OWNER_DEAD, ["Owner dead for 12 s", "w-7f2"]),
        ({"owner_heartbeat_age_seconds": 10.0}, Status.OK, []),
        ({"owner_stopped": True}, Status.OWNER_DEAD, ["stopped without releasing"]),
        ({"owner_heartbeat_age_seconds": None}, Status.OWNER_DEAD, ["stopped without releasing"]),
        (
            {"owner": None, "owner_heartbeat_age_seconds": None, "desired_state": "paused"},
            Status.UNOWNED,
            ["Also paused."],
        ),
        (
            {"halt_reason": "expired", "halt_detail": "log starts at 800000."},
            Status.HALTED,
            ["Kafka deleted records", "(log starts at 800000)", "operator"],
        ),
        ({"halt_reason": "truncated"}, Status.HALTED, ["cut off before"]),
        ({"halt_reason": "unreadable", "halt_detail": "bad checksum"}, Status.HALTED, ["cannot read", "bad checksum"]),
        ({"halt_reason": "recreated"}, Status.HALTED, ["deleted and recreated"]),
        ({"halt_reason": "store_missing", "owner": None, "desired_state": "paused"}, Status.HALTED, ["store has lost"]),
        ({"halt_reason": "some_new_reason"}, Status.HALTED, ["some new reason"]),
    ],
)
def test_it_names_the_status_and_says_what_to_do(changes, status, words):
    verdict = assess(dataclasses.replace(FINE, **changes), LIMITS)

    assert verdict.status == status
    for word in words:
        assert word in verdict.detail
    assert verdict.detail.endswith(".")


#: (what is the matter, its facts, the status, the words). In the order in which one hides the next.
ORDER: list[tuple[str, dict[str, Any], Status, str]] = [
    ("halted", {"halt_reason": "expired"}, Status.HALTED, "Kafka deleted records"),
    ("dead", DEAD, Status.OWNER_DEAD, "Owner dead for 12 s"),
    ("given up", GIVEN_UP, Status.FAILED, "1,200 offsets in 3 ranges could not be applied"),
    ("paused", {"desired_state": "paused"}, Status.PAUSED, "Paused by an operator"),
    ("stuck", {**STUCK, **BEHIND}, Status.STUCK, "Stuck at offset 790,000"),
    ("still", {**BEHIND, "window": still(20)}, Status.STALLED, "no progress"),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[name for name, *_ in ORDER])
def test_it_names_first_what_stops_counting_for_longest(first):
    facts: dict[str, Any] = {}
    for _, changes, _, _ in reversed(ORDER[first:]):
        facts |= changes

    verdict = judged(**facts)

    assert verdict.status == ORDER[first][2]
    assert ORDER[first][3] in verdict.detail


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        pytest.param(
            {**DEAD, "desired_state": "paused", **GIVEN_UP},
            Status.OWNER_DEAD,
            ["run_consumer. Also paused. 1,200 offsets could not be applied."],
            id="a dead owner hides neither a pause nor a failure",
        ),
        pytest.param(
            {"owner": None, **GIVEN_UP},
            Status.UNOWNED,
            ["1,200 offsets could not be applied."],
            id="nor does a missing one",
        ),
        pytest.param(
            {**GIVEN_UP, "desired_state": "paused"},
            Status.FAILED,
            ["Also PAUSED: Paused by an operator"],
            id="a failure names the pause",
        ),
        pytest.param(
            {**GIVEN_UP, **BEHIND, **STUCK},
            Status.FAILED,
            ["Also STUCK AT OFFSET 790,000: Stuck at"],
            id="a failure names what the worker does",
        ),
        pytest.param(
            GIVEN_UP,
            Status.FAILED,
            ["no retries left for 2 of them. Fix the cause and replay them, or accept the loss."],
            id="a failure alone",
        ),
        pytest.param(
            {"failed_ranges": 1, "failed_offsets": 1, "failed_given_up": 1},
            Status.FAILED,
            ["1 offset in 1 range could not be applied, with no retries left. Fix"],
            id="no retry left for any range",
        ),
        pytest.param(
            {"failed_ranges": 1, "failed_offsets": 1200},
            Status.OK,
            ["Keeping up", "1,200 offsets could not be applied yet; an automatic replay retries."],
            id="a failure that is retried is not FAILED",
        ),
        pytest.param(
            {**BEHIND, "window": still(20), "failed_ranges": 1, "failed_offsets": 1},
            Status.STALLED,
            ["1 offset could not be applied yet"],
            id="a failure that is retried hides nothing",
        ),
    ],
)
def test_it_hides_nothing_behind_the_first_status(changes, status, words):
    verdict = judged(**changes)

    assert verdict.status == status
    for word in words:
        assert word in verdict.detail
    assert verdict.detail.endswith(".")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({**BEHIND, **STUCK}, Status.STUCK, id="42 s in one stage"),
        pytest.param({**BEHIND, **STUCK, "stage_seconds": 30.0}, Status.LAGGING, id="not yet too long"),
        pytest.param({**BEHIND, **STUCK, "stage_seconds": 30.1}, Status.STUCK, id="just too long"),
        pytest.param({**BEHIND, **STUCK, "stage_seconds": None}, Status.LAGGING, id="nobody knows how long"),
        pytest.param({**BEHIND, **STUCK, "stage": ""}, Status.LAGGING, id="busy with nothing here"),
        pytest.param({**BEHIND, **STUCK, "worker_trouble": TROUBLE}, Status.LAGGING, id="it says why it waits"),
        pytest.param({**STUCK, "lag": 0, "lag_time": LagTime(0.0, 0.0)}, Status.OK, id="nothing to read"),
        pytest.param({**STUCK, "lag": None, "lag_time": LagTime(None, 0.0)}, Status.STUCK, id="lag unknown"),
        pytest.param(STUCK, Status.STUCK, id="hardly behind"),
    ],
)
def test_it_calls_stuck_a_worker_that_does_not_come_back_from_one_stage(changes, status):
    assert judged(**changes).status == status


def test_it_says_where_and_in_what_a_partition_is_stuck():
    verdict = judged(**BEHIND, **STUCK)

    assert verdict.label == "STUCK AT OFFSET 790,000"
    assert verdict.detail == (
        f"Stuck at offset 790,000: its worker w-7f2 has been {STAGE} for 42 s, more than 30 s "
        "(WORKER_STUCK_SECONDS). "
        "Evict the worker so that another one takes over."
    )


def test_it_carries_what_the_headline_says_of_it():
    facts = GroupFacts([("a", judged(**GIVEN_UP)), ("b", judged(**STUCK))])

    assert headline(facts).startswith("a has 1,200 offsets that could not be applied; b is stuck at offset 790,000.")


def test_it_lets_the_limit_decide_how_long_a_stage_may_take():
    limits = dataclasses.replace(LIMITS, stuck_seconds=60.0)

    assert assess(dataclasses.replace(FINE, **BEHIND, **STUCK), limits).status == Status.LAGGING
