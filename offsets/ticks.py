"""Ticks of periodic work: one at a time, and unharmed by a database outage."""

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from offsets import leases
from offsets.database import DATABASE_LOST

logger = logging.getLogger(__name__)


@contextmanager
def survives_outage(what: str) -> Iterator[None]:
    """Log a lost database in one line and end the tick; the next tick goes on by itself."""
    try:
        yield
    except DATABASE_LOST as error:
        logger.warning("%s skipped, database unavailable: %s", what, " ".join(str(error).split()))
        connection.close()


@contextmanager
def only_one(name: str, ttl_seconds: float) -> Iterator[bool]:
    """Yields whether this tick may work: two ticks of the same kind never overlap."""
    token = leases.acquire(name, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}", ttl_seconds)
    try:
        yield token is not None
    finally:
        if token is not None:
            leases.release(token)
