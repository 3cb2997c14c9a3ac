"""Whose turn it is to be checked, and what is known of the others meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest

from offsets.monitoring.invariant_turns import QUICK_SECONDS, TURN_SECONDS, Turn, advanced, in_turn, next_size
from offsets.monitoring.invariants import CHUNK, NAMED, Violation

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDS = [3, 5, 8, 9]
HOLE, SUM = Violation(5, "I1", "t-5: hole"), Violation(8, "I3", "t-8: counted 3")


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


@pytest.mark.parametrize(
    ("after", "order"), [(0, [3, 5, 8, 9]), (5, [8, 9, 3, 5]), (9, [3, 5, 8, 9]), (6, [8, 9, 3, 5]), (99, IDS)]
)
def test_it_goes_on_behind_the_last_one(after: int, order: list[int]) -> None:
    assert in_turn(IDS, after) == order


def test_it_checks_more_at_a_time_while_that_is_quick() -> None:
    assert [next_size(size, 0.0) for size in (1, 2, 40)] == [2, 4, CHUNK]
    assert next_size(8, QUICK_SECONDS) == 8
    assert [next_size(size, TURN_SECONDS + 1) for size in (8, 1)] == [4, 1]


def test_a_violation_stays_until_its_checkpoint_is_checked_again() -> None:
    turn = advanced(Turn(), IDS, [3, 5], [HOLE], at(0))
    turn = advanced(turn, IDS, [8], [SUM], at(1))
    assert turn.violations == {5: [HOLE], 8: [SUM]}
    turn = advanced(turn, IDS, [9, 3], [], at(2))
    assert turn.violations == {5: [HOLE], 8: [SUM]}
    turn = advanced(turn, IDS, [5], [], at(3))
    assert turn.violations == {8: [SUM]}


def test_what_is_not_checked_any_more_is_forgotten() -> None:
    turn = advanced(Turn(violations={5: [HOLE], 7: [SUM]}), IDS, [3], [], at(0))
    assert turn.violations == {5: [HOLE]}


def test_it_keeps_some_violations_of_each_invariant() -> None:
    many = [Violation(5, "I1", f"hole {n}") for n in range(100)]
    turn = advanced(Turn(), IDS, IDS, [*many, Violation(5, "I3", "sum")], at(0))
    assert len(turn.violations[5]) == NAMED + 1
    assert turn.violations[5][-1].invariant == "I3"


def test_a_round_is_complete_when_the_last_one_was_checked() -> None:
    turn = advanced(Turn(), IDS, [3, 5], [], at(0))
    assert (turn.began, turn.complete_since) == (at(0), None)
    turn = advanced(turn, IDS, [8], [], at(1))
    assert (turn.after, turn.complete_since) == (8, None)
    turn = advanced(turn, IDS, [9, 3], [], at(2))
    assert (turn.began, turn.complete_since) == (at(2), at(0)), "all were checked since the round began"
    turn = advanced(turn, IDS, [5, 8, 9, 3], [], at(3))
    assert turn.complete_since == at(3), "all of them at once"


def test_a_group_without_checkpoints_has_nothing_left_to_check() -> None:
    turn = advanced(Turn(), [], [], [], at(0))
    assert (turn.complete_since, dict(turn.violations)) == (at(0), {})
