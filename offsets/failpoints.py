"""Named places at which a test can kill, stop or break a process. Off unless FAILPOINTS is set.

`FAILPOINTS="before_commit=stop@/path/to/token"` stops the first process that gets there: the process that
deletes the token file acts, so that one fault happens once among many workers. Actions: `kill` (SIGKILL), `stop`
(SIGSTOP), `error` (a lost database connection). `name=action#3@…` acts at the third passage in a process.
"""

import os
import re
import signal
import threading
from collections import Counter

from django.db import OperationalError

_passages: Counter[str] = Counter()


_ENTRY = re.compile(r"(\w+)=(kill|stop|error)(?:#([0-9]{1,9}))?(?:@(.+))?")


def _configured() -> dict[str, tuple[str, int, str]]:
    """The valid entries; `refused_failpoints` names the others."""
    points = {}
    for entry in _entries():
        if match := _ENTRY.fullmatch(entry):
            name, action, passage, token = match.groups()
            points[name] = (action, int(passage or 1), token or "")
    return points


def _entries() -> list[str]:
    return [entry for entry in os.environ.get("FAILPOINTS", "").split(",") if entry]


def refused_failpoints() -> str:
    """What is wrong with FAILPOINTS; empty when nothing is."""
    for entry in _entries():
        if not _ENTRY.fullmatch(entry):
            return f"FAILPOINTS must list name=kill, name=stop or name=error, with #passage and @token, not {entry!r}."
    return ""


_points = _configured()


def failpoint(name: str) -> None:
    """Do what the environment asks for at this place; one dictionary look-up where it asks for nothing."""
    if name not in _points:
        return
    action, passage, token = _points[name]
    _passages[name] += 1
    if _passages[name] < passage:
        return
    if token:
        try:
            os.unlink(token)
        except FileNotFoundError:
            return
    if action == "error":
        raise OperationalError(f"failpoint {name}")
    # To this very thread: sent to the process, another thread may take a stop while this one goes on to its COMMIT.
    signal.pthread_kill(threading.get_ident(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
