"""When each control loop ran last."""

from django.conf import settings
from django.db import connection

from offsets.diagnostics.judgements import Diagnosis, judge_loop, ok
from offsets.models import PartitionCheckpoint

#: Each loop, its interval, and the age in seconds of the last row that it wrote for a group.
_LOOPS = (
    (
        "monitor",
        1.0,
        "SELECT extract(epoch FROM clock_timestamp() - max(s.sampled_at))::float8 FROM offsets_lagsample s"
        " JOIN offsets_partitioncheckpoint c ON c.id = s.checkpoint_id WHERE c.group_id = %s",
    ),
    (
        "recover",
        1.0,
        "SELECT extract(epoch FROM clock_timestamp() - max(h.assessed_at))::float8 FROM offsets_partitionhealth h"
        " JOIN offsets_partitioncheckpoint c ON c.id = h.checkpoint_id WHERE c.group_id = %s",
    ),
    (
        "verify",
        10.0,
        "SELECT extract(epoch FROM clock_timestamp() - max(checked_at))::float8 FROM offsets_invariantreport"
        " WHERE group_id = %s",
    ),
)


def loop_diagnoses() -> list[Diagnosis]:
    """One row for each control loop of the group; none has anything to do before the first claim."""
    group = settings.ENGAGEMENT_GROUP
    if not PartitionCheckpoint.objects.live(group).exists():
        return [ok("control loops", f"group {group} has not claimed a partition yet")]
    rows = []
    with connection.cursor() as cursor:
        for name, interval, statement in _LOOPS:
            cursor.execute(statement, [group])
            rows.append(judge_loop(name, cursor.fetchone()[0], interval))
    return rows
