"""The journal: what happened to partitions and workers. The only writer of JournalEntry rows.

The row is for the page, the log line for whoever keeps logs. Neither may ever disturb what it reports.
"""

import logging

from django.db import DatabaseError, InterfaceError, connection, transaction

from offsets import purging
from offsets.models import JournalEntry

logger = logging.getLogger(__name__)

RETENTION_DAYS = 7
#: Rows deleted per statement: a purge after a long stop must not hold locks or write a huge transaction.

_LEVELS: dict[str, int] = {
    JournalEntry.Level.INFO: logging.INFO,
    JournalEntry.Level.WARNING: logging.WARNING,
    JournalEntry.Level.ERROR: logging.ERROR,
}


def record(
    group_id: str,
    kind: str,
    message: str,
    *,
    level: str = JournalEntry.Level.INFO,
    worker_id: str = "",
    topic: str = "",
    partition: int | None = None,
) -> bool:
    """Write one entry and log it; False when the database did not take it, which is logged and never raised.

    Inside a transaction the entry shares its fate; a savepoint keeps a refused entry from breaking it.
    """
    where = f"{topic}-{partition} " if topic and partition is not None else ""
    who = f"[{worker_id}] " if worker_id else ""
    logger.log(_LEVELS.get(level, logging.INFO), "%s%s%s: %s", who, where, kind, message)
    entry = JournalEntry(
        group_id=group_id,
        level=level,
        kind=kind[:30],
        worker_id=worker_id[:40],
        topic=topic[:249],
        partition=partition,
        # PostgreSQL text refuses NUL, and an error message may quote a record.
        message=message.replace("\x00", "\\0"),
    )
    try:
        with transaction.atomic():
            entry.save(force_insert=True)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("The journal entry above was not stored: %s", " ".join(str(error).split()))
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        return False
    return True


def purge(days: int = RETENTION_DAYS) -> int:
    """Delete entries older than `days`, by the database's clock. Returns how many."""
    return purging.in_chunks(
        lambda limit: purging.execute(
            "DELETE FROM offsets_journalentry WHERE id IN (SELECT id FROM offsets_journalentry"
            " WHERE created_at < statement_timestamp() - make_interval(days => %s) ORDER BY id LIMIT %s)",
            [days, limit],
        )
    )
