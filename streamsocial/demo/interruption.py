"""How a demo is asked to stop: Ctrl-C, SIGTERM, or a closed terminal."""

import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The demo was asked to stop while it started; not an error."""


class Interruption:
    """Records signals, and is checked where the demo waits.

    A signal raises nothing: an exception at any point could leave a process that was started and not yet recorded, or
    services that start in threads after everything was stopped.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._count = 0

    def listen(self) -> None:
        for number in _SIGNALS:
            # Under nohup the demo outlives its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None = None) -> None:
        self._count += 1
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait; True as soon as the demo is asked to stop."""
        return self._asked.wait(seconds)

    @property
    def impatient(self) -> bool:
        """Whether it was asked again."""
        return self._count > 1
