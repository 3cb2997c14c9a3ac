"""Ticks of periodic work: one at a time, recorded, and unharmed by a database outage. The only writer of LoopRun rows.

Whether a tick is due, and whether a loop is late, is judged by the database's clock alone. Ticks carry no expiry: they
may wait in a queue for any time, and those that are not due end at once.
"""

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection

from offsets.clock import monotonic
from offsets.database import DATABASE_LOST
from offsets.loops import LastRun, Loop
from offsets.text import describe_error, postgres_text

logger = logging.getLogger(__name__)

#: A tick that comes sooner than this share of its interval after the start of the last run was waiting in the queue.
DUE_AFTER = 0.5

#: Runs of this process whose end could not be recorded: (key, holder, why). No other process would take them over soon.
_unended: list[tuple[str, str, str]] = []


@dataclass(slots=True)
class Run:
    """One run, in the hands of its body."""

    #: Why it failed, where the body handled the error itself.
    error: str = ""
    #: It had nothing to do, so it says nothing of how long the work takes.
    idle: bool = False


@contextmanager
def survives_outage(what: str) -> Iterator[None]:
    """Log a lost database in one line and end the tick; the next tick goes on by itself."""
    try:
        yield
    except DATABASE_LOST as error:
        logger.warning("%s skipped, database unavailable: %s", what, " ".join(str(error).split()))
        connection.close()


@contextmanager
def tick(loop: Loop, group_id: str = "") -> Iterator[Run | None]:
    """Yields a run, or None where this tick may not work: while another process runs the loop, and just after it has.

    A lost database ends the tick with one line in the log; any other error is recorded, and raised.
    """
    what = loop.name.replace("-", " ").capitalize()
    key, holder = _key(loop, group_id), f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    started = False
    with survives_outage(what):
        _close_if_lost()
        _end_unended()
        started = _start(loop, key, group_id, holder)
    if not started:
        yield None
        return
    with survives_outage(what):
        run, began = Run(), monotonic()
        try:
            try:
                yield run
            except DATABASE_LOST:
                raise
            except BaseException as error:
                _end(key, holder, monotonic() - began, describe_error(error))
                raise
            _end(key, holder, None if run.idle else monotonic() - began, run.error)
        except DATABASE_LOST as error:
            _unended.append((key, holder, describe_error(error)))
            raise


def record(loop: Loop, group_id: str, duration_seconds: float) -> None:
    """Record a run of a process that ticks by itself, beside those that `tick` lets run."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_looprun AS l (key, name, group_id, holder, started_at, finished_at, duration_seconds,"
            " last_error) VALUES (%s, %s, %s, '', 'epoch', clock_timestamp(), %s, '')"
            " ON CONFLICT (key) DO UPDATE SET finished_at = excluded.finished_at,"
            " duration_seconds = excluded.duration_seconds, last_error = ''",
            [_key(loop, group_id), loop.name, group_id, duration_seconds],
        )


def last_runs(group_id: str) -> list[LastRun]:
    """The loops of the group, and those that serve all groups, as far as they ever ran."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, extract(epoch FROM clock_timestamp() - finished_at)::float8,"
            " coalesce(busy_until > clock_timestamp(), false), duration_seconds, last_error"
            " FROM offsets_looprun WHERE group_id IN ('', %s) ORDER BY name",
            [group_id],
        )
        return [LastRun(*row) for row in cursor.fetchall()]


def _key(loop: Loop, group_id: str) -> str:
    return f"{loop.name}:{group_id}" if group_id else loop.name


def _close_if_lost() -> None:
    """Forget a connection that was kept since the last tick and has been lost meanwhile."""
    if connection.connection is not None and not connection.in_atomic_block and not connection.is_usable():
        connection.close()


def _end_unended() -> None:
    while _unended:
        key, holder, error = _unended[-1]
        _end(key, holder, None, error)
        _unended.pop()


def _start(loop: Loop, key: str, group_id: str, holder: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_looprun AS l (key, name, group_id, holder, busy_until, last_error)"
            " VALUES (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s), '')"
            " ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, busy_until = excluded.busy_until,"
            " started_at = clock_timestamp()"
            # A start in the future is of a clock that was set back since.
            " WHERE l.started_at > clock_timestamp() OR CASE WHEN l.busy_until IS NULL"
            " THEN l.started_at <= clock_timestamp() - make_interval(secs => %s)"
            " ELSE l.busy_until < clock_timestamp() END RETURNING 1",
            [key, loop.name, group_id, holder, loop.longest_seconds, DUE_AFTER * loop.interval_seconds],
        )
        return cursor.fetchone() is not None


def _end(key: str, holder: str, duration_seconds: float | None, error: str) -> None:
    """Record the end, unless another process has taken over since."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_looprun SET holder = '', busy_until = NULL, last_error = %s,"
            " duration_seconds = coalesce(%s, duration_seconds),"
            " finished_at = CASE WHEN %s = '' THEN clock_timestamp() ELSE finished_at END"
            " WHERE key = %s AND holder = %s",
            [postgres_text(error)[:2000], duration_seconds, error, key, holder],
        )
