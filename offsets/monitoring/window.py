"""The last minute of one partition as samples: what follows from them, and when they are too few. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

#: With fewer samples, or over a shorter time, a still partition looks like one between two commits.
WINDOW_POINTS = 5
WINDOW_SECONDS = 5.0
#: What a minute of samples, one a second, spans at least.
FULL_WINDOW_SECONDS = 55.0


class CommitPoint(NamedTuple):
    """How far a partition was at one moment, by the database's clock."""

    at_seconds: float
    next_offset: int
    log_end_offset: int

    @property
    def lag(self) -> int:
        """Never negative: the next offset may be newer than the sampled end."""
        return max(0, self.log_end_offset - self.next_offset)


def work_in(window: Sequence[CommitPoint]) -> Sequence[CommitPoint]:
    """The samples since it last had no lag, or was last moved back by a seek: one stretch of work.

    Before that the lag says nothing about the worker's speed. A burst after a quiet hour is not a slow worker, and
    the jump of a seek is not growth.
    """
    start = 0
    for index, point in enumerate(window):
        if point.lag == 0:
            start = index + 1
        elif index and point.next_offset < window[index - 1].next_offset:
            start = index
    return window[start:]


def span_seconds(points: Sequence[CommitPoint]) -> float:
    return points[-1].at_seconds - points[0].at_seconds if points else 0.0


def is_complete(points: Sequence[CommitPoint]) -> bool:
    return len(points) >= WINDOW_POINTS and span_seconds(points) >= WINDOW_SECONDS


def growth_per_second(points: Sequence[CommitPoint]) -> float | None:
    """The net growth of the lag; None while there are too few samples."""
    return (points[-1].lag - points[0].lag) / span_seconds(points) if is_complete(points) else None


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
