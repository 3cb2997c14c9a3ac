"""MetricsStore: the only writer of metric rows, and all reads of them.

A read is a single plain SELECT over totals and unfolded deltas, so that it sees each count once even while the fold
runs (R17).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from django.db import connection as default_connection
from django.db import transaction

from analytics.dimensions import DIMENSIONS, EVENT_TYPES
from offsets import purging
from offsets.errors import LedgerConflictError
from offsets.types import PartitionCommit

if TYPE_CHECKING:  # imports polars, which readers of metrics do not need
    from analytics.aggregation import EngagementWork

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
#: How many rows of an export the client holds at a time.
EXPORT_ROWS = 10_000
_COPY_TRAILER = b"\xff\xff"
#: This row holds the purged minutes, so that all minutes still sum to the counted events (I4).
CARRY_MINUTE = datetime(1970, 1, 1, tzinfo=UTC)

_SUMS = "sum(views) AS views, sum(likes) AS likes, sum(comments) AS comments, sum(shares) AS shares"
_EVENTS = "views + likes + comments + shares"
_KEPT = (
    "checkpoint_id IN (SELECT id FROM offsets_partitioncheckpoint WHERE retired_reason <> 'rebuilt'"
    " AND (%(group)s = '' OR group_id = %(group)s) AND (%(topic)s = '' OR topic = %(topic)s))"
)
_ALL_COUNTS = (
    "(SELECT checkpoint_id, dimension, entity_id, views, likes, comments, shares FROM analytics_engagementtotal"
    " UNION ALL"
    " SELECT checkpoint_id, dimension, entity_id, views, likes, comments, shares FROM analytics_engagementdelta)"
)


class MetricsStore:
    """Stateless; create one where it is needed."""

    # --- Writes, inside the transaction of a commit ------------------------------------------------

    def insert(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        """Append the deltas of all commits in one binary COPY. Takes no row lock."""
        works = [cast("EngagementWork", commit.work) for commit in commits if commit.work.delta_count]
        if not works:
            return
        with connection.cursor() as cursor:
            with cursor.copy(
                "COPY analytics_engagementdelta (checkpoint_id, dimension, entity_id, views, likes, comments, shares)"
                " FROM STDIN (FORMAT BINARY)"
            ) as copy:
                copy.write(_COPY_HEADER)
                for work in works:
                    copy.write(work.delta_rows)
                copy.write(_COPY_TRAILER)
            _expect(cursor.rowcount, sum(work.delta_count for work in works), "delta rows")

    def update(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        """Add to the minute rows of all commits, in one statement and one order; and count implausible times."""
        self._count_implausible(commits, connection)
        columns: list[list[Any]] = [[] for _ in range(2 + len(EVENT_TYPES))]
        for commit in sorted(commits, key=lambda commit: commit.claim.checkpoint_id):
            for minute, *counts in commit.work.minutes.tolist():
                row = (commit.claim.checkpoint_id, CARRY_MINUTE + timedelta(minutes=minute), *counts)
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        if not columns[0]:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO analytics_engagementminute AS m (checkpoint_id, minute, views, likes, comments, shares)"
                " SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::bigint[],"
                " %s::bigint[]) ON CONFLICT (checkpoint_id, minute) DO UPDATE SET views = m.views + excluded.views,"
                " likes = m.likes + excluded.likes, comments = m.comments + excluded.comments,"
                " shares = m.shares + excluded.shares",
                columns,
            )
            _expect(cursor.rowcount, len(columns[0]), "minute rows")

    def _count_implausible(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        rows = [
            (commit.claim.checkpoint_id, *times)
            for commit in sorted(commits, key=lambda commit: commit.claim.checkpoint_id)
            for times in commit.work.implausible
        ]
        if not rows:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO analytics_implausibletime AS t (checkpoint_id, source, unit, events)"
                " SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[])"
                " ON CONFLICT (checkpoint_id, source, unit) DO UPDATE SET events = t.events + excluded.events,"
                " last_seen_at = excluded.last_seen_at",
                [list(column) for column in zip(*rows, strict=True)],
            )
            _expect(cursor.rowcount, len(rows), "rows of implausible times")

    # --- Upkeep ------------------------------------------------------------------------------------

    def fold(self, limit: int) -> int:
        """Move up to `limit` of the oldest deltas into totals, in one statement. Returns how many were moved.

        Totals are updated in key order, so that two folds may wait for each other but never deadlock.
        """
        with default_connection.cursor() as cursor:
            cursor.execute(
                "WITH moved AS (DELETE FROM analytics_engagementdelta WHERE id IN"
                " (SELECT id FROM analytics_engagementdelta ORDER BY id LIMIT %s) RETURNING *), folded AS ("
                f" SELECT checkpoint_id, dimension, entity_id, {_SUMS} FROM moved GROUP BY 1, 2, 3 ORDER BY 1, 2, 3),"
                " written AS (INSERT INTO analytics_engagementtotal AS t"
                " (checkpoint_id, dimension, entity_id, views, likes, comments, shares) SELECT * FROM folded"
                " ON CONFLICT (checkpoint_id, dimension, entity_id) DO UPDATE SET views = t.views + excluded.views,"
                " likes = t.likes + excluded.likes, comments = t.comments + excluded.comments,"
                " shares = t.shares + excluded.shares RETURNING 1) SELECT count(*) FROM moved",
                [limit],
            )
            return int(cursor.fetchone()[0])

    def purge_minutes(self, days: float) -> int:
        """Carry minutes of more than `days` ago over into each checkpoint's carry row. Returns how many were deleted.

        By the database's clock: a process whose own is ahead would end the history of everybody.
        """
        return purging.in_chunks(lambda limit: self._carry_over(days, limit))

    def _carry_over(self, days: float, limit: int) -> int:
        with default_connection.cursor() as cursor:
            cursor.execute(
                "WITH gone AS (DELETE FROM analytics_engagementminute WHERE id IN (SELECT id"
                " FROM analytics_engagementminute WHERE minute > %(carry)s"
                " AND minute < statement_timestamp() - make_interval(secs => 86400 * %(days)s)"
                " ORDER BY minute LIMIT %(limit)s)"
                f" RETURNING *), carried AS (SELECT checkpoint_id, {_SUMS} FROM gone GROUP BY 1 ORDER BY 1),"
                " written AS (INSERT INTO analytics_engagementminute AS m"
                " (checkpoint_id, minute, views, likes, comments, shares)"
                " SELECT checkpoint_id, %(carry)s, views, likes, comments, shares FROM carried"
                " ON CONFLICT (checkpoint_id, minute) DO UPDATE SET views = m.views + excluded.views,"
                " likes = m.likes + excluded.likes, comments = m.comments + excluded.comments,"
                " shares = m.shares + excluded.shares RETURNING 1) SELECT count(*) FROM gone",
                {"days": days, "carry": CARRY_MINUTE, "limit": limit},
            )
            return int(cursor.fetchone()[0])

    def purge_checkpoint(self, checkpoint_id: int, limit: int) -> int:
        """Delete up to `limit` rows of each kind of a checkpoint whose counts are not read any more. Returns how many.

        Deltas first: a fold would turn one that is left into a total.
        """
        return sum(
            purging.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE checkpoint_id = %s LIMIT %s)",
                [checkpoint_id, limit],
            )
            for table in (
                *("analytics_engagementdelta", "analytics_engagementtotal", "analytics_engagementminute"),
                "analytics_implausibletime",
            )
        )

    # --- Reads -------------------------------------------------------------------------------------

    def totals(self, group_id: str = "", topic: str = "") -> dict[str, int]:
        """All counted events by type, from the minute rows: few, exact, and independent of dimensions."""
        return self._one(f"SELECT {_SUMS} FROM analytics_engagementminute WHERE {_KEPT}", group_id, topic)

    def entity_totals(self, dimension: str, entity_id: int, group_id: str = "", topic: str = "") -> dict[str, int]:
        """Counted events of one content or user, by type."""
        sql = (
            f"SELECT {_SUMS} FROM {_ALL_COUNTS} AS c WHERE dimension = %(dimension)s AND entity_id = %(id)s AND {_KEPT}"
        )
        return self._one(sql, group_id, topic, dimension=DIMENSIONS[dimension][0], id=entity_id)

    def _one(self, sql: str, group_id: str, topic: str, **more: int) -> dict[str, int]:
        with default_connection.cursor() as cursor:
            cursor.execute(sql, {"group": group_id, "topic": topic, **more})
            row = cursor.fetchone()
        return {name: int(count or 0) for name, count in zip(EVENT_TYPES, row, strict=True)}

    def export(self, group_id: str = "", topic: str = "") -> Iterator[tuple[str, int, int, int, int, int]]:
        """`(dimension, id, views, likes, comments, shares)` by dimension and id, of one moment.

        One SELECT, whose snapshot is taken when it begins: the fold deletes and inserts in one statement, so a row is
        seen before or after it, never twice and never not at all. The server holds the result; the client has
        EXPORT_ROWS of it at a time.
        """
        names = {number: name for name, (number, _) in DIMENSIONS.items()}
        with transaction.atomic(), default_connection.chunked_cursor() as cursor:
            with default_connection.cursor() as setting:
                # The whole result is wanted, not its first rows.
                setting.execute("SET LOCAL cursor_tuple_fraction = 1.0")
            cursor.execute(
                f"SELECT dimension, entity_id, {_SUMS} FROM {_ALL_COUNTS} AS c WHERE {_KEPT}"
                " GROUP BY 1, 2 ORDER BY 1, 2",
                {"group": group_id, "topic": topic},
            )
            while rows := cursor.fetchmany(EXPORT_ROWS):
                for dimension, *counts in rows:
                    yield (names[dimension], *map(int, counts))  # type: ignore[misc]

    def counted_sql(self) -> str:
        names = " ".join(f"WHEN {number} THEN '{name}'" for name, (number, _) in DIMENSIONS.items())
        return (
            f"SELECT checkpoint_id, CASE dimension {names} END AS dimension, sum({_EVENTS}) AS events"
            f" FROM {_ALL_COUNTS} AS c GROUP BY 1, 2"
        )

    def counted_by_time_sql(self) -> str:
        return f"SELECT checkpoint_id, sum({_EVENTS}) AS events FROM analytics_engagementminute GROUP BY 1"

    def implausible_times_sql(self) -> str:
        return "SELECT checkpoint_id, source, unit, events, first_seen_at, last_seen_at FROM analytics_implausibletime"


def _expect(seen: int, wanted: int, what: str) -> None:
    if seen != wanted:
        raise LedgerConflictError(f"Only {seen} of {wanted} {what} were written.")
