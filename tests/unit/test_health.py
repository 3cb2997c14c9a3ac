import dataclasses
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.monitoring.headline import GroupFacts, group_status, headline, worst
from offsets.monitoring.lag import LagTime
from offsets.monitoring.status import Limits, PartitionFacts, Status, Verdict, assess, eta_seconds
from offsets.monitoring.window import CommitPoint
from offsets.text import duration

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
#: Longer behind than STOPPED takes.
LONG_BEHIND: dict[str, Any] = {"lag": 11_118, "lag_time": LagTime(None, 300.0)}
DEAD: dict[str, Any] = {"owner_heartbeat_age_seconds": 12.0}
GIVEN_UP: dict[str, Any] = {"failed_ranges": 3, "failed_offsets": 1200, "failed_given_up": 2}
STAGE = "decoding engagement-3 [790000, 800000)"
STUCK: dict[str, Any] = {"stage": STAGE, "stage_seconds": 42.0}
TROUBLE = "database: connection refused"


def window(seconds: int, *, reads: float, arrives: float, lag: int = 11_118) -> tuple[CommitPoint, ...]:
    """One sample a second until now, where FINE stands at `lag`; both ends move evenly."""
    return tuple(
        CommitPoint(1000.0 + at, 790_000 + round(reads * at), 790_000 + lag + round(arrives * at))
        for at in range(-seconds, 1)
    )


def still(seconds: int) -> tuple[CommitPoint, ...]:
    return window(seconds, reads=0, arrives=50)


def moved_back(*, by: int, ago: int, reads: int = 100) -> tuple[CommitPoint, ...]:
    """It read at the same speed before and after it was moved back, `ago` seconds ago."""
    points = window(59, reads=reads, arrives=0)
    return tuple(
        point._replace(next_offset=point.next_offset + by) if point.at_seconds < 1000 - ago else point
        for point in points
    )


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
        (DEAD, Status.OWNER_DEAD, ["Owner dead for 12 s", "w-7f2"]),
        ({"owner_heartbeat_age_seconds": 10.0}, Status.OK, []),
        ({"owner_stopped": True}, Status.OWNER_DEAD, ["ended without releasing"]),
        ({"owner_heartbeat_age_seconds": None}, Status.OWNER_DEAD, ["ended without releasing"]),
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


def judged(**changes: Any) -> Verdict:
    return assess(dataclasses.replace(FINE, **changes), LIMITS)


#: (what is the matter, its facts, the status, the words). In the order in which one hides the next.
ORDER: list[tuple[str, dict[str, Any], Status, str]] = [
    ("halted", {"halt_reason": "expired"}, Status.HALTED, "Kafka deleted records"),
    ("dead", DEAD, Status.OWNER_DEAD, "Owner dead for 12 s"),
    ("given up", GIVEN_UP, Status.FAILED, "1,200 offsets in 3 ranges could not be applied"),
    ("paused", {"desired_state": "paused"}, Status.PAUSED, "Paused by an operator"),
    ("stuck", {**STUCK, **BEHIND}, Status.STUCK, "Stuck at offset 790,000"),
    ("still", {**BEHIND, "window": still(20)}, Status.STALLED, "has not moved"),
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
            ["run_consumer. It is paused as well. 1,200 offsets could not be applied as well."],
            id="a dead owner hides neither a pause nor a failure",
        ),
        pytest.param(
            {"owner": None, **GIVEN_UP},
            Status.UNOWNED,
            ["1,200 offsets could not be applied as well."],
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
            ["no retry is left for 2 of them. Replay them when the cause is gone, or accept that they are"],
            id="a failure alone",
        ),
        pytest.param(
            {"failed_ranges": 1, "failed_offsets": 1, "failed_given_up": 1},
            Status.FAILED,
            ["1 offset in 1 range could not be applied, and no retry is left. Replay"],
            id="no retry left for any range",
        ),
        pytest.param(
            {"failed_ranges": 1, "failed_offsets": 1200},
            Status.OK,
            ["Keeps up", "1,200 offsets could not be applied yet; a replay tries again by itself."],
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
        f"Stuck at offset 790,000: its worker w-7f2 has been {STAGE} for 42 s. "
        "Evict the worker, so that another one takes over."
    )


