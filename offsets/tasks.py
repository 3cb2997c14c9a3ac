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
from redis.exceptions import RedisError

from offsets import leases
from offsets.clock import monotonic
from offsets.errors import OffsetsError
from offsets.monitoring import invariants, lag_samples, notifications
from offsets.processing import slots
from offsets.processing.worker import ThreadsStillRunningError
from offsets.recovery.manager import RecoveryManager
from offsets.replays import runner
from offsets.stores import drift, open_store
from offsets.ticks import only_one, survives_outage

logger = logging.getLogger(__name__)

#: How long a sent replay may wait for a worker before it is dropped, and sent again.
REPLAY_START_SECONDS = 30
#: A check of the invariants is followed by a rest of this many times its own length.
VERIFY_REST = 9


@shared_task(bind=True, name="offsets.tasks.run_slot")
def run_slot(self: "Task[..., None]", group_id: str, slot: int) -> None:
    """Consume in slot `slot` of `group_id` until stopped. Ends at once if the slot is live elsewhere."""
    try:
        slots.run(group_id, slot, holder=str(self.request.id), node=str(self.request.hostname or ""))
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
    """Send a replay to the workers; False while Redis does not answer: the recovery manager sends it later."""
    try:
        run_replay.apply_async((replay_id,), expires=REPLAY_START_SECONDS)
    except (BrokerError, RedisError) as error:
        logger.warning("Replay %d is not sent yet: Redis does not answer (%s).", replay_id, error)
        return False
    return True


@shared_task(name="offsets.tasks.supervise")
def supervise() -> None:
    """Start each slot that is not held."""
    with survives_outage("Supervision"):
        queue = settings.CELERY_TASK_ROUTES[run_slot.name]["queue"]
        slots.start_missing(settings.ENGAGEMENT_GROUP, queue=queue, send=_send_slot)


def _send_slot(group_id: str, slot: int) -> None:
    run_slot.apply_async((group_id, slot), expires=slots.START_SECONDS)


@cache
def _manager(group_id: str) -> RecoveryManager:
    """One per process; all processes of a host are one leader, because their ticks never overlap."""
    return RecoveryManager(group_id, f"celery:{socket.gethostname()}", dispatch=dispatch_replay)


@shared_task(name="offsets.tasks.recover")
def recover() -> None:
    """One tick of the recovery manager, unless `run_recovery_manager` or another host leads."""
    group_id = settings.ENGAGEMENT_GROUP
    manager = _manager(group_id)
    outage = survives_outage("Recovery", lambda error: manager.leadership.miss_database(error))
    with outage, only_one(f"recover:{group_id}", 10) as may_run:
        if may_run:
            manager.tick()


@shared_task(name="offsets.tasks.notify")
def notify() -> None:
    """Send the alerts that are due."""
    with survives_outage("Sending alerts"), only_one("notify", 300) as may_run:
        if may_run:
            notifications.send_due()


@shared_task(name="offsets.tasks.verify")
def verify() -> None:
    """Check the invariants for the page's badge. A slow check is followed by a proportionally longer rest."""
    group_id = settings.ENGAGEMENT_GROUP
    rest = f"verify-rest:{group_id}"
    with survives_outage("Checking the invariants"), only_one(f"verify:{group_id}", 300) as may_run:
        if not may_run or leases.live([rest]):
            return
        began = monotonic()
        result = invariants.check_and_store(group_id)
        leases.acquire(rest, "verify", VERIFY_REST * (monotonic() - began))
        if not result.ok:
            logger.error("Invariants do not hold: %s", result)


@shared_task(name="offsets.tasks.compare_stores")
def compare_stores() -> None:
    """Measure the drift of the mirrors, and of the offset store where it is not the ledger."""
    group_id = settings.ENGAGEMENT_GROUP
    names = [name for name in dict.fromkeys([settings.OFFSET_STORE, *settings.OFFSET_MIRRORS]) if name != "postgres"]
    with survives_outage("Comparing the offset stores"), only_one(f"compare:{group_id}", 60) as may_run:
        for name in names if may_run else []:
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
