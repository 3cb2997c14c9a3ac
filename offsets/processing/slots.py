"""Consumer slots: each runs one worker inside a Celery task, under a lease, so that it is live in one process only."""

import logging
import mmap
import os
import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import connection
from django.db.models import Value
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from offsets import journal, leases, workers
from offsets.database import DATABASE_LOST, describe_outage
from offsets.errors import OffsetsError
from offsets.models import DatabaseTime, JournalEntry
from offsets.processing.worker import ThreadsStillRunningError, WorkerOptions, run_worker
from offsets.ticks import survives_outage

logger = logging.getLogger(__name__)

#: How long a sent start is waited for before the slot is tried again; also the pause after a slot that failed.
START_SECONDS = 10
SLOT_FAILED = "slot_failed"
#: A failure that repeats is written to the journal this seldom.
JOURNAL_INTERVAL = timedelta(minutes=5)

#: One byte that the pool processes share with their Celery parent, which sets it when it shuts down. Shared memory
#: rather than a row, which needs the database, or an Event, whose lock a killed process would keep.
_shutting_down = mmap.mmap(-1, 1)


def slot_name(group_id: str, slot: int) -> str:
    return f"slot:{group_id}:{slot}"


def _start_name(slot: str) -> str:
    return f"start:{slot}"


# --- Running ----------------------------------------------------------------------------------------------------


def run(group_id: str, slot: int, *, holder: str, node: str) -> None:
    """Consume in a slot until stopped; return at once if the slot is live elsewhere.

    The task's message was acknowledged before: after a crash the lease decides who goes on, not the broker, which would
    hand the same task out twice after its visibility timeout. Raises ThreadsStillRunningError: the process must end.
    """
    name = slot_name(group_id, slot)
    ttl_seconds = settings.HEARTBEAT_TIMEOUT_SECONDS
    with survives_outage(name):
        token = leases.acquire(name, holder, ttl_seconds)
        if token is None:
            logger.info("%s is live elsewhere; this task ends.", name)
            return
        leases.drop(_start_name(name))  # started: the next failure must not wait for this lease to run out
        options = WorkerOptions(group_id, (settings.ENGAGEMENT_TOPIC,), name, node)
        try:
            run_worker(options, should_stop=stop_flag(), on_heartbeat=_lease_keeper(token, ttl_seconds))
        except (*DATABASE_LOST, ThreadsStillRunningError):
            raise
        except Exception as error:
            _hold_off(token, group_id, error)
            if not isinstance(error, OffsetsError):
                raise
        finally:
            with survives_outage(f"Releasing {name}"):
                leases.release(token)


def stop_flag() -> Callable[[], bool]:
    """What a slot asks between fetches: whether its Celery parent shuts down, or is gone."""
    parent = os.getppid()
    return lambda: bool(_shutting_down[0]) or os.getppid() != parent


def _hold_off(token: leases.LeaseToken, group_id: str, error: Exception) -> None:
    """Journal why a slot failed, and keep supervision from starting it again at once."""
    leases.acquire(_start_name(token.name), token.holder, START_SECONDS)
    message = f"{token.name} ended: {' '.join(str(error).split()) or type(error).__name__}"
    same = JournalEntry.objects.filter(group_id=group_id, kind=SLOT_FAILED, message=message)
    if same.filter(created_at__gt=DatabaseTime() - Value(JOURNAL_INTERVAL)).exists():
        logger.error("%s", message)
    else:
        journal.record(group_id, SLOT_FAILED, message, level="error")


def _lease_keeper(token: leases.LeaseToken, ttl_seconds: float) -> Callable[[], bool]:
    def keep() -> bool:
        try:
            return leases.renew(token, ttl_seconds)
        except DATABASE_LOST:
            # Unknown is not lost: no other process can take the lease either, and the ledger's fence stands.
            connection.close()
            return True

    return keep


# --- Stopping ---------------------------------------------------------------------------------------------------


def stop_node(node: str) -> threading.Thread:
    """Ask the slots of a Celery node to finish the batch in hand and end. Called in the parent process.

    A signal handler calls it, too, which may interrupt this very thread in the middle of a statement, or of the
    handling of the signal before it: so another thread writes to the database. That thread is returned.
    """
    _shutting_down[0] = 1
    thread = threading.Thread(target=_request_stop, args=(node,), name="stop-node", daemon=True)
    thread.start()
    return thread


def _request_stop(node: str) -> None:
    try:
        workers.request_stop(node=node)  # so that the page shows it
    except DATABASE_LOST as error:
        logger.warning("The page does not show that %s stops. %s", node, describe_outage(error))
    finally:
        connection.close()


# --- Starting ---------------------------------------------------------------------------------------------------


def start_missing(group_id: str, *, queue: str, send: Callable[[str, int], None]) -> None:
    """Start each slot whose lease is free: `send(group_id, slot)` puts its task into `queue`."""
    wanted = {slot_name(group_id, slot): slot for slot in range(settings.CONSUMER_SLOTS)}
    missing = sorted(wanted.keys() - leases.live(list(wanted)))
    try:
        if missing and waiting_starts(queue) < settings.CONSUMER_SLOTS:
            for name in missing:
                _start(group_id, name, wanted[name], send)
    except (BrokerError, RedisError) as error:
        logger.warning("Slots cannot be started: Redis does not answer (%s).", error)


def _start(group_id: str, name: str, slot: int, send: Callable[[str, int], None]) -> None:
    """Send the slot's task, unless a start is under way. Raises BrokerError."""
    if leases.acquire(_start_name(name), secrets.token_hex(8), START_SECONDS) is None:
        return
    logger.info("%s is not held; starting it.", name)
    try:
        send(group_id, slot)
    except (BrokerError, RedisError):
        leases.drop(_start_name(name))
        raise


def waiting_starts(queue: str) -> int:
    """How many starts wait in the queue. Without a slots worker they would pile up: only a consumer drops what has
    expired. Raises BrokerError.
    """
    with current_app.connection_for_write() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        channel: Any = broker.default_channel
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except broker.channel_errors:  # an empty queue does not exist
            return 0
