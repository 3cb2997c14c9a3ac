"""Celery tasks: consumer slots, their supervision, and housekeeping of the ledger."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery import Task, shared_task
from django.conf import settings
from django.db import connection

from offsets import invariants, journal, lag, leases, workers
from offsets.models import Worker
from offsets.sessions import DATABASE_LOST
from offsets.worker import WorkerOptions, run_worker

logger = logging.getLogger(__name__)

#: How long a sent start is waited for before the slot is tried again.
START_SECONDS = 10


def slot_name(group_id: str, slot: int) -> str:
    return f"slot:{group_id}:{slot}"


def _start_name(slot: str) -> str:
    return f"start:{slot}"


@contextmanager
def survives_outage(what: str) -> Iterator[None]:
    """A tick that meets a lost database says so in one line; the next tick goes on by itself."""
    try:
        yield
    except DATABASE_LOST as error:
        logger.warning("%s waits for the database: %s", what, " ".join(str(error).split()))
        connection.close()


@contextmanager
def only_one(name: str, ttl_seconds: float) -> Iterator[bool]:
    """Whether this tick is the one that may work; two ticks of the same kind never overlap."""
    token = leases.acquire(name, f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}", ttl_seconds)
    try:
        yield token is not None
    finally:
        if token is not None:
            leases.release(token)


@shared_task(bind=True, name="offsets.tasks.run_slot")
def run_slot(self: "Task[..., None]", group_id: str, slot: int) -> None:
    """Consume in slot `slot` of `group_id` until stopped. Ends at once if the slot is live elsewhere.

    The message was acknowledged before this runs: after a crash the lease decides who goes on, not the broker, which
    would hand the same task out twice after its visibility timeout.
    """
    name = slot_name(group_id, slot)
    ttl = settings.HEARTBEAT_TIMEOUT_SECONDS
    token = leases.acquire(name, f"{self.request.id}", ttl)
    if token is None:
        logger.info("%s is live elsewhere; this task ends.", name)
        return
    leases.drop(_start_name(name))  # started: the next failure must not wait for this lease to run out
    parent = os.getppid()
    try:
        run_worker(
            WorkerOptions(group_id, (settings.ENGAGEMENT_TOPIC,), slot=name, node=str(self.request.hostname or "")),
            # The second way to stop, when the database is down at shutdown: the Celery parent is gone.
            should_stop=lambda: os.getppid() != parent,
            on_heartbeat=_keep(token, ttl),
        )
    finally:
        with survives_outage("Releasing a slot"):
            leases.release(token)


def _keep(token: leases.LeaseToken, ttl_seconds: float) -> Callable[[], bool]:
    def keep() -> bool:
        try:
            return leases.renew(token, ttl_seconds)
        except DATABASE_LOST:
            # Unknown is not lost: nobody else can take the lease either, and the ledger's fence stands.
            connection.close()
            return True

    return keep


def stop_node(node: str) -> None:
    """Ask the slots of a Celery node to finish the batch in hand and end. Called in the parent process."""
    try:
        workers.request_stop(node=node)
    except DATABASE_LOST as error:
        logger.warning("The slots of %s could not be asked to stop: %s", node, error)
    finally:
        connection.close()


@shared_task(name="offsets.tasks.supervise")
def supervise() -> None:
    """Start each slot that nobody holds; bury workers whose heartbeats have stopped."""
    with survives_outage("Supervision"):
        group_id = settings.ENGAGEMENT_GROUP
        _bury_dead_workers()
        wanted = {slot_name(group_id, slot): slot for slot in range(settings.CONSUMER_SLOTS)}
        for name in sorted(wanted.keys() - leases.live(list(wanted))):
            # The short lease keeps starts from piling up while no slots worker runs.
            if leases.acquire(_start_name(name), secrets.token_hex(8), START_SECONDS):
                logger.info("%s is not held; starting it.", name)
                run_slot.apply_async((group_id, wanted[name]), expires=START_SECONDS)


def _bury_dead_workers() -> None:
    timeout = settings.HEARTBEAT_TIMEOUT_SECONDS
    dead = workers.reap(timeout)
    for worker in Worker.objects.filter(pk__in=dead):
        journal.record(
            worker.group_id,
            "worker_dead",
            f"{worker.worker_id} sent no heartbeat for {timeout} s; its partitions go to other workers.",
            level="error",
            worker_id=worker.worker_id,
        )


@shared_task(name="offsets.tasks.verify")
def verify() -> None:
    """Check the invariants for the page's badge."""
    with survives_outage("Checking the invariants"), only_one(f"verify:{settings.ENGAGEMENT_GROUP}", 60) as mine:
        if mine:
            result = invariants.check_and_store(settings.ENGAGEMENT_GROUP)
            if not result.ok:
                logger.error("Invariants do not hold: %s", result)


@shared_task(name="offsets.tasks.thin")
def thin() -> None:
    """Thin lag samples: one a second for five minutes, one a minute for a day."""
    with survives_outage("Thinning lag samples"):
        lag.thin()
