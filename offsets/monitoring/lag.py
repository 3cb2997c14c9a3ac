"""Lag of one partition, in records and in seconds, from plain values. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Older log bounds say nothing about the current lag. Twice a missed tick at the slowest rate.
SAMPLE_FRESH_SECONDS = 15.0


class LogEnd(NamedTuple):
    """Where the log ended at one moment."""

    at_seconds: float
    offset: int


@dataclass(frozen=True, slots=True)
class LagTime:
    """Lag in seconds. Beyond the known history it is unknown, but `at_least_seconds` still holds."""

    seconds: float | None
    at_least_seconds: float


def lag_records(log_end_offset: int | None, next_offset: int, log_start_offset: int | None = None) -> int | None:
    """Records that are left to read: what Kafka has deleted is lost, not behind.

    Never negative: the next offset may be newer than the sampled end.
    """
    return None if log_end_offset is None else max(0, log_end_offset - max(next_offset, log_start_offset or 0))


def lost_records(next_offset: int, log_start_offset: int | None) -> int:
    """Offsets that Kafka deleted before they were read."""
    return max(0, (log_start_offset or 0) - next_offset)


def hidden_records(log_end_offset: int | None, high_watermark: int | None) -> int:
    """Records behind an open transaction: no read_committed reader reaches them yet."""
    return 0 if log_end_offset is None or high_watermark is None else max(0, high_watermark - log_end_offset)


def lag_time(points: Sequence[LogEnd], next_offset: int) -> LagTime:
    """How long ago `next_offset` was the end of the log; points oldest first.

    The oldest unread record arrived after the *last* moment at which the log ended at or before it, so a topic that
    was quiet for an hour and then got one record is seconds behind, not an hour. Between two points the end is taken
    to have grown evenly. Never extrapolates: that is where other tools get NaN and years.
    """
    if len(points) < 2:
        return LagTime(None, 0.0)
    newest = points[-1]
    if next_offset >= newest.offset:
        return LagTime(0.0, 0.0)
    for before, after in zip(reversed(points[:-1]), reversed(points), strict=False):
        if before.offset <= next_offset:
            share = (next_offset - before.offset) / (after.offset - before.offset)
            reached = before.at_seconds + share * (after.at_seconds - before.at_seconds)
            seconds = max(0.0, newest.at_seconds - reached)
            return LagTime(seconds, seconds)
    return LagTime(None, max(0.0, newest.at_seconds - points[0].at_seconds))


def per_second(older: tuple[float, int] | None, newer: tuple[float, int] | None) -> float | None:
    """The growth between two (seconds, value) samples, per second; None when it cannot be known."""
    if older is None or newer is None or newer[0] <= older[0]:
        return None
    return (newer[1] - older[1]) / (newer[0] - older[0])


def total_or_none(values: Sequence[int | None]) -> int | None:
    """The sum, or None where a part is unknown or missing: a partial lag would look like the whole."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def longest_or_none(values: Sequence[float | None]) -> float | None:
    """The maximum, or None where a part is unknown or missing."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None
