"""Purges in chunks, each a transaction of its own: none holds its locks for long, and what is done stays done."""

from collections.abc import Callable
from typing import Any

from django.db import connection

from offsets.clock import Deadline

CHUNK = 10_000
#: How long one purge may take; the rest follows with the next one.
PURGE_SECONDS = 60.0


def in_chunks(delete: Callable[[int], int], deadline: Deadline | None = None, *, chunk: int | None = None) -> int:
    """Call `delete(limit)` until it deletes fewer than the limit, or the deadline. Returns how many it deleted."""
    deadline = deadline or Deadline(PURGE_SECONDS)
    chunk = min(chunk or CHUNK, CHUNK)
    deleted = 0
    while True:
        done = delete(chunk)
        deleted += done
        if done < chunk or deadline.expired:
            return deleted


def execute(sql: str, params: list[Any]) -> int:
    """One statement; returns how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def purge_sessions() -> int:
    """Delete the expired sessions of the web pages."""
    return in_chunks(
        lambda limit: execute(
            "DELETE FROM django_session WHERE session_key IN (SELECT session_key FROM django_session"
            " WHERE expire_date < statement_timestamp() LIMIT %s)",
            [limit],
        )
    )
