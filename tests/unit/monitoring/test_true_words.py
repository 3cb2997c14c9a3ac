"""What is said is so: hidden records are no lag, lost ones neither, a shrinking lag is no trouble."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from offsets.monitoring.headline import GroupFacts, OpenIncident, advice, group_status, headline
from offsets.monitoring.lag import LagTime, hidden_records, lag_records, lost_records
from offsets.monitoring.numbers import Numbers
from offsets.monitoring.status import Status, Verdict, assess, eta_seconds
from offsets.monitoring.window import CommitPoint, growth_per_second, work_in
from tests.support.facts import BEHIND, FINE, LIMITS, TROUBLE, judged, window

CAUGHT_UP: dict[str, Any] = {"lag": 0, "lag_time": LagTime(0.0, 0.0)}
HIDDEN: dict[str, Any] = {
    "hidden": 43_885,
    "hidden_since": datetime(2026, 11, 27, 14, 5, 10, tzinfo=UTC),
    "hidden_seconds": 38.0,
}

# --- Both ends, and what is lost ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("next_offset", "log_start", "log_end", "lag", "lost"),
    [
        (100, 0, 150, 50, 0),
        (100, None, 150, 50, 0),
        (100, 100, 150, 50, 0),
        (10, 200_000, 200_000, 0, 199_990),  # deleted to the end while nobody read
        (10, 60, 150, 90, 50),
        (150, 200, 200, 0, 50),
    ],
)
def test_what_kafka_deleted_is_lost_and_not_behind(
    next_offset: int, log_start: int | None, log_end: int, lag: int, lost: int
) -> None:
    assert (lag_records(log_end, next_offset, log_start), lost_records(next_offset, log_start)) == (lag, lost)


@pytest.mark.parametrize(
    ("log_end", "high", "hidden"), [(100, 43_985, 43_885), (100, 100, 0), (100, None, 0), (None, 100, 0), (100, 90, 0)]
)
def test_records_between_both_ends_are_hidden(log_end: int | None, high: int | None, hidden: int) -> None:
    assert hidden_records(log_end, high) == hidden


# --- An open transaction --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        pytest.param(
            {**CAUGHT_UP, **HIDDEN},
            Status.OPEN_TRANSACTION,
            [
                "Waiting for an open transaction: 43,885 records since 14:05:10 UTC.",
                "transaction.timeout.ms",
                "describe-producers --topic engagement --partition 3.",
            ],
            id="it has read all it can",
        ),
        pytest.param({**HIDDEN}, Status.OPEN_TRANSACTION, [], id="a little behind"),
        pytest.param({**CAUGHT_UP, **HIDDEN, "hidden_seconds": 10.0}, Status.OK, ["Keeping up"], id="a short one"),
        pytest.param({**CAUGHT_UP, **HIDDEN, "hidden_seconds": 10.1}, Status.OPEN_TRANSACTION, [], id="just too long"),
        pytest.param({**CAUGHT_UP, **HIDDEN, "hidden_seconds": None}, Status.OK, [], id="nobody knows how long"),
        pytest.param({**CAUGHT_UP, **HIDDEN, "hidden": 0}, Status.OK, [], id="over"),
        pytest.param(
            {**BEHIND, **HIDDEN, "window": window(59, reads=100, arrives=150)},
            Status.SLOW,
            ["43,885 records more wait behind an open transaction."],
            id="behind as well",
        ),
        pytest.param(
            {**CAUGHT_UP, **HIDDEN, "desired_state": "paused"}, Status.PAUSED, ["43,885 records more"], id="paused"
        ),
        pytest.param({**HIDDEN, "owner": None}, Status.UNOWNED, ["No worker owns it"], id="without an owner"),
    ],
)
def test_a_partition_that_waits_for_a_transaction_does_not_keep_up(
    changes: dict[str, Any], status: Status, words: Sequence[str]
) -> None:
    verdict = judged(**changes)

    assert verdict.status == status
    for word in words:
        assert word in verdict.detail


# --- Lost while nobody reads ----------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"owner": None}, {"desired_state": "paused"}, {"owner_stopped": True}])
def test_a_partition_that_nobody_reads_says_what_it_has_lost(changes: dict[str, Any]) -> None:
    detail = judged(**changes, **CAUGHT_UP, lost=199_990).detail

    assert "199,990 offsets lost so far: Kafka deleted them before they were read (expired)." in detail
    assert "behind" not in detail


# --- Catching up ----------------------------------------------------------------------------------


def outage(*, away: int, back: int, before: int = 40, reads: int = 3000, arrives: int = 300) -> tuple[CommitPoint, ...]:
    """It kept up, then there were no samples for `away` seconds, then it reads faster than records arrive."""
    end = 790_000
    points = [CommitPoint(at, end + arrives * at - 60, end + arrives * at) for at in range(before)]
    for at in range(before + away, before + away + back):
        log_end = end + arrives * at
        points.append(
            CommitPoint(at, min(log_end, points[before - 1].next_offset + reads * (at - before - away)), log_end)
        )
    return tuple(points)


def facts_from(points: Sequence[CommitPoint]) -> dict[str, Any]:
    return {
        "window": points,
        "next_offset": points[-1].next_offset,
        "lag": points[-1].lag,
        "lag_time": LagTime(points[-1].lag / 300, points[-1].lag / 300),
        "lag_growth_per_second": None,
    }


@pytest.mark.parametrize("back", range(1, 12))
def test_after_an_outage_it_catches_up_and_is_not_slow(back: int) -> None:
    verdict = judged(**facts_from(outage(away=120, back=back)))

    assert verdict.status == Status.CATCHING_UP, verdict.detail


@pytest.mark.parametrize("seconds", range(1, 5))
def test_right_after_a_resume_nothing_is_known_yet(seconds: int) -> None:
    """The window begins at the resume."""
    verdict = judged(**BEHIND, window=window(seconds, reads=0, arrives=50), lag_growth_per_second=None)

    assert verdict.status == Status.CATCHING_UP
    assert "only just begun to read" in verdict.detail


def test_a_lag_that_turned_is_judged_since_it_turned() -> None:
    """A worker without its database fell behind for 40 s while samples went on; now it reads again."""
    fell = [CommitPoint(at, 1000, 1000 + 300 * at) for at in range(1, 41)]
    reads = [CommitPoint(40 + at, 1000 + 900 * at, 13_000 + 300 * at) for at in range(1, 11)]

    points = (*fell, *reads)
    assert growth_per_second(points) == pytest.approx(-600)
    assert growth_per_second(points[:43]) == pytest.approx(300, rel=0.3), "two seconds prove nothing"
    verdict = judged(**{**facts_from(points), "next_offset": 10_000})
    assert verdict.status == Status.CATCHING_UP
    assert "done in about 10 s" in verdict.detail


@pytest.mark.parametrize("phase", range(3))
def test_a_lag_that_only_swings_does_not_shrink(phase: int) -> None:
    """By its first and last sample alone it would be gone in about twenty minutes."""
    swings = tuple(
        CommitPoint(at, 790_000 + 100 * at, 801_118 + 100 * at + 500 * ((at + phase) % 3)) for at in range(60)
    )
    verdict = judged(**{**BEHIND, "window": swings})

    assert verdict.status in (Status.LAGGING, Status.SLOW)
    assert eta_seconds(dataclasses.replace(FINE, **BEHIND, window=swings), LIMITS) is None


def test_a_hole_in_the_samples_ends_a_stretch_of_work() -> None:
    points = outage(away=11, back=3, reads=400)
    assert work_in(points) == points[-3:]
    assert len(work_in(outage(away=9, back=3, reads=400))) == 43, "a few samples may be late"


def test_a_small_lag_has_no_time_until_it_is_gone() -> None:
    """Sixty records are within the limit, and vary for no reason."""
    facts = dataclasses.replace(FINE, lag=60, lag_time=LagTime(0.2, 0.2), window=window(59, reads=100.07, arrives=100))
    assert eta_seconds(facts, LIMITS) is None


def test_the_advice_for_a_worker_that_waits_is_its_cause_and_not_another_worker() -> None:
    slow = judged(**BEHIND, window=window(59, reads=100, arrives=150), worker_trouble=TROUBLE)
    assert TROUBLE in slow.detail
    assert "Add a worker" not in slow.detail


def test_the_limits_that_a_verdict_is_of_are_named() -> None:
    slow = judged(**BEHIND, window=window(59, reads=100, arrives=150))
    assert "10 s are allowed (ALLOWED_LAG_SECONDS)" in slow.detail
    dead = judged(owner_heartbeat_age_seconds=12.0)
    assert "HEARTBEAT_TIMEOUT_SECONDS allows 10 s" in dead.detail


# --- One number -----------------------------------------------------------------------------------


def test_a_sentence_takes_the_numbers_of_its_reader() -> None:
    verdict = assess(dataclasses.replace(FINE, **BEHIND, window=window(59, reads=100, arrives=150)), LIMITS)
    assert "11,118 records and 38 s behind" in verdict.detail

    shown = Numbers(11_200, LagTime(39.0, 39.0), 0, 790_100).fill(verdict.template)

    assert "11,200 records and 39 s behind" in shown
    assert shown == verdict.detail.replace("11,118", "11,200").replace("38 s", "39 s")


# --- The headline is the worst of all -------------------------------------------------------------

FINE_GROUP = [("engagement-0", Verdict(Status.OK, "Keeping up.")), ("engagement-1", Verdict(Status.OK, "Keeping up."))]
LATE_GROUP = [("engagement-0", Verdict(Status.LAGGING, "It lags.")), FINE_GROUP[1]]
SOUND: dict[str, Any] = {"lag": 0, "invariants_ok": True, "invariants_age_seconds": 3.0}
WARNING, CRITICAL = OpenIncident(False, "A worker waits."), OpenIncident(True, "Kafka does not respond.")


@pytest.mark.parametrize(
    ("facts", "status", "advised"),
    [
        (GroupFacts(FINE_GROUP, **SOUND), Status.OK, "No action needed."),
        (GroupFacts(FINE_GROUP, **SOUND, incidents=[WARNING]), Status.ATTENTION, "A worker waits."),
        (GroupFacts(FINE_GROUP, **SOUND, incidents=[WARNING, CRITICAL]), Status.INCIDENT, "Kafka does not respond."),
        (GroupFacts(LATE_GROUP, **SOUND, incidents=[WARNING]), Status.LAGGING, "engagement-0: It lags."),
        (GroupFacts(LATE_GROUP, **SOUND, incidents=[CRITICAL]), Status.INCIDENT, "Kafka does not respond."),
        (GroupFacts(FINE_GROUP, **SOUND, failed_offsets=543), Status.ATTENTION, "543 offsets could not be applied yet"),
        (GroupFacts(FINE_GROUP, **SOUND, dead_letters=3), Status.ATTENTION, "Requeue or discard the pending dead"),
        (GroupFacts(FINE_GROUP, **SOUND, lost_offsets=9), Status.INCIDENT, "9 offsets lost: Kafka deleted them"),
        (
            GroupFacts(FINE_GROUP, lag=0, invariants_ok=True, invariants_age_seconds=301.0),
            *(Status.ATTENTION, "The invariants were last checked 5 min ago."),
        ),
        (
            GroupFacts(FINE_GROUP, lag=0, invariants_ok=True, invariants_age_seconds=300.0),
            Status.OK,
            "No action needed.",
        ),
        (
            GroupFacts(FINE_GROUP, lag=0, invariants_ok=False, incidents=[CRITICAL]),
            *(Status.HALTED, "Do not rely on the counts."),
        ),
        (GroupFacts([]), Status.OK, "Data appears as soon as a worker claims a partition."),
    ],
)
def test_the_headline_is_the_worst_of_all_that_is_known(facts: GroupFacts, status: Status, advised: str) -> None:
    assert group_status(facts) == status
    assert advice(facts).startswith(advised)


def test_the_headline_counts_what_hides_what_is_lost_and_what_is_open() -> None:
    waiting = [("a-0", Verdict(Status.OPEN_TRANSACTION, "Waiting.")), *FINE_GROUP]
    facts = GroupFacts(waiting, **SOUND, open_transaction_records=43_885, lost_offsets=9, incidents=[WARNING, CRITICAL])
    assert headline(facts) == (
        "a-0 is waiting for an open transaction; the other 2 are fine. Lag 0. 43,885 records wait behind an open "
        "transaction. 9 offsets lost: deleted by Kafka before they were read. 2 open incidents. "
        "Nothing else lost, nothing counted twice."
    )
