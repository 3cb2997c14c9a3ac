"""Ticks of periodic work: one at a time, and unharmed by a database outage."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection

from offsets import leases
from offsets.database import DATABASE_LOST, answers_within, describe_outage

logger = logging.getLogger(__name__)

#: Some ticks read or purge whole tables. One without an answer for longer has lost its database.
TICK_ANSWER_SECONDS = 300.0


@contextmanager
def survives_outage(what: str, on_outage: Callable[[Exception], None] = lambda _: None) -> Iterator[None]:
    """Log an unavailable database in one line and end the tick; the next tick goes on by itself."""
    try:
        with answers_within(TICK_ANSWER_SECONDS):
            yield
    except DATABASE_LOST as error:
        logger.warning("%s skipped. %s", what, describe_outage(error))
        connection.close()
        on_outage(error)


@contextmanager
def only_one(name: str, ttl_seconds: float) -> Iterator[bool]:
    """Yields whether this tick may work: two ticks of the same kind never overlap."""
    token = leases.acquire(name, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}", ttl_seconds)
    try:
        yield token is not None
    finally:
        if token is not None:
            leases.release(token)
