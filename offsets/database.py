"""A worker's database session: named, so that a successor can end it. Settings bound how long any may linger."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DataError, IntegrityError, InterfaceError, OperationalError, connection, transaction

#: What a lost, restarted or overloaded database raises, psycopg's deadlock, lock timeout and serialization failures
#: included. All are handled the same way: probe, then repeat the whole transaction.
DATABASE_LOST = (OperationalError, InterfaceError)
#: Errors caused by the data alone: the database refuses it, or the handler fails on it.
DATA_ERRORS = (DataError, IntegrityError, ValueError, TypeError, ArithmeticError, LookupError)


class WorkerSession:
    """This thread's Django connection under `application_name`. Use it from one thread only.

    `close_old_connections()` would reconnect for every batch (persistent connections are off); instead the session
    is dropped when it fails, and opened again, with its settings, when it is next used.
    """

    def __init__(self, application_name: str) -> None:
        self.application_name = application_name
        self._prepared: object | None = None

    def open(self) -> None:
        """Connect if need be. Raises OperationalError while the database is away."""
        if connection.connection is None or connection.connection.closed:
            connection.close()
            connection.ensure_connection()
        if self._prepared is connection.connection:
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('application_name', %s, false)", [self.application_name])
        self._prepared = connection.connection

    def drop(self) -> None:
        self._prepared = None
        connection.close()

    @staticmethod
    def close_if_broken() -> None:
        """Forget a connection that has been seen to break, so that the next statement opens another."""
        if connection.connection is not None and connection.connection.closed:
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

    @contextmanager
    def statements(self) -> Iterator[None]:
        """Statements that commit one by one; the session is dropped when the database fails in one."""
        try:
            self.open()
            yield
        except DATABASE_LOST:
            self.drop()
            raise
