"""Celery tasks: consumer slots, their supervision, and housekeeping of the ledger."""

import logging
import mmap
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import cache
from typing import Any

from celery import Task, current_app, shared_task
from django.conf import settings
from django.db import connection
from django.db.models import Value
from kombu.exceptions import OperationalError as BrokerError

from offsets import journal, leases, workers
from offsets.clock import monotonic
from offsets.database import DATABASE_LOST
from offsets.errors import OffsetsError
from offsets.models import DatabaseTime, JournalEntry
from offsets.monitoring import invariants, lag_samples, notifications
from offsets.processing.worker import ThreadsStillRunningError, WorkerOptions, run_worker
from offsets.recovery.manager import RecoveryManager
from offsets.replays import runner
from offsets.stores import drift, open_store
from offsets.ticks import only_one, survives_outage

logger = logging.getLogger(__name__)

#: How long a sent start is waited for before the slot is tried again; also the pause after a slot that failed.
START_SECONDS = 10
#: How long a sent replay may wait for a worker before it is dropped, and sent again.
REPLAY_START_SECONDS = 30
SLOT_FAILED = "slot_failed"
#: A slot that fails again and again for one reason enters it into the journal this seldom.
TOLD_FOR = timedelta(minutes=5)
#: A check of the invariants is followed by a rest of this many times its own length.
VERIFY_REST = 9

#: One byte that the pool processes share with their Celery parent, which sets it when it shuts down. Shared memory
#: rather than a row, which needs the database, or an Event, whose lock a killed process would keep.
_shutting_down = mmap.mmap(-1, 1)


def slot_name(group_id: str, slot: int) -> str:
    return f"slot:{group_id}:{slot}"


def _start_name(slot: str) -> str:
    return f"start:{slot}"


@shared_task(bind=True, name="offsets.tasks.run_slot")
def run_slot(self: "Task[..., None]", group_id: str, slot: int) -> None:
    """Consume in slot `slot` of `group_id` until stopped. Ends at once if the slot is live elsewhere."""
    try:
        _run_slot(self, group_id, slot)
    except ThreadsStillRunningError as error:
        # A thread cannot be ended, and this process would be given to the next slot: the pool starts another.
        logger.critical("%s Its process ends.", error)
        logging.shutdown()
        os.kill(os.getpid(), signal.SIGKILL)


def _run_slot(self: "Task[..., None]", group_id: str, slot: int) -> None:
    """The slot's whole life in this process.

    The message was acknowledged before this runs: after a crash the lease decides who goes on, not the broker, which
    would hand the same task out twice after its visibility timeout.
    """
    name = slot_name(group_id, slot)
    ttl = settings.HEARTBEAT_TIMEOUT_SECONDS
    with survives_outage(name):
        token = leases.acquire(name, str(self.request.id), ttl)
        if token is None:
            logger.info("%s is live elsewhere; this task ends.", name)
            return
        leases.drop(_start_name(name))  # started: the next failure must not wait for this lease to run out
        options = WorkerOptions(group_id, (settings.ENGAGEMENT_TOPIC,), name, str(self.request.hostname or ""))
        try:
            run_worker(options, should_stop=_stop_flag(), on_heartbeat=_keep(token, ttl))
        except (*DATABASE_LOST, ThreadsStillRunningError):
            raise
        except Exception as error:
            _hold_off(token, group_id, error)
            if not isinstance(error, OffsetsError):
                raise
        finally:
            with survives_outage(f"Releasing {name}"):
                leases.release(token)


@shared_task(name="offsets.tasks.run_replay")
def run_replay(replay_id: int) -> None:
    """Run a replay to its end. Sent again while nobody runs it, so a crash only makes it later."""
    with survives_outage(f"Replay {replay_id}"):
        try:
            runner.run(replay_id, should_stop=_stop_flag())
        except OffsetsError as error:
            logger.warning("Replay %d waits to be run again: %s", replay_id, error)


def dispatch_replay(replay_id: int) -> bool:
    """Send a replay to the workers; False while Redis does not answer: the recovery manager sends it later."""
    try:
        run_replay.apply_async((replay_id,), expires=REPLAY_START_SECONDS)
    except BrokerError as error:
        logger.warning("Replay %d is not sent yet: Redis does not answer (%s).", replay_id, error)
        return False
    return True


def _stop_flag() -> Callable[[], bool]:
    """What a slot asks between fetches: whether its Celery parent shuts down, or is gone."""
    parent = os.getppid()
    return lambda: bool(_shutting_down[0]) or os.getppid() != parent


def _hold_off(token: leases.LeaseToken, group_id: str, error: Exception) -> None:
    """Say why a slot failed, and keep supervision from starting it again at once."""
    leases.acquire(_start_name(token.name), token.holder, START_SECONDS)
    message = f"{token.name} ended: {' '.join(str(error).split()) or type(error).__name__}"
    told = JournalEntry.objects.filter(group_id=group_id, kind=SLOT_FAILED, message=message)
    if told.filter(created_at__gt=DatabaseTime() - Value(TOLD_FOR)).exists():
        logger.error("%s", message)
    else:
        journal.record(group_id, SLOT_FAILED, message, level="error")


