"""The group's status and its first line."""

import re
from itertools import pairwise
from typing import Any

import pytest

from offsets.monitoring.absence import START_A_WORKER
from offsets.monitoring.headline import GroupFacts, group_status, headline, worst
from offsets.monitoring.status import Status, Verdict
from offsets.text import duration
from streamsocial.environment import BASE_DIR


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], Status.OK),
        ([Status.OK, Status.LAGGING], Status.LAGGING),
        ([Status.PAUSED, Status.LAGGING, Status.OK], Status.PAUSED),
        ([Status.PAUSED, Status.UNOWNED], Status.UNOWNED),
        ([Status.HALTED, Status.UNOWNED], Status.HALTED),
        ([Status.OWNER_DEAD, Status.FAILED, Status.UNOWNED], Status.FAILED),
    ],
)
def test_it_takes_the_worst_part_for_the_whole(statuses, expected):
    assert worst(statuses) == expected


SEVERITY = [
    "OK", "CATCHING UP", "ATTENTION", "LAGGING", "SLOW", "OPEN TRANSACTION", "PAUSED", "REWOUND", "INCIDENT", "STALLED",
    "STOPPED", "STUCK", "UNOWNED", "REFUSED", "OWNER DEAD", "TOPIC MISSING", "FAILED", "HALTED",
]  # fmt: skip


@pytest.mark.parametrize(("better", "worse"), list(pairwise(SEVERITY)))
def test_it_orders_statuses_by_severity(better, worse):
    assert worst([Status(worse), Status(better)]) == worst([Status(better), Status(worse)]) == worse


def test_the_page_orders_the_same_statuses_in_the_same_way():
    script = (BASE_DIR / "static" / "js" / "ui" / "statuses.js").read_text(encoding="utf-8")
    families = re.findall(r"words: \[(.*?)\]", script)

    assert re.findall(r'"([^"]+)"', " ".join(families)) == SEVERITY == list(Status)


def named(*statuses: str) -> list[tuple[str, Verdict]]:
    return [
        (f"engagement-{number}", Verdict(Status(status), f"{START_A_WORKER}."))
        for number, status in enumerate(statuses)
    ]


def stuck_at(offset: int) -> tuple[str, Verdict]:
    return "engagement-9", Verdict(Status.STUCK, ".", offset=offset)


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
            "engagement-1 has no live owner; the other 1 is fine. Lag 1,204 (0.3 s). "
            "1 pending dead letter. Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("OWNER DEAD", "UNOWNED"), lag=0),
            "No live worker owns any of the 2 partitions; nothing is counted. Start a worker: "
            "manage.py run_consumer. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts(named("OK", "OWNER DEAD", "UNOWNED", "OWNER DEAD"), lag=0),
            "engagement-1 and engagement-3 have a dead owner; engagement-2 has no live owner; "
            "the other 1 is fine. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts([*named("OK"), stuck_at(812_400)], lag=0),
            "engagement-9 is stuck at offset 812,400; the other 1 is fine. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts([stuck_at(812_400), *named("STUCK")], lag=0),
            "engagement-9 and engagement-0 are stuck. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts([("a", Verdict(Status.FAILED, ".", failed_offsets=1200)), *named("FAILED")], lag=0),
            "a and engagement-0 have 1,200 offsets that could not be applied. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts([("a", Verdict(Status.FAILED, ".", failed_offsets=1))], lag=0),
            "a has 1 offset that could not be applied. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts(named("LAGGING", "SLOW", "REWOUND", "STALLED", "STOPPED", "STUCK", "FAILED"), lag=0),
            "engagement-6 has offsets that could not be applied; engagement-5 is stuck; engagement-4 has stopped; "
            "engagement-3 is stalled; engagement-2 is rewound; engagement-1 is too slow; engagement-0 is lagging. "
            "Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts(named("SLOW", "SLOW", "STOPPED", "STOPPED"), lag=0),
            "engagement-2 and engagement-3 have stopped; engagement-0 and engagement-1 are too slow. "
            "Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts(named("OK", "OK"), **SOUND, duplicates=12, uncounted={"skipped": 40, "expired": 1000, "x": 0}),
            "All 2 partitions keep up. Lag 1,204 (0.3 s). "
            "1,040 offsets not counted (1,000 expired, 40 skipped), 12 counted twice.",
        ),
        (
            GroupFacts(named("OK"), lag=1, invariants_ok=False, violated=["I1", "I3"]),
            "Ledger invariants violated (I1, I3). Run manage.py verify_offsets. The only partition keeps up. Lag 1.",
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
