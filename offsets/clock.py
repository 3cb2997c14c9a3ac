"""Time, in one place. Other processes are judged by the database's clock, never by this one."""

import time
from collections.abc import Callable

#: Monotonic seconds, for deadlines and durations inside one process.
monotonic: Callable[[], float] = time.monotonic

#: Seconds since the epoch by this machine's clock, for times that are only stored or shown.
wall: Callable[[], float] = time.time


class Deadline:
    """One bound shared by all steps of an operation (Quix Streams' idea for revokes)."""

    def __init__(self, seconds: float, *, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._end = now() + seconds

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self._end - self._now())

    @property
    def expired(self) -> bool:
        return self._now() >= self._end


class Backoff:
    """Exponential delays in seconds: first, 2·first, 4·first … up to `limit`; `reset` after a success."""

    def __init__(self, first: float = 0.2, limit: float = 5.0) -> None:
        self.first, self.limit, self._next = first, limit, first

    def next_seconds(self) -> float:
        delay, self._next = self._next, min(self.limit, self._next * 2)
        return delay

    def reset(self) -> None:
        self._next = self.first