def _keep(token: leases.LeaseToken, ttl_seconds: float) -> Callable[[], bool]:
    def keep() -> bool:
        try:
            return leases.renew(token, ttl_seconds)
        except DATABASE_LOST:
            # Unknown is not lost: nobody else can take the lease either, and the ledger's fence stands.
            connection.close()
            return True

    return keep


def stop_node(node: str) -> threading.Thread:
    """Ask the slots of a Celery node to finish the batch in hand and end. Called in the parent process.

    Also by a signal's handler, which may interrupt this very thread in the middle of a statement, or of the handling of
    the signal before it: so the database is told by another thread, which is returned.
    """
    _shutting_down[0] = 1
    telling = threading.Thread(target=_tell_that_it_stops, args=(node,), name="stop-node", daemon=True)
    telling.start()
    return telling


def _tell_that_it_stops(node: str) -> None:
    try:
        workers.request_stop(node=node)  # so that the page shows it
    except DATABASE_LOST as error:
        logger.warning("The page is not told that %s stops: %s", node, " ".join(str(error).split()))
    finally:
        connection.close()


@shared_task(name="offsets.tasks.supervise")
def supervise() -> None:
    """Start each slot that nobody holds."""
    with survives_outage("Supervision"):
        group_id = settings.ENGAGEMENT_GROUP
        wanted = {slot_name(group_id, slot): slot for slot in range(settings.CONSUMER_SLOTS)}
        missing = sorted(wanted.keys() - leases.live(list(wanted)))
        try:
            if missing and _waiting_starts() < settings.CONSUMER_SLOTS:
                for name in missing:
                    _start(group_id, name, wanted[name])
        except BrokerError as error:
            logger.warning("Slots cannot be started: Redis does not answer (%s).", error)


def _start(group_id: str, name: str, slot: int) -> None:
    """Send the slot's task, unless a start is under way. Raises BrokerError."""
    if leases.acquire(_start_name(name), secrets.token_hex(8), START_SECONDS) is None:
        return
    logger.info("%s is not held; starting it.", name)
    try:
        run_slot.apply_async((group_id, slot), expires=START_SECONDS)
    except BrokerError:
        leases.drop(_start_name(name))
        raise


def _waiting_starts() -> int:
    """How many starts nobody has taken yet. Without a slots worker they would pile up: only a consumer drops what has
    expired. Raises BrokerError.
    """
    queue = settings.CELERY_TASK_ROUTES[run_slot.name]["queue"]
    with current_app.connection_for_write() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        channel: Any = broker.default_channel
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except broker.channel_errors:  # an empty queue does not exist
            return 0


@cache
def _manager(group_id: str) -> RecoveryManager:
    """One for each process; all processes of a host are one leader, because their ticks never overlap."""
    return RecoveryManager(group_id, f"celery:{socket.gethostname()}", dispatch=dispatch_replay)


@shared_task(name="offsets.tasks.recover")
def recover() -> None:
    """One tick of the recovery manager, unless `run_recovery_manager` or another host leads."""
    group_id = settings.ENGAGEMENT_GROUP
    with survives_outage("Recovery"), only_one(f"recover:{group_id}", 10) as mine:
        if mine:
            _manager(group_id).tick()


@shared_task(name="offsets.tasks.notify")
def notify() -> None:
    """Send what people are to be told."""
    with survives_outage("Sending alerts"), only_one("notify", 300) as mine:
        if mine:
            notifications.send_due()


@shared_task(name="offsets.tasks.verify")
def verify() -> None:
    """Check the invariants for the page's badge. A check that took long is followed by a rest that is longer."""
    group_id = settings.ENGAGEMENT_GROUP
    rest = f"verify-rest:{group_id}"
    with survives_outage("Checking the invariants"), only_one(f"verify:{group_id}", 300) as mine:
        if not mine or leases.live([rest]):
            return
        began = monotonic()
        result = invariants.check_and_store(group_id)
        leases.acquire(rest, "verify", VERIFY_REST * (monotonic() - began))
        if not result.ok:
            logger.error("Invariants do not hold: %s", result)


@shared_task(name="offsets.tasks.compare_stores")
def compare_stores() -> None:
    """See how far the mirrors, and the offset store where it is not the ledger, stand from the ledger."""
    group_id = settings.ENGAGEMENT_GROUP
    names = [name for name in dict.fromkeys([settings.OFFSET_STORE, *settings.OFFSET_MIRRORS]) if name != "postgres"]
    with survives_outage("Comparing the offset stores"), only_one(f"compare:{group_id}", 60) as mine:
        for name in names if mine else []:
            try:
                with closing(open_store(name)) as store:
                    drift.sample(group_id, store)
            except OffsetsError as error:
                logger.warning("The %s store could not be compared: %s", name, error)


@shared_task(name="offsets.tasks.thin")
def thin() -> None:
    """Thin lag samples: one a second for five minutes, one a minute for a day."""
    with survives_outage("Thinning lag samples"):
        lag_samples.thin()
