"""Ends a process that was asked to stop and cannot: a thread of it is stuck in a call that no signal interrupts."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from offsets.clock import monotonic

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1


def end_process() -> None:
    """Exit status 1, whatever the other threads do."""
    logging.shutdown()
    os._exit(1)


@contextmanager
def exit_within(
    seconds: float,
    *,
    asked: Callable[[], bool],
    describe: Callable[[], str],
    end: Callable[[], None] = end_process,
) -> Iterator[None]:
    """Call `end` if the block goes on for `seconds` after `asked()` was true; `describe()` names what it waits for."""
    done = threading.Event()

    def watch() -> None:
        while not asked():
            if done.wait(LOOK_SECONDS):
                return
        began = monotonic()
        while monotonic() - began < seconds:
            if done.wait(LOOK_SECONDS):
                return
        logger.critical(
            "The process did not stop within %.0f s (%s). It ends now; nothing is lost.", seconds, describe()
        )
        end()

    threading.Thread(target=watch, name="exit-deadline", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def stop_on_signals(stop: threading.Event, *, on_first: Callable[[], None] = lambda: None) -> None:
    """SIGINT and SIGTERM set `stop`, also while the main thread is stuck in a call; a second one ends the process.

    Python runs signal handlers on the main thread only; the wakeup descriptor is written at once. Call it from the
    main thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def first(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        on_first()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, first)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def read() -> None:
        ours = bytes((signal.SIGINT, signal.SIGTERM))
        while True:
            for number in os.read(reader, 64):
                if number in ours and stop.is_set():
                    end_process()
                elif number in ours:
                    stop.set()

    threading.Thread(target=read, name="signals", daemon=True).start()
