"""Start processes that outlive their starter, and identify them later.

A pid alone is not an identity, because the system reuses it; with the start time it is one. If the starter died before
it recorded the identity, the process is found by its command line, which names a file in the stack's folder.
"""

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from streamsocial.stack.state import write_private

#: Only these can be our services; not an editor that has a service's file open.
_PROGRAMS = frozenset({"java", "postgres", "valkey-server", "unshare"})
#: Start times are derived from the wall clock, which may be adjusted a little.
_CLOCK_TOLERANCE_SECONDS = 1.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Identity:
    """One process: its pid and start time, which together are never reused."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The identity of the process that has this id now, or None if there is none alive."""
        _reap(pid)
        try:
            process = psutil.Process(pid)
            # A dead process that is not reaped stays in the list; with threads left it is not dead yet.
            if process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1:
                return None
            return cls(pid, process.create_time())
        except psutil.NoSuchProcess:
            return None

    def is_alive(self) -> bool:
        now = Identity.of(self.pid)
        return now is not None and abs(now.created - self.created) < _CLOCK_TOLERANCE_SECONDS

    def send(self, number: signal.Signals) -> None:
        """Signal this process, never a later one with the same pid."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def listens_on(self, port: int) -> bool:
        """Whether this process has the port, and not another one that took it first."""
        try:
            connections = psutil.Process(self.pid).net_connections(kind="tcp")
        except psutil.AccessDenied:
            return True
        except psutil.NoSuchProcess:
            return False
        return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in connections)

    def kill_now(self) -> None:
        """Kill it, and return once it is gone."""
        self.send(signal.SIGKILL)
        self.wait_gone(10)

    def wait_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def _reap(pid: int) -> None:
    """Reap a dead child of ours, which would otherwise look alive."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def spawn(command: list[str], log: Path, environ: Mapping[str, str]) -> Identity:
    """Start a process in a session of its own: neither Ctrl-C nor the end of this process reaches it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    pid = os.posix_spawn(
        command[0],
        command,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGPIPE],
    )
    # It exists even if it failed at once: a child stays until it is reaped.
    return Identity(pid, psutil.Process(pid).create_time())


def find(argument: str) -> Identity | None:
    """The service process that was started with this argument, whoever started it."""
    matches: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline", "status"]):
        words: list[str] = process.info["cmdline"] or []
        if argument in words and Path(words[0]).name in _PROGRAMS and process.info["status"] != psutil.STATUS_ZOMBIE:
            matches[process.pid] = process
    for pid, process in matches.items():
        try:
            # A child that was just forked still has its parent's command line.
            if process.ppid() not in matches:
                return Identity.of(pid)
        except psutil.NoSuchProcess:
            continue
    return None


class Record:
    """A service's identity on disk, so that any later command finds what an earlier one started."""

    def __init__(self, path: Path, argument: str) -> None:
        self._path = path
        self._argument = argument

    def running(self) -> Identity | None:
        identity = self._read()
        if identity is not None and identity.is_alive():
            return identity
        identity = find(self._argument)
        if identity is not None:
            self.write(identity)
        return identity

    def write(self, identity: Identity) -> None:
        write_private(self._path, json.dumps(asdict(identity)) + "\n")

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def _read(self) -> Identity | None:
        try:
            identity = Identity(**json.loads(self._path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None
        return identity if type(identity.pid) is int and isinstance(identity.created, int | float) else None
