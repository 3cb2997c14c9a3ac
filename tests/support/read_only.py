"""A database that refuses writes for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import connection


@contextmanager
def read_only(database_url: str) -> Iterator[None]:
    """Every session of the database is ended, and those that follow are read-only until the end of the block."""
    connection.close()
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("SET default_transaction_read_only = off")
        database = session.info.dbname
        session.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
        try:
            end_other_sessions(session)
            yield
        finally:
            session.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
    connection.close()


def end_other_sessions(session: "psycopg.Connection[tuple[object, ...]]") -> None:
    session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
