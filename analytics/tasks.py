"""Celery tasks that join metrics and offsets: the monitor's tick, the fold, the hourly purge."""

import logging
from datetime import UTC, datetime, timedelta

from django.conf import settings

from analytics.dashboard.broadcast import send_snapshot
from analytics.metrics_store import MetricsStore
from offsets import journal, loops, ticks, workers
from offsets.clock import Deadline
from offsets.errors import OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.monitoring import incidents, lag_samples
from offsets.replays import rows as replay_rows
from offsets.tick_tasks import tick_task

logger = logging.getLogger(__name__)

FOLD_CHUNK = 50_000
FOLD_SECONDS = 5.0
RECOVERY_DAYS = 90


@tick_task(loops.MONITOR, "analytics.tasks.monitor")
def monitor() -> None:
    """Sample the log bounds of all partitions in one request, then send a snapshot to the page."""
    group_id = settings.ENGAGEMENT_GROUP
    with ticks.tick(loops.MONITOR, group_id) as run:
        if not run:
            return
        try:
            lag_samples.sample_group(group_id, "monitor", KafkaAdmin(lag_samples.KAFKA_SECONDS))
        except OffsetsError as error:
            logger.warning("Cannot sample the log ends: %s", error)
        send_snapshot(group_id)


@tick_task(loops.FOLD, "analytics.tasks.fold")
def fold() -> None:
    """Move deltas into totals, chunk by chunk, until none are left or the time is up."""
    with ticks.tick(loops.FOLD) as run:
        deadline = Deadline(FOLD_SECONDS)
        store = MetricsStore()
        while run and not deadline.expired and store.fold(FOLD_CHUNK) == FOLD_CHUNK:
            pass


@tick_task(loops.PURGE, "analytics.tasks.purge")
def purge() -> None:
    """Carry old minutes over; delete old journal entries, stopped workers, incidents and replays."""
    with ticks.tick(loops.PURGE) as run:
        if run:
            MetricsStore().purge_minutes(datetime.now(UTC) - timedelta(days=settings.MINUTE_RETENTION_DAYS))
            journal.purge()
            workers.purge(7)
            incidents.purge(RECOVERY_DAYS)
            replay_rows.purge(RECOVERY_DAYS)