def test_it_carries_what_the_headline_says_of_it():
    facts = GroupFacts([("a", judged(**GIVEN_UP)), ("b", judged(**STUCK))])

    assert headline(facts).startswith("a has 1,200 offsets that could not be applied; b is stuck at offset 790,000.")


def test_it_lets_the_limit_decide_how_long_a_stage_may_take():
    limits = dataclasses.replace(LIMITS, stuck_seconds=60.0)

    assert assess(dataclasses.replace(FINE, **BEHIND, **STUCK), limits).status == Status.LAGGING


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        # Too little to say more than today
        pytest.param({**BEHIND, "window": still(59)[-4:]}, Status.LAGGING, ["not catching up"], id="four samples"),
        pytest.param({**BEHIND, "window": still(4)}, Status.LAGGING, ["not catching up"], id="four seconds"),
        pytest.param(
            {**BEHIND, "window": still(59)[::20] + still(1)[:1]}, Status.LAGGING, [], id="four samples, long apart"
        ),
        pytest.param({**BEHIND, "window": still(5)}, Status.STALLED, ["not moved for 5.0 s"], id="five seconds"),
        pytest.param({"window": still(59)}, Status.OK, ["Keeps up"], id="still, but within what is allowed"),
        pytest.param(
            {**BEHIND, "lag": None, "lag_time": LagTime(None, 0.0), "window": still(59)},
            Status.OK,
            ["lag is unknown"],
            id="an old window freezes no verdict",
        ),
        pytest.param(
            {**BEHIND, "lag": None, "lag_time": LagTime(None, 0.0), "worker_trouble": TROUBLE},
            Status.OK,
            ["lag is unknown", f"Its worker waits: {TROUBLE}."],
            id="nothing known but a trouble",
        ),
        pytest.param(
            {"worker_trouble": TROUBLE}, Status.OK, ["Keeps up", f"behind. Its worker waits: {TROUBLE}."], id="trouble"
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=8_000, ago=1)[-4:]}, Status.LAGGING, [], id="moved back, four samples"
        ),
        # STALLED and STOPPED
        pytest.param({**BEHIND, "window": still(20)[::5]}, Status.STALLED, [], id="five samples"),
        pytest.param(
            {**BEHIND, "window": still(59), "seconds_since_commit": 58.0},
            Status.STALLED,
            ["11,118 records to read", "not moved for 59 s", "w-7f2 is alive", "Look at its last error"],
            id="still for a minute, nearly",
        ),
        pytest.param(
            {**BEHIND, "window": still(20), "stage": STAGE, "stage_seconds": 12.0},
            Status.STALLED,
            [f"w-7f2 has been {STAGE} for 12 s"],
            id="still, and busy",
        ),
        pytest.param(
            {**BEHIND, "window": still(20), "worker_trouble": TROUBLE},
            Status.STALLED,
            [f"its worker waits ({TROUBLE}). It goes on by itself when that is over."],
            id="still, for a reason that passes",
        ),
        pytest.param(
            {**BEHIND, "window": still(59), "seconds_since_commit": 60.0}, Status.STALLED, [], id="a minute, not longer"
        ),
        pytest.param(
            {**BEHIND, "window": still(59), "seconds_since_commit": 60.1},
            Status.STOPPED,
            ["not moved for 59 s", "commits nothing. Evict the worker."],
            id="longer than a minute",
        ),
        pytest.param({**BEHIND, "window": still(54)}, Status.STALLED, [], id="no commit known, 54 s seen"),
        pytest.param({**BEHIND, "window": still(55)}, Status.STOPPED, [], id="no commit known, 55 s seen"),
        pytest.param({**LONG_BEHIND, "window": still(54)}, Status.STALLED, [], id="it may have moved unseen"),
        pytest.param(
            {**LONG_BEHIND, "window": still(20), "seconds_since_commit": 240.0},
            Status.STOPPED,
            ["not moved for 4 min"],
            id="few samples, but no commit for long",
        ),
        pytest.param(
            {**LONG_BEHIND, "window": still(59), "seconds_since_commit": 400.0, "worker_trouble": TROUBLE},
            Status.STOPPED,
            ["not moved for 5 min", f"its worker waits ({TROUBLE}). It goes on by itself"],
            id="longer than a minute, for a reason that passes",
        ),
        pytest.param(
            {**BEHIND, "window": (still(59)[0]._replace(next_offset=789_999), *still(59)[1:])},
            Status.SLOW,
            [],
            id="moved by one offset",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=0, arrives=0, lag=11_119), "next_offset": 790_001},
            Status.LAGGING,
            [],
            id="moved since the newest sample",
        ),
        # REWOUND
        pytest.param(
            {**BEHIND, "window": moved_back(by=50_000, ago=20)},
            Status.REWOUND,
            ["moved it back from offset 837,900", "done in about 2 min", "unless you did not expect it"],
            id="moved back",
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=50_000, ago=2)}, Status.REWOUND, ["to read. Nothing"], id="just now"
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=2_101, ago=20)}, Status.REWOUND, ["790,001"], id="one offset to regain"
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=2_100, ago=20)}, Status.OK, ["Catching up"], id="regained its highest"
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=50_000, ago=20), "next_offset": 840_000},
            Status.OK,
            ["Catching up"],
            id="regained after the newest sample",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=0), "next_offset": 789_900},
            Status.OK,
            ["Catching up"],
            id="the row was read before the newest sample",
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=8_000, ago=20, reads=0)},
            Status.STALLED,
            ["not moved for 20 s"],
            id="moved back, and still ever since",
        ),
        # SLOW, LAGGING, OK
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=150)},
            Status.SLOW,
            ["11,118 records and 38 s behind", "50.0 records more every second", "run_consumer"],
            id="reads more slowly than records arrive",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=150), "worker_trouble": TROUBLE},
            Status.SLOW,
            [f"Its worker waits: {TROUBLE}."],
            id="slow for a reason",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=100)}, Status.LAGGING, ["not catching up"], id="steady"
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=97)}, Status.LAGGING, [], id="done in more than an hour"
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=96)},
            Status.OK,
            ["Catching up: 11,118 records and 38 s behind, done in about 46 min. Nothing to do."],
            id="done within an hour",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=150), "lag_growth_per_second": -1000.0},
            Status.SLOW,
            [],
            id="the window outweighs the last two samples",
        ),
        pytest.param(
            {**BEHIND, "window": window(4, reads=100, arrives=150), "lag_growth_per_second": -1000.0},
            Status.OK,
            ["done in about 11 s"],
            id="until it is complete they decide",
        ),
    ],
)
def test_it_judges_a_live_owner_by_the_last_minute(changes, status, words):
    verdict = judged(**changes)

    assert verdict.status == status
    for word in words:
        assert word in verdict.detail
    assert verdict.detail.endswith(".")


