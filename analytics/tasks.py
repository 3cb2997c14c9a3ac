"""Celery tasks that join metrics and offsets: the monitor's tick, the fold, the hourly purge."""

import logging
from functools import cache

from celery import shared_task
from django.conf import settings

from analytics.dashboard.broadcast import send_snapshot
from analytics.metrics_store import MetricsStore
from offsets import journal, leases, ledger, purging, workers
from offsets.actions import audit
from offsets.clock import Deadline
from offsets.errors import OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.monitoring import incidents, lag_samples
from offsets.replays import rows as replay_rows
from offsets.ticks import only_one, survives_outage

logger = logging.getLogger(__name__)

FOLD_CHUNK = 50_000
FOLD_SECONDS = 5.0
RECOVERY_DAYS = 90
PROCESS_DAYS = 7


@cache
def _admin() -> KafkaAdmin:
    """One client a process, made after the fork."""
    return KafkaAdmin(timeout_seconds=3.0)


@shared_task(name="analytics.tasks.monitor")
def monitor() -> None:
    """Sample the log bounds of all partitions in one request, then send a snapshot to the page."""
    group_id = settings.ENGAGEMENT_GROUP
    with survives_outage("Monitoring"), only_one(f"monitor:{group_id}", 10) as acquired:
        if not acquired:
            return
        try:
            lag_samples.sample_group(group_id, "monitor", _admin())
        except OffsetsError as error:
            logger.warning("Cannot sample the log ends: %s", error)
        send_snapshot(group_id)


@shared_task(name="analytics.tasks.fold")
def fold() -> None:
    """Move deltas into totals, chunk by chunk, until none are left or the time is up."""
    with survives_outage("Folding"), only_one("fold", 30) as acquired:
        deadline = Deadline(FOLD_SECONDS)
        store = MetricsStore()
        while acquired and not deadline.expired and store.fold(FOLD_CHUNK) == FOLD_CHUNK:
            pass


@shared_task(name="analytics.tasks.purge")
def purge() -> None:
    """Carry old minutes over; delete what is older than its retention, in chunks."""
    with survives_outage("Purging"), only_one("purge", 1800) as acquired:
        if not acquired:
            return
        store = MetricsStore()
        store.purge_minutes(settings.MINUTE_RETENTION_DAYS)
        journal.purge()
        workers.purge(PROCESS_DAYS)
        leases.purge(PROCESS_DAYS)
        incidents.purge(RECOVERY_DAYS)
        replay_rows.purge(RECOVERY_DAYS)
        audit.purge_refused(RECOVERY_DAYS)
        ledger.purge_dead_letter_bytes(settings.DEAD_LETTER_RETENTION_DAYS)
        purging.purge_sessions()
        purge_rebuilt(store, settings.REBUILT_RETENTION_DAYS)


def purge_rebuilt(store: MetricsStore, days: int) -> None:
    """Delete checkpoints that were rebuilt more than `days` ago, their counts first; what is left follows next time."""
    for checkpoint_id in ledger.begin_purge(days):
        deadline = Deadline(purging.PURGE_SECONDS)
        while not deadline.expired:
            if store.purge_checkpoint(checkpoint_id, purging.CHUNK) + ledger.purge_rows(checkpoint_id, purging.CHUNK):
                continue
            ledger.forget(checkpoint_id)
            break
