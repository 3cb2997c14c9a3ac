"""When each periodic loop ran last."""

from django.conf import settings
from django.db import connection

from offsets import ticks
from offsets.diagnostics.judgements import Diagnosis, judge_loop, ok
from offsets.loops import LOOPS
from offsets.monitoring.late_loops import late_loops


def loop_diagnoses() -> list[Diagnosis]:
    """One row for each loop; none has anything to do before the first claim."""
    group = settings.ENGAGEMENT_GROUP
    claimed_seconds = _claimed_seconds(group)
    if claimed_seconds is None:
        return [ok("loops", f"group {group} has not claimed a partition yet")]
    runs = {run.name: run for run in ticks.last_runs(group)}
    late = {loop.name: loop for loop in late_loops(list(runs.values()))}
    return [judge_loop(loop, runs.get(name), late.get(name), claimed_seconds) for name, loop in LOOPS.items()]


def _claimed_seconds(group: str) -> float | None:
    """Since the group's first claim; None without one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float8 FROM offsets_partitioncheckpoint"
            " WHERE group_id = %s AND retired_at IS NULL",
            [group],
        )
        (seconds,) = cursor.fetchone()
        return None if seconds is None else float(seconds)