def ahead_of_its_samples(seconds: int) -> tuple[CommitPoint, ...]:
    return tuple(CommitPoint(1000.0 + at, 790_000, 789_995 if at < -seconds else 790_001) for at in range(-59, 1))


def quiet_then(seconds: int, *, reads: int, arrived: int) -> dict[str, Any]:
    """Nothing to do for an hour, then `arrived` records at once, `seconds` ago."""
    before = [CommitPoint(1000.0 + at, 790_000 - reads * seconds, 790_000 - reads * seconds) for at in range(-59, 0)]
    end = 790_000 - reads * seconds + arrived
    after = [CommitPoint(1000.0 + at, 790_000 + reads * at, end) for at in range(-seconds, 1)]
    return {
        "window": (*before[:-seconds], *after),
        "lag": end - 790_000,
        "lag_time": LagTime(float(seconds), float(seconds)),
        "seconds_since_commit": 3600.0 if not reads else 0.5,
    }


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        pytest.param(quiet_then(3, reads=0, arrived=1), Status.OK, "1 record to read, 3.0 s behind", id="one record"),
        pytest.param(quiet_then(12, reads=0, arrived=1), Status.STALLED, "not moved for 12 s", id="it stays there"),
        pytest.param(quiet_then(54, reads=0, arrived=1), Status.STALLED, "not moved for 54 s", id="nearly a minute"),
        pytest.param(quiet_then(56, reads=0, arrived=1), Status.STOPPED, "not moved for 56 s", id="a minute"),
        pytest.param(
            {**quiet_then(12, reads=0, arrived=1), "window": ahead_of_its_samples(12)},
            Status.STALLED,
            "not moved for 12 s",
            id="a commit newer than the sampled end",
        ),
        pytest.param(
            quiet_then(12, reads=1000, arrived=20_000), Status.OK, "done in about 8.0 s", id="a burst, being read"
        ),
        pytest.param(
            quiet_then(12, reads=1, arrived=20_000), Status.LAGGING, "not catching up", id="a burst, hardly read"
        ),
    ],
)
def test_it_stays_sane_when_a_quiet_topic_wakes_up(facts, status, words):
    verdict = judged(**facts)

    assert verdict.status == status
    assert words in verdict.detail


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"lag": 0}, 0.0, id="caught up"),
        pytest.param({"lag": None, "window": window(59, reads=100, arrives=0)}, None, id="lag unknown"),
        pytest.param({**BEHIND, "window": window(59, reads=200, arrives=100)}, 111.18, id="the net rate"),
        pytest.param({**BEHIND, "window": window(59, reads=100, arrives=100)}, None, id="steady"),
        pytest.param({**BEHIND, "window": window(59, reads=100, arrives=150)}, None, id="growing"),
        pytest.param({**BEHIND, "window": still(59)}, None, id="still"),
        pytest.param({**BEHIND}, None, id="no sample, steady"),
        pytest.param({**BEHIND, "lag_growth_per_second": None}, None, id="no sample"),
        pytest.param({**BEHIND, "lag_growth_per_second": -1000.0}, 11.118, id="two samples"),
        pytest.param({**BEHIND, "lag_growth_per_second": -5e-324}, None, id="longer than numbers go"),
        pytest.param({**BEHIND, "window": moved_back(by=8_000, ago=20)}, 111.18, id="since it was moved back"),
        pytest.param(quiet_then(12, reads=1000, arrived=20_000), 8.0, id="since it had something to read"),
        pytest.param(
            {**BEHIND, "window": window(59, reads=200, arrives=100), "desired_state": "paused"}, None, id="paused"
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=200, arrives=100), "halt_reason": "expired"}, None, id="halted"
        ),
        pytest.param({**BEHIND, "window": window(59, reads=200, arrives=100), "owner": None}, None, id="unowned"),
    ],
)
def test_it_says_when_it_will_have_caught_up(changes, expected):
    assert eta_seconds(dataclasses.replace(FINE, **changes)) == (expected and pytest.approx(expected))


