"""How a demo learns that it shall end: Ctrl-C, SIGTERM, or the terminal closing."""

import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The demo was asked to end while it prepared; nothing is wrong."""


class Interruption:
    """Signals are noted here, and looked at where the demo waits.

    Not raised: an exception out of nowhere could leave a process that was started and not yet written down, or
    services that come up in threads after everything was stopped.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._count = 0

    def listen(self) -> None:
        for number in _SIGNALS:
            # Under nohup the demo shall outlive its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None = None) -> None:
        self._count += 1
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait; True as soon as the demo shall end."""
        return self._asked.wait(seconds)

    @property
    def impatient(self) -> bool:
        """Whether it was asked a second time."""
        return self._count > 1
