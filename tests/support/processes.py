"""What integration and fault tests share: real processes, waiting with a deadline, and the truth."""

import contextlib
import difflib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from streamsocial.environment import BASE_DIR
from tests.support.forkserver import ForkedProcess, run_manage, start_manage

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], seconds: float = 60.0) -> T:
    """The first true value of `look()`; fails, naming `what`, after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {seconds:.0f} s: {what}; last seen: {value!r}")
        time.sleep(0.05)


def manage(env: Mapping[str, str], *arguments: str, seconds: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run `manage.py …` to its end."""
    return run_manage(arguments, env, seconds)


def manage_json(env: Mapping[str, str], *arguments: str, seconds: float = 120) -> Any:
    """Run `manage.py … --json`, which must succeed, and read what it prints."""
    done = manage(env, *arguments, "--json", seconds=seconds)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout)


class Background:
    """A process that runs beside the test, its output in a file; nothing of it survives the test."""

    def __init__(self, process: "subprocess.Popen[bytes] | ForkedProcess", log: Path) -> None:
        self.log = log
        self.process = process

    @classmethod
    def manage(cls, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> "Background":
        """`manage.py …`"""
        with log.open("ab") as output:
            return cls(start_manage(arguments, env, output, output), log)

    @classmethod
    def program(cls, command: Sequence[str], env: Mapping[str, str], log: Path) -> "Background":
        """Any program."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=BASE_DIR,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, seconds: float = 30) -> int:
        """SIGTERM, as an operator would; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        self.kill()
        return self.process.wait(10)

    def kill(self) -> None:
        for process in self._session():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)

    def _session(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getsid(process.pid) == self.pid:
                    found.append(process)
        return found


@contextlib.contextmanager
def background(env: Mapping[str, str], log: Path, *arguments: str) -> Iterator[Background]:
    """`manage.py …`, or `-m module …`, for the length of a with block."""
    if arguments[0] == "-m":
        running = Background.program([sys.executable, *arguments], env, log)
    else:
        running = Background.manage(arguments, env, log)
    try:
        yield running
    finally:
        running.kill()


def stopped(pid: int) -> bool:
    """Whether the process is stopped (SIGSTOP)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def resume(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def assert_exactly_once(env: Mapping[str, str], group: str, topic: str, truth: Path, folder: Path) -> None:
    """I1 to I6 hold, and the counts of every content and user equal the produced truth."""
    verified = manage_json(env, "verify_offsets", "--group", group, "--topic", topic)
    assert verified["ok"], verified
    export = folder / f"export-{group}.csv"
    manage_json(env, "engagement_totals", "--group", group, "--topic", topic, "--export", str(export))
    if export.read_bytes() != truth.read_bytes():
        lines = difflib.unified_diff(
            truth.read_text().splitlines(), export.read_text().splitlines(), "truth", "export", n=0, lineterm=""
        )
        raise AssertionError("The export differs from the produced truth:\n" + "\n".join(list(lines)[:40]))