@pytest.mark.parametrize("status", Status)
def test_it_finds_the_status_in_its_label(status):
    verdict = Verdict(status, ".", offset=812_400)

    assert Status.of_label(verdict.label) is status
    assert verdict.label == ("STUCK AT OFFSET 812,400" if status is Status.STUCK else status.value)


def test_it_shows_a_stuck_partition_whose_offset_is_unknown():
    assert Verdict(Status.STUCK, ".").label == "STUCK"


@pytest.mark.parametrize("label", ["", "OKAY", "OWNER", "stuck"])
def test_it_finds_no_status_in_other_words(label):
    with pytest.raises(ValueError, match="no status"):
        Status.of_label(label)


OFFSETS = st.integers(min_value=0, max_value=2**63 - 1)
SECONDS = st.floats(min_value=0, max_value=1e9)
SMALL = st.integers(min_value=0, max_value=20)
#: Windows of small numbers meet each other and their borders; wild ones must at least not raise.
WINDOWS = st.lists(st.builds(CommitPoint, st.floats(0, 100), SMALL, SMALL), max_size=12).map(sorted) | st.lists(
    st.builds(CommitPoint, st.floats(allow_nan=False, allow_infinity=False), OFFSETS, OFFSETS), max_size=12
)
LAG_TIMES = st.builds(lambda known, least: LagTime(least if known else None, least), st.booleans(), SECONDS)
FACTS = st.builds(
    PartitionFacts,
    name=st.just("engagement-3"),
    next_offset=SMALL | OFFSETS,
    owner=st.none() | st.just("w-7f2"),
    owner_heartbeat_age_seconds=st.none() | SECONDS,
    owner_stopped=st.booleans(),
    desired_state=st.sampled_from(["running", "paused"]),
    halt_reason=st.sampled_from(["", "expired", "store_missing"]),
    lag=st.none() | SMALL | OFFSETS,
    lag_time=LAG_TIMES,
    lag_growth_per_second=st.none() | st.floats(allow_infinity=True, allow_nan=True),
    window=WINDOWS,
    seconds_since_commit=st.none() | SECONDS,
    stage=st.sampled_from(["", STAGE]),
    stage_seconds=st.none() | SECONDS,
    worker_trouble=st.sampled_from(["", TROUBLE]),
    failed_ranges=SMALL,
    failed_offsets=SMALL | OFFSETS,
    failed_given_up=SMALL,
)


