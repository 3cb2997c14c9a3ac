"""Celery tasks: consumer slots, their supervision, and housekeeping of the ledger."""

import logging
import os
import signal
import socket
from contextlib import closing
from functools import cache

from celery import Task, shared_task
from django.conf import settings
from kombu.exceptions import OperationalError as BrokerError

from offsets import leases, loops, ticks
from offsets.clock import monotonic
from offsets.errors import OffsetsError
from offsets.monitoring import invariants, lag_samples, notifications
from offsets.processing import slots
from offsets.processing.worker import ThreadsStillRunningError
from offsets.recovery.manager import RecoveryManager
from offsets.replays import runner
from offsets.stores import drift, open_store
from offsets.tick_tasks import tick_task
from offsets.ticks import survives_outage

logger = logging.getLogger(__name__)

#: Replays that wait in the queue; more are sent once these are taken.
MAX_WAITING_REPLAYS = 100
#: A check of the invariants is followed by a rest of this many times its own length.
VERIFY_REST = 9


@shared_task(bind=True, name="offsets.tasks.run_slot")
def run_slot(self: "Task[..., None]", group_id: str, slot: int, start: str = "") -> None:
    """Consume in slot `slot` of `group_id` until stopped. Ends at once if the slot is live elsewhere, or `start` is no
    longer the start that supervision wants.
    """
    holder, node = str(self.request.id), str(self.request.hostname or "")
    try:
        slots.run(group_id, slot, holder=holder, node=node, start=start)
    except ThreadsStillRunningError as error:
        # A thread cannot be ended, and this process would be given to the next slot: the pool starts another.
        logger.critical("%s Its process ends.", error)
        logging.shutdown()
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="offsets.tasks.run_replay")
def run_replay(replay_id: int) -> None:
    """Run a replay to its end. The recovery manager sends it again while no worker runs it: a crash only delays it."""
    with survives_outage(f"Replay {replay_id}"):
        try:
            runner.run(replay_id, should_stop=slots.stop_flag())
        except OffsetsError as error:
            logger.warning("Replay %d will be run again: %s", replay_id, error)


def dispatch_replay(replay_id: int) -> bool:
    """Send a replay to the workers. False while Redis does not answer, or no worker takes those that wait: the recovery
    manager sends it later. A replay that is sent twice runs once.
    """
    try:
        if slots.waiting_messages(settings.CELERY_TASK_ROUTES[run_replay.name]["queue"]) >= MAX_WAITING_REPLAYS:
            return False
        run_replay.apply_async((replay_id,))
    except BrokerError as error:
        logger.warning("Replay %d is not sent yet: Redis does not answer (%s).", replay_id, error)
        return False
    return True


@tick_task(loops.SUPERVISE, "offsets.tasks.supervise")
def supervise() -> None:
    """Start each slot that is not held."""
    group_id = settings.ENGAGEMENT_GROUP
    with ticks.tick(loops.SUPERVISE, group_id) as run:
        if run:
            queue = settings.CELERY_TASK_ROUTES[run_slot.name]["queue"]
            slots.start_missing(group_id, queue=queue, send=_send_slot)


def _send_slot(group_id: str, slot: int, start: str) -> None:
    run_slot.apply_async((group_id, slot, start))


@cache
def _manager(group_id: str) -> RecoveryManager:
    """One per process; all processes of a host are one leader, because their ticks never overlap."""
    return RecoveryManager(group_id, f"celery:{socket.gethostname()}", dispatch=dispatch_replay)


@tick_task(loops.RECOVER, "offsets.tasks.recover")
def recover() -> None:
    """One tick of the recovery manager, unless `run_recovery_manager` or another host leads."""
    group_id = settings.ENGAGEMENT_GROUP
    with ticks.tick(loops.RECOVER, group_id) as run:
        if run:
            run.error = _manager(group_id).tick().trouble


@tick_task(loops.NOTIFY, "offsets.tasks.notify")
def notify() -> None:
    """Send the alerts that are due."""
    with ticks.tick(loops.NOTIFY) as run:
        if run:
            notifications.send_due()


@tick_task(loops.VERIFY, "offsets.tasks.verify")
def verify() -> None:
    """Check the invariants for the page's badge. A slow check is followed by a proportionally longer rest."""
    group_id = settings.ENGAGEMENT_GROUP
    rest = f"verify-rest:{group_id}"
    with ticks.tick(loops.VERIFY, group_id) as run:
        if not run:
            return
        run.idle = bool(leases.live([rest]))
        if run.idle:
            return
        began = monotonic()
        result = invariants.check_and_store(group_id)
        leases.acquire(rest, "verify", VERIFY_REST * (monotonic() - began))
        if not result.ok:
            logger.error("Invariants do not hold: %s", result)


@tick_task(loops.COMPARE_STORES, "offsets.tasks.compare_stores")
def compare_stores() -> None:
    """Measure the drift of the mirrors, and of the offset store where it is not the ledger."""
    group_id = settings.ENGAGEMENT_GROUP
    names = [name for name in dict.fromkeys([settings.OFFSET_STORE, *settings.OFFSET_MIRRORS]) if name != "postgres"]
    with ticks.tick(loops.COMPARE_STORES, group_id) as run:
        for name in names if run else []:
            try:
                with closing(open_store(name)) as store:
                    drift.sample(group_id, store)
            except OffsetsError as error:
                logger.warning("The %s store could not be compared: %s", name, error)


@tick_task(loops.THIN, "offsets.tasks.thin")
def thin() -> None:
    """Thin lag samples: one a second for five minutes, one a minute for a day."""
    with ticks.tick(loops.THIN) as run:
        if run:
            lag_samples.thin()
