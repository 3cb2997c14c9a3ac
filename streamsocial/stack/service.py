"""The base of the three services: prepare once, start detached, wait until it responds, stop in time."""

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from streamsocial.stack import ports
from streamsocial.stack.errors import PortTaken, ServiceFailed, StackError
from streamsocial.stack.processes import Identity, Record, spawn
from streamsocial.stack.report import Reporter
from streamsocial.stack.state import State, StateDir

START_SECONDS = 120.0
_POLL_SECONDS = 0.05
_UNFINISHED = "data.new-"
_LOG_MAX_BYTES = 10 * 1024 * 1024
_LOG_TAIL_LINES = 12
_FREE_MIN_BYTES = 256 * 1024 * 1024


class Service(ABC):
    """One service of the stack. Its folder is its own; its port and password are in the state."""

    name: ClassVar[str]
    title: ClassVar[str]
    #: The setting with the address of the service.
    variable: ClassVar[str]
    #: The ports it needs; the first is the one clients use.
    port_names: ClassVar[tuple[str, ...]]
    #: Sent in this order, each with the seconds it is given, before SIGKILL.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    #: Stops it without a clean shutdown, as a power failure would.
    immediate_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, directory: StateDir, state: State) -> None:
        self.state = state
        self.home = directory.root / self.name
        self.data = self.home / "data"
        self.log = self.home / f"{self.name}.log"
        self.record = Record(self.home / "process.json", self.argument)

    @property
    def port(self) -> int:
        return self.state.ports[self.port_names[0]]

    @property
    def address(self) -> str:
        return f"{ports.LOOPBACK}:{self.port}"

    @property
    @abstractmethod
    def argument(self) -> str:
        """The unique argument in its command line."""

    @abstractmethod
    def url(self) -> str:
        """The value of `variable`."""

    @abstractmethod
    def fetch(self, report: Reporter) -> None:
        """Check that its parts are installed, and download missing ones."""

    @abstractmethod
    def prepare(self, report: Reporter) -> None:
        """Write its configuration, and its empty data folder the first time."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves a client now; returns within about two seconds."""

    def settle(self) -> None:
        """Set-up after each start, once it responds."""
        return

    def environ(self) -> dict[str, str]:
        """The user's environment must not change how our services behave."""
        return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ} | {"LC_ALL": "C"}

    def running(self) -> Identity | None:
        return self.record.running()

    def serves(self, process: Identity) -> bool:
        """Whether this process is the one that responds on the port."""
        return process.listens_on(self.port) and self.answers()

    def wait_until_it_serves(self, process: Identity, seconds: float) -> bool:
        """False once the process has exited or the time is up."""
        deadline = time.monotonic() + seconds
        while not self.serves(process):
            if not process.is_alive() or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def start(self, report: Reporter) -> None:
        """Start it and return once it responds. Raises ServiceFailed with the end of its log."""
        began = time.monotonic()
        self.home.mkdir(mode=0o700, exist_ok=True)
        try:
            self._check_space()
            self.prepare(report)
            self._rotate_log()
            offset = self.log.stat().st_size if self.log.exists() else 0
            process = spawn(self.command(), self.log, self.environ())
            self.record.write(process)
        except OSError as error:
            raise StackError(f"Cannot start {self.title}: {error}.") from error
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"could not be prepared within {error.timeout:.0f} seconds.") from error
        if not self.wait_until_it_serves(process, START_SECONDS):
            raise self._start_failure(process, offset)
        self.settle()
        report.say(f"{self.title} is up on {self.address} ({time.monotonic() - began:.1f} s)")

    def stop(self, *, immediate: bool = False) -> bool:
        """Stop it; True if it was running."""
        process = self.running()
        if process is None:
            self.record.clear()
            return False
        steps = ((self.immediate_signal, 10.0),) if immediate else self.stop_signals
        for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
            process.send(number)
            # A suspended process handles no signal but SIGKILL until it continues.
            process.send(signal.SIGCONT)
            if process.wait_gone(seconds):
                self.record.clear()
                return True
        raise StackError(f"{self.title} (process {process.pid}) does not stop, not even after SIGKILL.")

    def new_folder(self) -> Path:
        """An empty folder in which to create the data, so that an incomplete one is never used.

        Its name is new each time, because a child of a killed starter may still write to the last one.
        """
        for leftover in self.home.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.home))

    def _start_failure(self, process: Identity, offset: int) -> StackError:
        if process.is_alive():
            self.stop()
            return self._failed(f"did not respond within {START_SECONDS:.0f} seconds.", offset)
        self.record.clear()
        for name in self.port_names:
            if not ports.is_free(self.state.ports[name]):
                return PortTaken(f"{self.title} cannot use port {self.state.ports[name]}: it is in use.")
        return self._failed("exited while starting.", offset)

    def _check_space(self) -> None:
        if shutil.disk_usage(self.home).free < _FREE_MIN_BYTES:
            raise OSError(errno.ENOSPC, f"less than {_FREE_MIN_BYTES >> 20} MiB are free", str(self.home))

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_MAX_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _failed(self, what: str, offset: int = 0) -> ServiceFailed:
        tail = log_tail(self.log, offset)
        lines = [f"{self.title} {what}"]
        if tail:
            lines += [f"The end of {self.log}:", *(f"    {line}" for line in tail)]
        lines.append(
            f"Its data is in {self.data}. If that folder is damaged, delete all data and start again: "
            "`stack up --wipe`."
        )
        return ServiceFailed("\n".join(lines))


def log_tail(log: Path, offset: int = 0) -> list[str]:
    """The last lines that were written after `offset`."""
    try:
        with log.open("rb") as file:
            file.seek(max(offset, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-_LOG_TAIL_LINES:]
