"""The demo's own processes: started, supervised, restarted, and stopped in order."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from streamsocial.environment import BASE_DIR
from streamsocial.stack.processes import Identity
from streamsocial.stack.state import write_private

#: After this long the restart delay of a child is reset; a child that exits sooner waits longer each time.
STEADY_SECONDS = 30.0
MAX_DELAY_SECONDS = 15.0
LEFTOVER_SECONDS = 40.0
_LOG_MAX_BYTES = 10 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    name: str
    command: Sequence[str]
    log: Path
    stop_seconds: float = 15.0
    process: "subprocess.Popen[bytes] | None" = None
    #: Set at the start: looking up a dead child later would reap it, and lose its exit status.
    identity: Identity | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    delay: float = 1.0


@dataclass(slots=True)
class Children:
    """Processes in sessions of their own, so that Ctrl-C in the terminal reaches only the demo, which stops them in
    order.

    On Linux they end with a demo that is killed. Elsewhere, and for one that takes long to end, the next demo cleans up
    by the pids on disk.
    """

    record: Path
    environ: Mapping[str, str]
    say: Callable[[str], None]
    #: Called while a child is stopping: whether to kill it now.
    in_a_hurry: Callable[[], bool] = lambda: False
    _children: list[Child] = field(default_factory=list)

    def clean_leftovers(self) -> None:
        """Stop the processes of a killed demo; only those with the recorded start time."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            left = [Identity(entry["pid"], entry["created"]) for entry in json.loads(self.record.read_text())]
            alive = [identity for identity in left if identity.is_alive()]
            if alive:
                self.say(f"Stopping leftover processes of a killed demo: {len(alive)} …")
            for identity in alive:
                identity.send(signal.SIGTERM)
            deadline = time.monotonic() + LEFTOVER_SECONDS
            for identity in alive:
                if not identity.wait_gone(max(0.0, deadline - time.monotonic())):
                    _kill_session(identity.pid)
                    identity.wait_gone(10)
        self.record.unlink(missing_ok=True)

    def start(self, child: Child) -> None:
        self._children.append(child)
        _rotate(child.log)
        self._spawn(child)

    def _spawn(self, child: Child) -> None:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                list(child.command),
                cwd=BASE_DIR,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        pid = child.process.pid
        child.identity = Identity(pid, psutil.Process(pid).create_time())
        child.started_at = time.monotonic()
        child.restart_at = None
        self._save()

    def _save(self) -> None:
        running = [c.identity for c in self._children if c.identity and c.process and c.process.returncode is None]
        data = [{"pid": identity.pid, "created": identity.created} for identity in running]
        write_private(self.record, json.dumps(data))

    def watch(self) -> None:
        """Restart children that have exited. Call it about once a second."""
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._spawn(child)
            elif child.process is not None and (status := child.process.poll()) is not None:
                # Its own children must not run beside its successor. The ledger's fence makes killing them safe.
                _kill_session(child.process.pid)
                if now - child.started_at > STEADY_SECONDS:
                    child.delay = 1.0
                self.say(f"{child.name} {_ended(status)}; restarting in {child.delay:.0f} s. Log: {child.log}")
                child.restart_at = now + child.delay
                child.delay = min(MAX_DELAY_SECONDS, child.delay * 2)

    def stop(self) -> None:
        """Stop all, in reverse order, each within its deadline."""
        for child in reversed(self._children):
            process = child.process
            if process is None or process.returncode is not None:
                continue
            self.say(f"Stopping {child.name} …")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            if not self._has_ended(process, child.stop_seconds):
                self.say(f"{child.name} did not stop in time; killing it.")
            # Also what the child itself started (Celery's pool): the whole session goes.
            _kill_session(process.pid)
            process.wait()
        self.record.unlink(missing_ok=True)

    def _has_ended(self, process: "subprocess.Popen[bytes]", seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            if time.monotonic() > deadline or self.in_a_hurry():
                return False
            time.sleep(0.05)
        return True


def _kill_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def _rotate(log: Path) -> None:
    """Keep one old log; a demo may run for days."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_MAX_BYTES:
            log.replace(log.with_suffix(".old.log"))


def _end_with_parent() -> Callable[[], None] | None:
    """For a child before exec: ask for SIGTERM when the demo dies, even by SIGKILL."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec as little as possible
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # the demo died just before
            os._exit(1)

    return ask


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", str(BASE_DIR / "manage.py"), *arguments]


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", name, *arguments]
