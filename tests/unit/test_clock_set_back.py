"""The database's clock is set back: what was noted before lies in the future, and must not outlast it."""

from datetime import UTC, datetime, timedelta

import pytest

from analytics.dashboard.feed import is_newer
from offsets.recovery.repairs import LONGEST_RETRY, is_due
from offsets.replays.plans import retry_seconds

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sequence", "newer"),
    [(1_000_001, True), (1_000_000, False), (999_999, False), (990_000, False), (989_999, True), (0, True)],
)
def test_a_snapshot_that_is_far_older_is_of_a_clock_that_was_set_back(sequence: int, newer: bool) -> None:
    assert is_newer(sequence, 1_000_000) is newer


@pytest.mark.parametrize(
    ("seconds", "due"), [(-1, True), (0, True), (1, False), (4500, False), (7200, False), (7201, True)]
)
def test_a_retry_further_away_than_any_delay_is_due(seconds: int, due: bool) -> None:
    assert is_due(NOW + timedelta(seconds=seconds), NOW) is due


def test_no_delay_is_longer_than_what_counts_as_set_back() -> None:
    longest = retry_seconds(40, 1.0, 50, 1.0)
    assert longest is not None
    assert timedelta(seconds=longest) < LONGEST_RETRY
