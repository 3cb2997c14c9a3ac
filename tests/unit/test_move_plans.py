"""The plans of moves: where they begin, and what they lose."""

from dataclasses import replace

import pytest

from offsets.actions.logs import may_have_lost
from offsets.actions.move_plans import (
    Bounds,
    MoveContext,
    MoveKind,
    plan_rebuild,
    plan_restart,
    plan_resume,
    plan_seek,
)
from offsets.errors import RefusedError
from offsets.kafka.admin import LogBounds
from offsets.ranges import KnownRange
from offsets.types import HaltReason, RangeKind, Semantics

AT = MoveContext("t-0", 1000, 0, 1000, HaltReason.NONE, Semantics.EXACTLY_ONCE)
ALL = [KnownRange(0, 1000, RangeKind.PROCESSED)]
CUT = replace(AT, halt_reason=HaltReason.TRUNCATED, truncated=True)
CUT_AT_900 = replace(CUT, diverges=900)


@pytest.mark.parametrize(
    ("at", "bounds", "from_log_start", "target", "to_count", "lost"),
    [
        pytest.param(AT, Bounds(0, 1200), False, 0, 1200, 0, id="all of it"),
        pytest.param(
            replace(AT, baseline_offset=400), Bounds(0, 1200), False, 400, 800, 0, id="not below the baseline"
        ),
        pytest.param(replace(AT, baseline_offset=400), Bounds(0, 1200), True, 0, 1200, 0, id="unless it is asked for"),
        pytest.param(replace(AT, baseline_offset=400), Bounds(500, 1200), False, 500, 700, 100, id="retention"),
        pytest.param(CUT_AT_900, Bounds(0, 1500), False, 0, 1500, 100, id="truncated and grown"),
        pytest.param(CUT_AT_900, Bounds(0, 950), False, 0, 950, 100, id="truncated, grown a little"),
        pytest.param(CUT_AT_900, Bounds(950, 1500), False, 950, 550, 1000, id="truncated, then retention"),
        pytest.param(CUT, Bounds(0, 1500), False, 0, 1500, None, id="truncated, nobody knows where"),
        pytest.param(
            replace(CUT_AT_900, baseline_offset=950), Bounds(0, 940), False, 900, 40, 50, id="cut below the baseline"
        ),
    ],
)
def test_a_rebuild(
    at: MoveContext, bounds: Bounds, from_log_start: bool, target: int, to_count: int, lost: int | None
) -> None:
    known = [KnownRange(at.baseline_offset, 1000, RangeKind.PROCESSED)]
    plan = plan_rebuild(at, known, bounds, from_log_start=from_log_start)
    assert (plan.target, plan.baseline, plan.to_count, plan.lost) == (target, target, to_count, lost)


@pytest.mark.parametrize(
    ("at", "bounds", "target", "to_count", "lost"),
    [
        pytest.param(replace(AT, same_topic=False), Bounds(5, 50), 5, 45, 0, id="recreated"),
        pytest.param(CUT_AT_900, Bounds(0, 1500), 900, 600, 0, id="truncated and grown"),
        pytest.param(CUT_AT_900, Bounds(0, 950), 900, 50, 0, id="truncated, grown a little"),
        pytest.param(CUT_AT_900, Bounds(0, 900), 900, 0, 0, id="truncated"),
        pytest.param(CUT_AT_900, Bounds(930, 1500), 930, 570, 30, id="truncated, then retention"),
        pytest.param(CUT, Bounds(0, 1500), 1500, 0, None, id="truncated, nobody knows where"),
        pytest.param(AT, Bounds(0, 950), 950, 0, None, id="shorter, nobody knows since where"),
    ],
)
def test_a_restart(at: MoveContext, bounds: Bounds, target: int, to_count: int, lost: int | None) -> None:
    plan = plan_restart(at, bounds)
    assert (plan.target, plan.to_count, plan.lost) == (target, to_count, lost)


def test_an_intact_log_is_not_restarted() -> None:
    with pytest.raises(RefusedError, match="already counted"):
        plan_restart(AT, Bounds(0, 1000))


@pytest.mark.parametrize(
    ("at", "bounds", "says"),
    [
        (CUT_AT_900, Bounds(0, 1500), "truncated at 900"),
        (CUT, Bounds(0, 1500), "truncated before 1,000"),
        (AT, Bounds(0, 950), "ends at 950"),
        (replace(AT, same_topic=False), Bounds(0, 1500), "created again"),
    ],
)
@pytest.mark.parametrize("target", [0, 850, 940])
def test_a_changed_log_refuses_every_seek(at: MoveContext, bounds: Bounds, says: str, target: int) -> None:
    with pytest.raises(RefusedError, match=says):
        plan_seek(at, target, ALL, bounds)


def test_a_seek_forward_says_which_outcomes_stay() -> None:
    known = [
        KnownRange(1000, 1010, RangeKind.FAILED),
        KnownRange(1010, 1050, RangeKind.PROCESSED),
        KnownRange(1050, 1060, RangeKind.SKIPPED),
    ]
    plan = plan_seek(AT, 1100, known, Bounds(0, 1200))
    assert (plan.lost, plan.recorded) == (60, 40)
    assert dict(plan.kept) == {RangeKind.FAILED: 10, RangeKind.SKIPPED: 10}
    assert plan_seek(AT, 1050, known, Bounds(0, 1200), kind=MoveKind.SKIP).recorded == 0


@pytest.mark.parametrize(
    ("at", "bounds", "known", "lost", "halts", "says"),
    [
        (AT, Bounds(0, 1000), [], 0, "", ""),
        (AT, Bounds(1000, 1500), [], 0, "", ""),
        (AT, Bounds(1200, 1500), [], 200, "expired", "200 uncounted offsets are lost"),
        (AT, Bounds(1200, 1500), [KnownRange(1000, 1150, RangeKind.PROCESSED)], 50, "expired", "below 1,200"),
        (AT, Bounds(0, 900), [], 0, "truncated", "--keep-counts"),
        (CUT_AT_900, Bounds(0, 1500), [], 0, "truncated", "--keep-counts"),
        (replace(AT, same_topic=False), Bounds(0, 1500), [], 0, "recreated", "created again"),
    ],
)
def test_a_retired_ledger_that_goes_on(
    at: MoveContext, bounds: Bounds, known: list[KnownRange], lost: int, halts: str, says: str
) -> None:
    plan = plan_resume(at, known, bounds)
    assert (plan.next_offset, plan.lost, plan.halts) == (1000, lost, HaltReason(halts))
    assert says in plan.in_words(bounds)


@pytest.mark.parametrize(
    ("leader_epoch", "ledger_end", "bounds", "may"),
    [
        (None, 1000, LogBounds(0, 900, 3), False),
        (3, 1000, LogBounds(0, 1500, 3), False),
        (3, 1000, LogBounds(0, 900, 3), True),
        (3, 1000, LogBounds(0, 1500, 4), True),
        (3, 1000, LogBounds(0, 1500, None), True),
    ],
)
def test_the_broker_is_asked_where_a_log_may_have_lost_its_end(
    leader_epoch: int | None, ledger_end: int, bounds: LogBounds, may: bool
) -> None:
    assert may_have_lost(leader_epoch, ledger_end, bounds) is may
