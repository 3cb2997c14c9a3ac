"""The last minute of one partition as samples: what follows from them, and when they are too few. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

#: With fewer samples, or over a shorter time, a still partition looks like one between two commits.
WINDOW_POINTS = 5
WINDOW_SECONDS = 5.0
#: What a minute of samples, one a second, spans at least.
FULL_WINDOW_SECONDS = 55.0
#: Without a sample for longer than this, the database or Kafka was unavailable.
GAP_SECONDS = 10.0


class CommitPoint(NamedTuple):
    """How far a partition was at one moment, by the database's clock."""

    at_seconds: float
    next_offset: int
    log_end_offset: int
    log_start_offset: int = 0

    @property
    def lag(self) -> int:
        """Never negative: the next offset may be newer than the sampled end."""
        return max(0, self.log_end_offset - max(self.next_offset, self.log_start_offset))


def work_in(window: Sequence[CommitPoint]) -> Sequence[CommitPoint]:
    """The samples since it last had no lag, was last moved back by a seek, or was not sampled: one stretch of work.

    Before that the lag says nothing about the worker's speed. A burst after a quiet hour is not a slow worker, the
    jump of a seek is not growth, and what piled up during an outage is not, either.
    """
    start = 0
    for index, point in enumerate(window):
        if point.lag == 0:
            start = index + 1
        elif index and (
            point.next_offset < window[index - 1].next_offset
            or point.at_seconds - window[index - 1].at_seconds > GAP_SECONDS
        ):
            start = index
    return window[start:]


def span_seconds(points: Sequence[CommitPoint]) -> float:
    return points[-1].at_seconds - points[0].at_seconds if points else 0.0


def is_complete(points: Sequence[CommitPoint]) -> bool:
    return len(points) >= WINDOW_POINTS and span_seconds(points) >= WINDOW_SECONDS


def growth_per_second(points: Sequence[CommitPoint]) -> float | None:
    """The net growth of the lag; None while there are too few samples.

    Since its highest or lowest lag, where it has clearly gone one way since then: a backlog that shrinks after an
    outage is not growing, although it is larger than before.
    """
    if not is_complete(points):
        return None
    lags = [point.lag for point in points]
    last = len(lags) - 1
    turns = {last - lags[::-1].index(max(lags)), last - lags[::-1].index(min(lags))}
    for part in (points[turn:] for turn in sorted(turns, reverse=True)):
        if is_complete(part) and _one_way(part):
            return _slope(part)
    return _slope(points)


def _slope(points: Sequence[CommitPoint]) -> float:
    """By least squares: a lag that swings by a batch does not shrink because its last sample is a low one."""
    seconds = sum(point.at_seconds / len(points) for point in points)
    lag = sum(point.lag / len(points) for point in points)
    from_middle = [point.at_seconds - seconds for point in points]
    spread = sum(far * far for far in from_middle)
    return sum(far * (point.lag - lag) for far, point in zip(from_middle, points, strict=True)) / spread


def _one_way(points: Sequence[CommitPoint]) -> bool:
    """Whether all later lags are below, or all above, all earlier ones."""
    lags = [point.lag for point in points]
    earlier, later = lags[: len(lags) // 2], lags[len(lags) // 2 :]
    return max(later) < min(earlier) or min(later) > max(earlier)


def is_still(points: Sequence[CommitPoint], next_offset: int) -> bool:
    """Whether it has been at `next_offset` in all of the samples, and there are enough of them."""
    return is_complete(points) and all(point.next_offset == next_offset for point in points)


def moved_back_from(window: Sequence[CommitPoint], next_offset: int) -> int | None:
    """The highest offset it had in the window, if it fell and is not back there.

    The row and the samples may be read one after the other, so both must be below.
    """
    if not is_complete(window):
        return None
    highest = max(point.next_offset for point in window)
    return highest if max(window[-1].next_offset, next_offset) < highest else None
