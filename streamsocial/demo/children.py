"""The demo's own processes: started, watched, restarted, and ended in order."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamsocial.environment import BASE_DIR
from streamsocial.stack.processes import Identity

#: A child that lived this long before it died is restarted at once; one that dies young waits longer each time.
STEADY_SECONDS = 30.0
MAX_DELAY_SECONDS = 15.0


@dataclass(slots=True)
class Child:
    name: str
    command: Sequence[str]
    log: Path
    stop_seconds: float = 15.0
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    restart_at: float | None = None
    delay: float = 1.0


@dataclass(slots=True)
class Children:
    """Processes in sessions of their own, so that Ctrl-C in the terminal reaches only the demo, which ends them in
    order. Their pids are on disk: a demo that was killed leaves them to the next one to clean up.
    """

    record: Path
    environ: Mapping[str, str]
    say: Callable[[str], None]
    _children: list[Child] = field(default_factory=list)

    def clean_leftovers(self) -> None:
        """End what a killed demo left behind; only processes with the recorded start time."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            left = [Identity(entry["pid"], entry["created"]) for entry in json.loads(self.record.read_text())]
            alive = [identity for identity in left if identity.is_alive()]
            if alive:
                self.say(f"Ending {len(alive)} processes that a killed demo left behind …")
            for identity in alive:
                identity.send(signal.SIGTERM)
            for identity in alive:
                if not identity.wait_gone(15):
                    identity.kill_now()
        self.record.unlink(missing_ok=True)

    def start(self, child: Child) -> None:
        self._children.append(child)
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
            )
        child.started_at = time.monotonic()
        child.restart_at = None
        self._save()

    def _save(self) -> None:
        identities = [Identity.of(c.process.pid) for c in self._children if c.process and c.process.poll() is None]
        data = [{"pid": one.pid, "created": one.created} for one in identities if one]
        self.record.write_text(json.dumps(data))

    def watch(self) -> None:
        """Restart what has died; call it about once a second."""
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._spawn(child)
            elif child.process is not None and (status := child.process.poll()) is not None:
                if now - child.started_at > STEADY_SECONDS:
                    child.delay = 1.0
                self.say(
                    f"{child.name} ended with status {status}; restarting in {child.delay:.0f} s. Log: {child.log}"
                )
                child.restart_at = now + child.delay
                child.delay = min(MAX_DELAY_SECONDS, child.delay * 2)

    def stop(self) -> None:
        """End all, last started first, each within its deadline."""
        for child in reversed(self._children):
            if child.process is None or child.process.poll() is not None:
                continue
            self.say(f"Stopping {child.name} …")
            child.process.terminate()
            try:
                child.process.wait(child.stop_seconds)
            except subprocess.TimeoutExpired:
                self.say(f"{child.name} did not end within {child.stop_seconds:.0f} s; killing it.")
            # Also what the child itself started (Celery's pool): the whole session goes.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
        self.record.unlink(missing_ok=True)


def manage(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", str(BASE_DIR / "manage.py"), *arguments]


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", name, *arguments]
