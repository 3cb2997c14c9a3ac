"""A worker's database session: named, so that a successor can end it. Settings bound how long any may linger."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from offsets import outages
from offsets.errors import OffsetsError

#: What an unavailable database raises: lost, restarted, read-only, full or overloaded, whatever the driver's class;
#: deadlocks and timeouts included (`offsets.outages`, applied by `offsets.postgresql`). All are handled the same way:
#: probe, then repeat the whole transaction.
DATABASE_LOST = (OperationalError, InterfaceError)
#: What is not the fault of a batch: whatever else a handler raises, or the database says of its statements, is.
NOT_THE_BATCH = (OffsetsError, MemoryError, *DATABASE_LOST)


def meaning_of(error: BaseException) -> outages.Meaning:
    """What one of DATABASE_LOST means."""
    cause = error.__cause__
    return outages.of_postgres(getattr(cause, "sqlstate", None), type(error).__name__)


def describe_outage(error: BaseException) -> str:
    """One line with the database's words, for logs, commands and the API."""
    refuses = meaning_of(error) is outages.Meaning.REFUSING
    return f"PostgreSQL {'refuses requests' if refuses else 'is not available'}: {' '.join(str(error).split())}"


def outage_for_visitors(error: BaseException) -> str:
    """One line for the website. The database's own words may name hosts and users."""
    if getattr(error.__cause__, "sqlstate", None) == outages.READ_ONLY:
        return "The database is read-only"
    refuses = meaning_of(error) is outages.Meaning.REFUSING
    return "The database refuses requests" if refuses else "The database does not answer"


class OutageFilter(logging.Filter):
    """A request that failed for want of a database is logged in one line, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, DATABASE_LOST):
            record.msg, record.args = "%s %s", (record.getMessage(), describe_outage(error))
            record.exc_info, record.levelno, record.levelname = None, logging.WARNING, "WARNING"
        return True


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Count the database as lost when a statement of this thread has no answer for so long."""
    database = cast("Any", connection)
    before = database.answer_within(seconds)
    try:
        yield
    finally:
        database.answer_within(before)


class WorkerSession:
    """This thread's Django connection under `application_name`. Use it from one thread only.

    `close_old_connections()` would reconnect for every batch (persistent connections are off); instead the session
    is dropped when it fails, and opened again, with its settings, when it is next used.
    """

    def __init__(self, application_name: str) -> None:
        self.application_name = application_name

    def open(self) -> None:
        """Connect if need be. Raises OperationalError while the database is away."""
        self.close_if_broken()
        database = cast("Any", connection)
        database.answer_within(float(settings.DATABASE_ANSWER_SECONDS))
        database.configure_session(
            application_name=self.application_name, statement_timeout=str(settings.DATABASE_ANSWER_SECONDS * 1000)
        )
        connection.ensure_connection()

    @staticmethod
    def drop() -> None:
        connection.close()

    @staticmethod
    def close_if_broken() -> None:
        """Forget a session that broke or raised an error, so that the next statement opens another.

        One that was opened while the database was read-only would stay read-only.
        """
        session, failed = connection.connection, connection.errors_occurred and not connection.in_atomic_block
        if session is not None and (session.closed or failed):
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction; the session is dropped when the database fails in it."""
        try:
            self.open()
            # COPY is psycopg's own and raises psycopg's errors; only statements are translated by Django.
            with transaction.atomic(), connection.wrap_database_errors:
                yield
        except DATABASE_LOST:
            self.drop()
            raise
