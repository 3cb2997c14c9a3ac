import dataclasses
from typing import Any

import pytest

from offsets.health import (
    GroupFacts,
    LagTime,
    Limits,
    PartitionFacts,
    Status,
    Verdict,
    assess,
    duration,
    group_status,
    headline,
    worst,
)

LIMITS = Limits(heartbeat_timeout_seconds=10, allowed_lag_seconds=10)
FINE = PartitionFacts(
    name="engagement-3",
    next_offset=790_000,
    owner="w-7f2",
    owner_heartbeat_age_seconds=0.5,
    lag=211,
    lag_time=LagTime(0.1, 0.1),
    lag_growth_per_second=0.0,
)
BEHIND: dict[str, Any] = {"lag": 11_118, "lag_time": LagTime(38.0, 38.0)}


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, Status.OK, ["211 records", "0.1 s behind"]),
        ({"lag": 0, "lag_time": LagTime(0.0, 0.0)}, Status.OK, ["0 records to read."]),
        ({"lag": 1, "lag_time": LagTime(None, 0.0)}, Status.OK, ["1 record to read."]),
        ({"lag": None, "lag_time": LagTime(None, 0.0)}, Status.OK, ["lag is unknown"]),
        ({**BEHIND, "lag_time": LagTime(10.0, 10.0)}, Status.OK, ["10 s behind"]),
        ({**BEHIND, "lag_growth_per_second": 0.0}, Status.LAGGING, ["11,118 records", "38 s behind", "run_consumer"]),
        ({**BEHIND, "lag_growth_per_second": 12.0}, Status.LAGGING, ["not catching up"]),
        ({**BEHIND, "lag_growth_per_second": None}, Status.LAGGING, ["not catching up"]),
        ({**BEHIND, "lag_growth_per_second": -1000.0}, Status.OK, ["Catching up", "done in about 11 s"]),
        ({**BEHIND, "lag_growth_per_second": -0.1}, Status.LAGGING, ["not catching up"]),
        ({**BEHIND, "lag_time": LagTime(None, 300.0)}, Status.LAGGING, ["more than 5 min behind"]),
        ({"desired_state": "paused", **BEHIND}, Status.PAUSED, ["offset 790,000", "11,118 records wait", "Resume"]),
        ({"desired_state": "paused", "lag": None}, Status.PAUSED, ["Resume"]),
        ({"owner": None, "owner_heartbeat_age_seconds": None}, Status.UNOWNED, ["No worker owns it", "run_consumer"]),
        ({"owner_heartbeat_age_seconds": 12.0}, Status.UNOWNED, ["Owner dead for 12 s", "w-7f2"]),
        ({"owner_heartbeat_age_seconds": 10.0}, Status.OK, []),
        ({"owner_stopped": True}, Status.UNOWNED, ["ended without releasing"]),
        ({"owner_heartbeat_age_seconds": None}, Status.UNOWNED, ["ended without releasing"]),
        (
            {"owner": None, "owner_heartbeat_age_seconds": None, "desired_state": "paused"},
            Status.UNOWNED,
            ["paused as well"],
        ),
        (
            {"halt_reason": "expired", "halt_detail": "log starts at 800000."},
            Status.HALTED,
            ["Kafka deleted records", "(log starts at 800000)", "operator"],
        ),
        ({"halt_reason": "truncated"}, Status.HALTED, ["log ends before"]),
        ({"halt_reason": "recreated"}, Status.HALTED, ["created again"]),
        ({"halt_reason": "store_missing", "owner": None, "desired_state": "paused"}, Status.HALTED, ["store is empty"]),
        ({"halt_reason": "some_new_reason"}, Status.HALTED, ["some new reason"]),
    ],
)
def test_it_names_the_status_and_says_what_to_do(changes, status, words):
    verdict = assess(dataclasses.replace(FINE, **changes), LIMITS)

    assert verdict.status == status
    for word in words:
        assert word in verdict.detail
    assert verdict.detail.endswith(".")


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], Status.OK),
        ([Status.OK, Status.LAGGING], Status.LAGGING),
        ([Status.PAUSED, Status.LAGGING, Status.OK], Status.PAUSED),
        ([Status.PAUSED, Status.UNOWNED], Status.UNOWNED),
        ([Status.HALTED, Status.UNOWNED], Status.HALTED),
    ],
)
def test_it_takes_the_worst_part_for_the_whole(statuses, expected):
    assert worst(statuses) == expected


def named(*statuses: str) -> list[tuple[str, Verdict]]:
    return [(f"engagement-{number}", Verdict(Status(status), ".")) for number, status in enumerate(statuses)]


SOUND: dict[str, Any] = {"lag": 1204, "lag_seconds": 0.3, "invariants_ok": True, "invariants_age_seconds": 3.0}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (GroupFacts([]), "No partition has been claimed yet. Start a worker: manage.py run_consumer"),
        (
            GroupFacts(named(*["OK"] * 6), **SOUND),
            "All 6 partitions keep up. Lag 1,204 (0.3 s). Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("OK"), lag=0, lag_seconds=0.0),
            "The only partition keeps up. Lag 0 (0.0 s). Invariants not checked yet.",
        ),
        (
            GroupFacts(named("OK", "OK"), invariants_ok=True, invariants_age_seconds=240.0),
            "All 2 partitions have a live worker. Lag unknown. "
            "Nothing lost, nothing counted twice (checked 4 min ago).",
        ),
        (
            GroupFacts(named("OK", "PAUSED", "OK"), **SOUND),
            "engagement-1 is paused; the other 2 are fine. Lag 1,204 (0.3 s). Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("HALTED", "PAUSED", "HALTED"), **SOUND),
            "engagement-0 and engagement-2 are halted; engagement-1 is paused. Lag 1,204 (0.3 s). "
            "Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named(*["PAUSED"] * 5), **SOUND),
            "engagement-0, engagement-1, engagement-2 and 2 more are paused. Lag 1,204 (0.3 s). "
            "Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("UNOWNED", "UNOWNED"), **SOUND),
            "No live worker owns any of the 2 partitions; nothing is counted. Start a worker: "
            "manage.py run_consumer. Lag 1,204 (0.3 s). Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("OK", "UNOWNED"), **SOUND, dead_letters=1),
            "engagement-1 is without a live owner; the other 1 is fine. Lag 1,204 (0.3 s). "
            "1 dead letter waits for a decision. Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("OK", "OK"), **SOUND, duplicates=12, uncounted={"skipped": 40, "expired": 1000, "x": 0}),
            "All 2 partitions keep up. Lag 1,204 (0.3 s). "
            "1,040 offsets not counted (1,000 expired, 40 skipped), 12 counted twice.",
        ),
        (
            GroupFacts(named("OK"), lag=1, invariants_ok=False, violated=["I1", "I3"]),
            "The ledger does not add up (I1, I3). Run manage.py verify_offsets. The only partition keeps up. Lag 1.",
        ),
    ],
)
def test_it_says_in_one_line_whether_anything_is_wrong(facts, expected):
    assert headline(facts) == expected


def test_it_colours_the_page_by_a_violated_invariant_even_when_all_partitions_keep_up():
    assert group_status(GroupFacts(named("OK"), invariants_ok=False)) == Status.HALTED
    assert group_status(GroupFacts(named("OK", "LAGGING"), invariants_ok=True)) == Status.LAGGING


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (38, "38 s"), (240, "4 min"), (7200, "2 h"),
     (864_000, "10 d")],
)  # fmt: skip
def test_it_writes_durations_as_people_read_them(seconds, words):
    assert duration(seconds) == words
