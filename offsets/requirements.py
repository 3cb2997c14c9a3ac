"""What the database must be: PostgreSQL 14 or later, in UTF-8, with the rights on our tables.

Asked once at the start of a worker, by `check --database` and by `doctor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.apps import apps
from django.db import connection

MINIMUM_VERSION = 140_000
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What one session sees of its database."""

    version_number: int
    version: str
    encoding: str
    user: str
    database: str
    #: Why it takes no writes: a standby, or `default_transaction_read_only`; empty when it does.
    read_only: str = ""
    #: Whether the user may create tables in the schema.
    may_create: bool = True
    #: Tables of ours that exist, and those without the rights to read and write.
    tables: int = 0
    tables_without_rights: tuple[str, ...] = ()


def ask_database() -> DatabaseFacts:
    """Read the facts in one statement. Raises the database's errors."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
            " pg_encoding_to_char(encoding), current_user, current_database(),"
            " CASE WHEN pg_is_in_recovery() THEN 'it is a standby'"
            "  WHEN current_setting('default_transaction_read_only')::bool THEN 'default_transaction_read_only is on'"
            "  ELSE '' END,"
            " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            " FROM pg_database WHERE datname = current_database()"
        )
        number, version, encoding, user, database, read_only, may_create = cursor.fetchone()
        cursor.execute(
            "SELECT c.relname, has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
            " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')"
            " FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relname = ANY(%s)"
            " AND pg_table_is_visible(c.oid) ORDER BY c.relname",
            [_our_tables()],
        )
        tables = cursor.fetchall()
    return DatabaseFacts(
        number,
        version,
        encoding,
        user,
        database,
        read_only,
        may_create,
        len(tables),
        tuple(name for name, allowed in tables if not allowed),
    )


def _our_tables() -> list[str]:
    return [model._meta.db_table for app in ("offsets", "analytics") for model in apps.get_app_config(app).get_models()]


def unfit_database(facts: DatabaseFacts) -> list[str]:
    """Why the application cannot work with this database, and what to do; empty when it can. Pure."""
    reasons = []
    if facts.version_number < MINIMUM_VERSION:
        reasons.append(f"PostgreSQL is version {facts.version}; it must be 14 or later. Upgrade the server.")
    if facts.encoding != "UTF8":
        reasons.append(
            f"The database {facts.database!r} has the encoding {facts.encoding}; it must be UTF8. Create another one: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )
    if facts.tables_without_rights:
        reasons.append(
            f"The user {facts.user!r} lacks {RIGHTS} on {_first(facts.tables_without_rights)}. Grant them, or make the "
            "user the owner of the tables."
        )
    if not facts.tables and not facts.may_create:
        reasons.append(
            f"The user {facts.user!r} may not create tables in the database {facts.database!r}. Grant CREATE on the "
            "schema, or make the user the owner of the database."
        )
    return reasons


def _first(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
