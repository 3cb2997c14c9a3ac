"""Leases: a right that one process holds for a bounded time. The only writer of Lease rows.

Time is the database's. A takeover adds one to the epoch, by which a former holder sees that it has lost the lease.
"""

from dataclasses import dataclass

from django.db import connection


@dataclass(frozen=True, slots=True)
class LeaseToken:
    name: str
    holder: str
    epoch: int


def acquire(name: str, holder: str, ttl_seconds: float) -> LeaseToken | None:
    """Take the lease if it is free, expired, or `holder`'s already. None while another holds it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_lease AS l (name, holder, epoch, expires_at)"
            " VALUES (%s, %s, 1, clock_timestamp() + make_interval(secs => %s))"
            " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at,"
            " epoch = l.epoch + (l.holder <> excluded.holder)::int"
            " WHERE l.expires_at < clock_timestamp() OR l.holder = excluded.holder RETURNING epoch",
            [name, holder, ttl_seconds],
        )
        row = cursor.fetchone()
    return LeaseToken(name, holder, row[0]) if row else None


def renew(token: LeaseToken, ttl_seconds: float) -> bool:
    """Extend the lease, even an expired one, unless another has taken it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_lease SET expires_at = clock_timestamp() + make_interval(secs => %s)"
            " WHERE name = %s AND holder = %s AND epoch = %s",
            [ttl_seconds, token.name, token.holder, token.epoch],
        )
        return bool(cursor.rowcount)


def release(token: LeaseToken) -> None:
    """Give the lease up, if it is still held; the row and its epoch stay."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_lease SET holder = '', expires_at = clock_timestamp() - interval '1 second'"
            " WHERE name = %s AND holder = %s AND epoch = %s",
            [token.name, token.holder, token.epoch],
        )


def drop(name: str) -> None:
    """Free a lease whoever holds it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_lease SET holder = '', expires_at = clock_timestamp() - interval '1 second'"
            " WHERE name = %s",
            [name],
        )


def live(names: list[str]) -> set[str]:
    """Those of `names` that are held now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM offsets_lease WHERE name = ANY(%s) AND expires_at >= clock_timestamp()", [names]
        )
        return {row[0] for row in cursor.fetchall()}


def holder_of(name: str) -> str:
    """Who took the lease last, expired or not; empty where it was given up, or never taken."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT holder FROM offsets_lease WHERE name = %s", [name])
        row = cursor.fetchone()
    return row[0] if row else ""
