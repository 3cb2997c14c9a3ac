"""The database backend. Django asks for this module and for the name DatabaseWrapper."""

from types import SimpleNamespace, TracebackType
from typing import Any

import psycopg
from django.conf import settings
from django.db import DataError, OperationalError
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg.abc import PQGen

from offsets import outages
from offsets.outages import Meaning

_DB_API = ("DataError", "OperationalError", "IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError")


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up on a statement that has no answer after `answer_seconds`, and closes its socket.

    A server that has vanished sends nothing, and a proxy in front of it still acknowledges what is sent.
    """

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_seconds)
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"PostgreSQL has not answered for {self.answer_seconds:.0f} s; the session was closed"
            ) from error


class ErrorTranslator(DatabaseErrorWrapper):
    """What is unavailable raises OperationalError and rejected data DataError, whatever class the driver gives it."""

    wrapper: Any

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, psycopg.Error):
            meaning = outages.of_postgres(error.sqlstate, _db_api(error), usable=self._usable())
            if meaning.unavailable:
                self.wrapper.errors_occurred = True
                raise OperationalError(*error.args).with_traceback(traceback) from error
            if meaning is Meaning.DATA and not isinstance(error, psycopg.IntegrityError):
                raise DataError(*error.args).with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)

    def _usable(self) -> bool:
        session = self.wrapper.connection
        return session is None or not session.closed


def _db_api(error: psycopg.Error) -> str:
    return next((name for name in _DB_API if isinstance(error, getattr(psycopg, name))), type(error).__name__)


class DatabaseWrapper(base.DatabaseWrapper):
    """Sets the session's settings by statement rather than by startup parameter, which PgBouncer refuses.

    Behind a pooler a transaction may run on another server connection than the one before: there each transaction
    begins with the settings.
    """

    #: The driver, but for its connections.
    Database = SimpleNamespace(**{**vars(psycopg), "connect": BoundedConnection.connect})  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        timeout = str(settings.IDLE_IN_TRANSACTION_TIMEOUT_MS)
        self._session_settings = {"idle_in_transaction_session_timeout": timeout, "lock_timeout": timeout}
        self._answer_seconds: float | None = None
        self.pooled = False

    @cached_property
    def wrap_database_errors(self) -> ErrorTranslator:
        return ErrorTranslator(self)

    def init_connection_state(self) -> None:
        try:
            super().init_connection_state()
            self.connection.answer_seconds = self._answer_seconds
            # A pooler makes process ids up: it gives each client one of its own. What is set for a session there stays
            # with the server connection, for whoever has it next.
            self.pooled = self._send_settings(local=True) != self.connection.info.backend_pid
            if not self.pooled:
                self._send_settings(local=False)
        except BaseException:
            # A session without its settings must not be used.
            self.close()
            raise

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001 - Django's signature
        if autocommit and self.connection is None:
            # After a rollback that failed, Django would connect again here, which hides why it failed.
            self.autocommit = True
            return
        super().set_autocommit(autocommit, *args, **kwargs)
        if self.pooled and not autocommit:
            try:
                self._send_settings(local=True)
            except BaseException:
                self.close()
                raise

    def configure_session(self, **values: str) -> None:
        """Server settings of this thread's sessions: of the open one, and of those to come."""
        if self._session_settings.items() >= values.items():
            return
        self._session_settings |= values
        if self.connection is not None and not self.pooled:
            self._send_settings(local=False)

    def answer_within(self, seconds: float | None) -> float | None:
        """Close a session whose statement has no answer for so long. Returns the limit that was set before."""
        before, self._answer_seconds = self._answer_seconds, seconds
        if self.connection is not None:
            self.connection.answer_seconds = seconds
        return before

    def _send_settings(self, *, local: bool) -> int:
        """One statement for all. Returns the process id of the server connection that ran it."""
        calls = ", ".join(["set_config(%s, %s, %s)"] * len(self._session_settings))
        values = [value for pair in self._session_settings.items() for value in (*pair, local)]
        with self.wrap_database_errors:
            row = self.connection.execute(f"SELECT pg_backend_pid(), {calls}", values).fetchone()
        return int(row[0])