@given(FACTS)
def test_it_has_a_verdict_and_a_headline_for_any_facts(facts):
    verdict = assess(facts, LIMITS)

    assert verdict.detail.endswith(".")
    assert "nan" not in verdict.detail
    assert Status.of_label(verdict.label) is verdict.status
    assert headline(GroupFacts([(facts.name, verdict)], lag=facts.lag))


def served(facts: PartitionFacts) -> PartitionFacts:
    return dataclasses.replace(
        facts, owner="w-7f2", owner_heartbeat_age_seconds=0.5, owner_stopped=False, halt_reason="",
        desired_state="running", failed_given_up=0,
    )  # fmt: skip


@given(FACTS)
def test_it_is_content_with_a_live_owner_that_has_nothing_to_read(facts):
    assert assess(dataclasses.replace(served(facts), lag=0), LIMITS).status == Status.OK


@given(FACTS)
def test_it_never_takes_an_unknown_lag_for_a_slow_worker(facts):
    verdict = assess(dataclasses.replace(served(facts), lag=None, stage=""), LIMITS)

    assert verdict.status == Status.OK
    assert "unknown" in verdict.detail


@given(FACTS)
def test_it_promises_no_time_that_is_negative_or_no_number(facts):
    eta = eta_seconds(facts)

    assert eta is None or (eta >= 0 and math.isfinite(eta))


@given(FACTS)
def test_it_never_eases_a_verdict_for_one_more_thing_that_is_wrong(facts):
    running = served(facts)
    halted = assess(dataclasses.replace(facts, halt_reason="expired"), LIMITS)
    failed = assess(dataclasses.replace(running, failed_given_up=1), LIMITS)
    dead = assess(dataclasses.replace(running, owner_stopped=True), LIMITS)

    assert halted.status == Status.HALTED
    assert (failed.status, dead.status) == (Status.FAILED, Status.OWNER_DEAD)
    for worse in (halted, failed, dead):
        assert worst([worse.status, assess(running, LIMITS).status]) == worse.status


@given(FACTS)
def test_it_lets_no_worker_that_says_why_it_waits_be_evicted(facts):
    verdict = assess(dataclasses.replace(served(facts), worker_trouble=TROUBLE), LIMITS)

    assert "vict the worker" not in verdict.detail


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
    "OK", "LAGGING", "SLOW", "PAUSED", "REWOUND", "STALLED", "STOPPED", "STUCK", "UNOWNED", "OWNER DEAD", "FAILED",
    "HALTED",
]  # fmt: skip


@pytest.mark.parametrize(("better", "worse"), list(pairwise(SEVERITY)))
def test_it_orders_statuses_by_severity(better, worse):
    assert worst([Status(worse), Status(better)]) == worst([Status(better), Status(worse)]) == worse


def test_the_page_orders_the_same_statuses_in_the_same_way():
    script = (Path(__file__).parents[2] / "static" / "js" / "statuses.js").read_text(encoding="utf-8")
    families = re.findall(r"words: \[(.*?)\]", script)

    assert re.findall(r'"([^"]+)"', " ".join(families)) == SEVERITY == list(Status)


def named(*statuses: str) -> list[tuple[str, Verdict]]:
    return [(f"engagement-{number}", Verdict(Status(status), ".")) for number, status in enumerate(statuses)]


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
            "engagement-1 is without a live owner; the other 1 is fine. Lag 1,204 (0.3 s). "
            "1 dead letter waits for a decision. Nothing lost, nothing counted twice.",
        ),
        (
            GroupFacts(named("OWNER DEAD", "UNOWNED"), lag=0),
            "No live worker owns any of the 2 partitions; nothing is counted. Start a worker: "
            "manage.py run_consumer. Lag 0. Invariants not checked yet.",
        ),
        (
            GroupFacts(named("OK", "OWNER DEAD", "UNOWNED", "OWNER DEAD"), lag=0),
            "engagement-1 and engagement-3 have a dead owner; engagement-2 is without a live owner; "
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
