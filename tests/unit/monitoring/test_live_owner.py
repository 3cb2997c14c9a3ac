"""A live owner is judged by the last minute."""

import dataclasses
from typing import Any

import pytest

from offsets.monitoring.lag import LagTime
from offsets.monitoring.status import Status, Verdict, eta_seconds
from offsets.monitoring.window import CommitPoint
from tests.support.facts import BEHIND, FINE, LIMITS, STAGE, TROUBLE, judged, still, window

#: Longer behind than STOPPED takes.
LONG_BEHIND: dict[str, Any] = {"lag": 11_118, "lag_time": LagTime(None, 300.0)}


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
        # Too little to say more than today
        pytest.param({**BEHIND, "window": still(59)[-4:]}, Status.LAGGING, ["not catching up"], id="four samples"),
        pytest.param({**BEHIND, "window": still(4)}, Status.LAGGING, ["not catching up"], id="four seconds"),
        pytest.param(
            {**BEHIND, "window": still(59)[::20] + still(1)[:1]}, Status.LAGGING, [], id="four samples, long apart"
        ),
        pytest.param({**BEHIND, "window": still(5)}, Status.STALLED, ["no progress for 5.0 s"], id="five seconds"),
        pytest.param({"window": still(59)}, Status.OK, ["Keeping up"], id="still, but within what is allowed"),
        pytest.param(
            {**BEHIND, "lag": None, "lag_time": LagTime(None, 0.0), "window": still(59)},
            Status.OK,
            ["lag is unknown"],
            id="an old window freezes no verdict",
        ),
        pytest.param(
            {**BEHIND, "lag": None, "lag_time": LagTime(None, 0.0), "worker_trouble": TROUBLE},
            Status.OK,
            ["lag is unknown", f"Its worker is waiting: {TROUBLE}."],
            id="nothing known but a trouble",
        ),
        pytest.param(
            {"worker_trouble": TROUBLE},
            Status.OK,
            ["Keeping up", f"behind. Its worker is waiting: {TROUBLE}."],
            id="trouble",
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=8_000, ago=1)[-4:]}, Status.LAGGING, [], id="moved back, four samples"
        ),
        # STALLED and STOPPED
        pytest.param({**BEHIND, "window": still(20)[::5]}, Status.STALLED, [], id="five samples"),
        pytest.param(
            {**BEHIND, "window": still(59), "seconds_since_commit": 58.0},
            Status.STALLED,
            ["11,118 records behind", "no progress for 59 s", "w-7f2 is alive", "Check its last error"],
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
            [f"its worker is waiting ({TROUBLE}). It resumes automatically."],
            id="still, for a reason that passes",
        ),
        pytest.param(
            {**BEHIND, "window": still(59), "seconds_since_commit": 60.0}, Status.STALLED, [], id="a minute, not longer"
        ),
        pytest.param(
            {**BEHIND, "window": still(59), "seconds_since_commit": 60.1},
            Status.STOPPED,
            ["no progress for 59 s", "commits nothing. Evict the worker."],
            id="longer than a minute",
        ),
        pytest.param({**BEHIND, "window": still(54)}, Status.STALLED, [], id="no commit known, 54 s seen"),
        pytest.param({**BEHIND, "window": still(55)}, Status.STOPPED, [], id="no commit known, 55 s seen"),
        pytest.param({**LONG_BEHIND, "window": still(54)}, Status.STALLED, [], id="it may have moved unseen"),
        pytest.param(
            {**LONG_BEHIND, "window": still(20), "seconds_since_commit": 240.0},
            Status.STOPPED,
            ["no progress for 4 min"],
            id="few samples, but no commit for long",
        ),
        pytest.param(
            {**LONG_BEHIND, "window": still(59), "seconds_since_commit": 400.0, "worker_trouble": TROUBLE},
            Status.STOPPED,
            ["no progress for 5 min", f"its worker is waiting ({TROUBLE}). It resumes"],
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
            ["seek back from offset 837,900", "done in about 2 min", "unless the seek was a mistake"],
            id="moved back",
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=50_000, ago=2)}, Status.REWOUND, ["behind. No action"], id="just now"
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=2_101, ago=20)}, Status.REWOUND, ["790,001"], id="one offset to regain"
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=2_100, ago=20)},
            Status.CATCHING_UP,
            ["Catching up"],
            id="regained its highest",
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=50_000, ago=20), "next_offset": 840_000},
            Status.CATCHING_UP,
            ["Catching up"],
            id="regained after the newest sample",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=0), "next_offset": 789_900},
            Status.CATCHING_UP,
            ["Catching up"],
            id="the row was read before the newest sample",
        ),
        pytest.param(
            {**BEHIND, "window": moved_back(by=8_000, ago=20, reads=0)},
            Status.STALLED,
            ["no progress for 20 s"],
            id="moved back, and still ever since",
        ),
        # SLOW, LAGGING, OK
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=150)},
            Status.SLOW,
            ["11,118 records and 38 s behind", "growing by 50.0 records/s", "run_consumer"],
            id="reads more slowly than records arrive",
        ),
        pytest.param(
            {**BEHIND, "window": window(59, reads=100, arrives=150), "worker_trouble": TROUBLE},
            Status.SLOW,
            [f"Its worker is waiting: {TROUBLE}."],
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
            Status.CATCHING_UP,
            ["Catching up: 11,118 records and 38 s behind, done in about 46 min. No action needed."],
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
            Status.CATCHING_UP,
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
        pytest.param(quiet_then(3, reads=0, arrived=1), Status.OK, "1 record, 3.0 s behind", id="one record"),
        pytest.param(quiet_then(12, reads=0, arrived=1), Status.STALLED, "no progress for 12 s", id="it stays there"),
        pytest.param(quiet_then(54, reads=0, arrived=1), Status.STALLED, "no progress for 54 s", id="nearly a minute"),
        pytest.param(quiet_then(56, reads=0, arrived=1), Status.STOPPED, "no progress for 56 s", id="a minute"),
        pytest.param(
            {**quiet_then(12, reads=0, arrived=1), "window": ahead_of_its_samples(12)},
            Status.STALLED,
            "no progress for 12 s",
            id="a commit newer than the sampled end",
        ),
        pytest.param(
            quiet_then(12, reads=1000, arrived=20_000),
            Status.CATCHING_UP,
            "done in about 8.0 s",
            id="a burst, being read",
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
    assert eta_seconds(dataclasses.replace(FINE, **changes), LIMITS) == (expected and pytest.approx(expected))


@pytest.mark.parametrize("status", Status)
def test_it_finds_the_status_in_its_label(status):
    verdict = Verdict(status, ".", offset=812_400)

    assert Status.of_label(verdict.label) is status
    assert verdict.label == ("STUCK AT OFFSET 812,400" if status is Status.STUCK else status.value)


def test_it_shows_a_stuck_partition_whose_offset_is_unknown():
    assert Verdict(Status.STUCK, ".").label == "STUCK"


@pytest.mark.parametrize("label", ["", "OKAY", "OWNER", "stuck"])
def test_it_finds_no_status_in_other_words(label):
    with pytest.raises(ValueError, match="Unknown status"):
        Status.of_label(label)
