"""When a loop of the application is late, and in which words."""

from datetime import UTC, datetime

import pytest

from offsets.loops import FOLD, LOOPS, MONITOR, PURGE, RECOVER, VERIFY, LastRun, Loop
from offsets.monitoring.finding import FindingLimits
from offsets.monitoring.findings import find
from offsets.monitoring.group_state import GroupState
from offsets.monitoring.headline import GroupFacts, group_status, headline
from offsets.monitoring.late_loops import late_loops
from offsets.monitoring.status import Status, Verdict

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
START = "Start a control worker and celery beat"


@pytest.mark.parametrize(
    ("loop", "age", "late"),
    [
        (FOLD, 0.0, False),
        (FOLD, 14.9, False),  # many intervals, and a busy machine all the same
        (FOLD, 15.1, True),
        (VERIFY, 29.0, False),
        (VERIFY, 31.0, True),
        (PURGE, 3 * 3600.0, False),
        (PURGE, 3 * 3600.0 + 1, True),
        (FOLD, -3600.0, False),  # the database's clock was set back
    ],
)
def test_a_loop_is_late_after_three_intervals_and_no_sooner_than_fifteen_seconds(
    loop: Loop, age: float, late: bool
) -> None:
    assert [found.name for found in late_loops([LastRun(loop.name, age)])] == ([loop.name] if late else [])


def test_a_loop_that_runs_now_or_never_ran_is_not_late() -> None:
    assert late_loops([LastRun(FOLD.name, 600, running=True)]) == []
    assert late_loops([]) == []
    assert late_loops([LastRun("of another version", 600)]) == []


@pytest.mark.parametrize(
    ("others", "error", "remedy"),
    [
        ([], "", START),
        ([LastRun(MONITOR.name, 40)], "", START),
        ([LastRun(RECOVER.name, 1)], "", START),  # in the foreground: no control worker runs it
        ([LastRun(MONITOR.name, 1)], "", "Other loops run: see the log of the control worker"),
        ([LastRun(MONITOR.name, 1)], "KeyError: 'x'.", "It fails: KeyError: 'x'"),
    ],
)
def test_the_words_say_what_does_not_happen_and_the_likely_cause(
    others: list[LastRun], error: str, remedy: str
) -> None:
    late = late_loops([LastRun(FOLD.name, 40, last_error=error), *others])[0]
    assert late.remedy == remedy
    assert late.detail == (
        f"The fold loop has not run for 40 s; it is due every 1 s. Counts stay exact, but deltas pile up and reads get "
        f"slower. {remedy}."
    )


def test_every_loop_has_words_of_its_own() -> None:
    details = {late.detail for late in late_loops([LastRun(name, 1e6) for name in LOOPS])}
    assert len(details) == len(LOOPS) == 9


def test_late_loops_are_in_the_headline_and_in_the_overall_status() -> None:
    fine = [("t-0", Verdict(Status.OK, "fine"))]
    late = late_loops([LastRun(FOLD.name, 40), LastRun(MONITOR.name, 38)])
    facts = GroupFacts(fine, lag=0, lag_seconds=0.0, invariants_ok=True, late_loops=late)
    assert f"Late loops: fold (40 s), monitor (38 s). {START}." in headline(facts)
    assert group_status(facts) is Status.STALLED
    halted = GroupFacts([("t-0", Verdict(Status.HALTED, "gone"))], late_loops=late)
    assert group_status(halted) is Status.HALTED


def test_each_late_loop_is_one_finding_that_began_with_its_last_run() -> None:
    limits = FindingLimits(10, 30, 3600)
    late = late_loops([LastRun(FOLD.name, 40), LastRun(MONITOR.name, 38)])
    found = find(GroupState(NOW, late_loops=late), limits)
    assert [(finding.key, (NOW - finding.began_at).total_seconds(), finding.critical) for finding in found] == [
        (("loop_late", "fold"), 40.0, False),
        (("loop_late", "monitor"), 38.0, False),
    ]
    assert found[0].summary == late[0].detail
