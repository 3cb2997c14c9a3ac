"""What keeps the ledger small: neighbouring ranges become one, and what nothing reads any more is deleted, in chunks.

Each function opens its own transaction, and holds the checkpoint's lock for one chunk.
"""

from django.db import connection, transaction

from offsets import purging
from offsets.ledger.moves import lock_checkpoint
from offsets.models import PartitionCheckpoint

#: Ranges that one transaction merges; the live worker waits for it.
MERGE_CHUNK = 1000

# A processed range that begins where another one ends belongs to the island of that one.
_MERGEABLE = """
    SELECT id, checkpoint_id, low, high, records, failed_records, created_at,
        count(*) FILTER (WHERE begins) OVER (PARTITION BY checkpoint_id ORDER BY low) AS island
    FROM (
        SELECT r.id, r.checkpoint_id, lower(r.offsets) AS low, upper(r.offsets) AS high, r.records, r.failed_records,
            r.created_at, (lag(upper(r.offsets)) OVER w = lower(r.offsets)) IS NOT TRUE AS begins
        FROM offsets_ledgerrange r WHERE r.kind = 'processed' AND {scope}
        WINDOW w AS (PARTITION BY r.checkpoint_id ORDER BY lower(r.offsets))
    ) AS marked
"""


def mergeable_checkpoints() -> list[int]:
    """The checkpoints that have neighbouring processed ranges."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT DISTINCT checkpoint_id FROM ({_MERGEABLE.format(scope='true')}) AS islands"
            " GROUP BY checkpoint_id, island HAVING count(*) > 1 ORDER BY 1"
        )
        return [row[0] for row in cursor.fetchall()]


def merge_ranges(checkpoint_id: int, limit: int = MERGE_CHUNK) -> int:
    """Make one of neighbouring processed ranges, for up to `limit` ranges. Returns how many were merged into others.

    The last one stays, which is the one that grows, with the sums of all and the age of the first. The offsets, records
    and dead letters of the checkpoint are the same before and after (I1 to I3, I6).
    """
    with transaction.atomic(), connection.cursor() as cursor:
        if lock_checkpoint(checkpoint_id) is None:
            return 0
        cursor.execute(
            f"WITH islands AS ({_MERGEABLE.format(scope='r.checkpoint_id = %(id)s')}), chosen AS ("
            " SELECT *, row_number() OVER (ORDER BY low) AS number FROM islands WHERE island IN"
            " (SELECT island FROM islands GROUP BY island HAVING count(*) > 1))"
            " SELECT array_agg(id ORDER BY low), min(low), max(high), sum(records)::bigint,"
            " sum(failed_records)::bigint, min(created_at) FROM chosen WHERE number <= %(limit)s"
            " GROUP BY island HAVING count(*) > 1",
            {"id": checkpoint_id, "limit": limit},
        )
        islands = cursor.fetchall()
        gone = [one for ids, *_ in islands for one in ids[:-1]]
        cursor.execute("DELETE FROM offsets_ledgerrange WHERE id = ANY(%s)", [gone])
        cursor.executemany(
            "UPDATE offsets_ledgerrange SET offsets = int8range(%s, %s), records = %s, failed_records = %s,"
            " created_at = %s WHERE id = %s",
            [(*island[1:], island[0][-1]) for island in islands],
        )
        return len(gone)


# --- Rebuilt checkpoints --------------------------------------------------------------------------


def begin_purge(days: int) -> list[int]:
    """The rebuilt checkpoints to purge, marked: from now on their rebuild cannot be undone."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_partitioncheckpoint SET purged_at = clock_timestamp() WHERE retired_reason = 'rebuilt'"
            " AND purged_at IS NULL AND retired_at < statement_timestamp() - make_interval(days => %s)",
            [days],
        )
        cursor.execute("SELECT id FROM offsets_partitioncheckpoint WHERE purged_at IS NOT NULL ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


def purge_rows(checkpoint_id: int, limit: int) -> int:
    """Delete up to `limit` ranges and dead letters of a checkpoint that is being purged. Returns how many."""
    return sum(
        purging.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT r.id FROM {table} r JOIN offsets_partitioncheckpoint c"
            " ON c.id = r.checkpoint_id WHERE c.id = %s AND c.purged_at IS NOT NULL LIMIT %s)",
            [checkpoint_id, limit],
        )
        for table in ("offsets_ledgerrange", "offsets_deadletter")
    )


def forget(checkpoint_id: int) -> None:
    """Delete the row of a checkpoint that was purged, with what refers to it; the audit log keeps its name."""
    PartitionCheckpoint.objects.filter(pk=checkpoint_id, purged_at__isnull=False).delete()


# --- Dead letters ---------------------------------------------------------------------------------


def purge_dead_letter_bytes(days: int) -> int:
    """Delete key, value and headers of dead letters that were counted or discarded more than `days` ago.

    The rows stay: they account for the failed records (I6), and a rebuild counts again what was requeued before.
    """
    return purging.in_chunks(
        lambda limit: purging.execute(
            "UPDATE offsets_deadletter SET value_bytes = coalesce(value_bytes, octet_length(value), 0), key = NULL,"
            " value = NULL, headers = '[]' WHERE id IN (SELECT id FROM offsets_deadletter"
            " WHERE status IN ('counted', 'discarded')"
            " AND (value IS NOT NULL OR key IS NOT NULL OR headers <> '[]')"
            " AND resolved_at < statement_timestamp() - make_interval(days => %s) LIMIT %s)",
            [days, limit],
        ),
        chunk=1000,
    )
