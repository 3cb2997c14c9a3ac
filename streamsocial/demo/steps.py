"""Commands that prepare a demo, each in a process of its own that can be stopped at any moment."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from streamsocial.demo.interruption import Interrupted, Interruption
from streamsocial.environment import BASE_DIR

_POLL_SECONDS = 0.1


class StepFailed(Exception):
    """A command failed or took too long; the message names it and includes its output."""


def run_step(
    name: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    interruption: Interruption,
    *,
    seconds: float,
    stdin: str = "",
    shows_progress: bool = False,
) -> str:
    """Run a command and return what it printed. With `shows_progress` its standard error is the demo's.

    Raises Interrupted as soon as the demo is asked to stop, and StepFailed. Either way the command is stopped.
    """
    process = subprocess.Popen(
        list(command),
        cwd=BASE_DIR,
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if shows_progress else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = _finish(name, process, interruption, stdin=stdin, seconds=seconds)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        raise StepFailed(f"{name} failed" + (f":\n{errors.strip()[-2000:]}" if errors else "."))
    return output


def _finish(
    name: str, process: "subprocess.Popen[str]", interruption: Interruption, *, stdin: str, seconds: float
) -> tuple[str, str]:
    deadline = time.monotonic() + seconds
    left: str | None = stdin
    while True:
        try:
            return process.communicate(left, timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            left = None  # it is being sent, and may be passed only once
        if interruption.wait(0):
            raise Interrupted
        if time.monotonic() > deadline:
            raise StepFailed(f"{name} did not finish within {seconds:.0f} seconds.")
