"""What the threads of a worker are busy with, and for how long: tells a stuck worker from an idle one."""

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from offsets.clock import monotonic

#: Frames of one thread that are worth keeping.
MAX_FRAMES = 40


class Activity(NamedTuple):
    """`text` says what, e.g. "decoding engagement-3 [100, 200)"; `thread` is its ident."""

    text: str
    seconds: float
    thread: int


class Activities:
    """Shared by all threads of a worker; each has one activity at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: dict[int, tuple[str, float]] = {}

    @contextmanager
    def track(self, text: str) -> Iterator[None]:
        me = threading.get_ident()
        with self._lock:
            self._busy[me] = (text, monotonic())
        try:
            yield
        finally:
            with self._lock:
                self._busy.pop(me, None)

    def longest(self) -> Activity | None:
        """The activity that has taken longest so far; None while every thread waits for work."""
        with self._lock:
            entries = [(since, text, thread) for thread, (text, since) in self._busy.items()]
        if not entries:
            return None
        since, text, thread = min(entries)
        return Activity(text, monotonic() - since, thread)


def stack_of(thread: int) -> str:
    """The stack of a thread of this process, outermost call first; empty when it has ended."""
    frame = sys._current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame, MAX_FRAMES))
