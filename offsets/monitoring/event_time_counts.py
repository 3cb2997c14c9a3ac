"""Reads how many counted events have a time that cannot be right. The batch handler keeps these numbers."""

import logging
from functools import cache

from django.conf import settings
from django.db import connection
from django.utils.module_loading import import_string

from offsets.errors import RefusedError
from offsets.monitoring.event_times import ImplausibleTimes

logger = logging.getLogger(__name__)


def read(group_id: str, sql: str) -> list[ImplausibleTimes]:
    """What the handler's `implausible_times_sql` selects, by topic. A rebuilt partition begins again."""
    if not sql:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.topic, t.source, t.unit, sum(t.events)::bigint, min(t.first_seen_at),"  # noqa: S608 - the handler's own statement
            " greatest(0, extract(epoch FROM statement_timestamp() - max(t.last_seen_at)))::float8"
            f" FROM ({sql}) AS t JOIN offsets_partitioncheckpoint c ON c.id = t.checkpoint_id"
            " WHERE c.group_id = %s AND c.retired_reason <> 'rebuilt' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            [group_id],
        )
        return [ImplausibleTimes(*row) for row in cursor.fetchall()]


@cache
def handler_sql() -> str:
    """The statement of the batch handler; empty for one that does not count implausible times."""
    try:
        handler = import_string(settings.BATCH_HANDLER)()
    except (ImportError, RefusedError) as error:
        logger.warning("Implausible event times are not read: %s", error)
        return ""
    tells = getattr(handler, "implausible_times_sql", None)
    return str(tells()) if tells else ""
