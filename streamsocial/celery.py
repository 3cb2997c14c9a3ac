"""The Celery application: slots on a queue of their own, everything else on `control`.

A slot runs as long as its worker; on a shared queue a few slots would starve supervision.
"""

import logging
import os
import threading
from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_shutting_down
from kombu.transport import redis as redis_transport

from offsets import loops

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamsocial.settings")

#: How long one request to Redis may take.
REDIS_SECONDS = 5.0

app = Celery("streamsocial")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# Celery gives up on a lost broker after a hundred attempts; the worker would then not return with Redis.
app.conf.broker_connection_max_retries = None
# A lost message does no harm: ticks recur, and starts are sent again. So none is kept for redelivery or restored;
# restoring over a lost connection ends the whole worker (kombu 5.7).
app.conf.broker_transport_options = {
    "ack_emulation": False,
    # A Redis that accepts connections and does not answer would hold a tick, or a request of the API, for good.
    "socket_timeout": REDIS_SECONDS,
    "socket_connect_timeout": REDIS_SECONDS,
}
app.conf.task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
redis_transport.Channel.do_restore = False

# Ticks have no expiry, which would compare the clocks of two machines: `offsets.ticks` drops those that are not due,
# and the scheduler bounds how many wait.
app.conf.beat_scheduler = "streamsocial.beat:BoundedScheduler"
app.conf.beat_schedule = {
    loop.name: {"task": task, "schedule": loop.interval_seconds}
    for task, loop in {
        "offsets.tasks.supervise": loops.SUPERVISE,
        "offsets.tasks.recover": loops.RECOVER,
        "offsets.tasks.notify": loops.NOTIFY,
        "analytics.tasks.monitor": loops.MONITOR,
        "analytics.tasks.fold": loops.FOLD,
        "offsets.tasks.verify": loops.VERIFY,
        "offsets.tasks.compare_stores": loops.COMPARE_STORES,
        "offsets.tasks.thin": loops.THIN,
        "analytics.tasks.purge": loops.PURGE,
    }.items()
}

#: How long a stopping worker waits until the database is updated; the slots stop without it.
STOP_RECORD_SECONDS = 5.0

# Each tick would log that it was received and that it succeeded: five lines a second.
for _name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def _ask_slots_to_stop(node: str) -> threading.Thread:
    """Only the parent process receives the shutdown signal; this asks the slots in its children to stop."""
    from offsets.processing.slots import stop_node

    return stop_node(node)


@worker_shutting_down.connect
def _on_shutdown_signal(sender: object = None, **_: object) -> None:
    _ask_slots_to_stop(str(sender))


class SlotsStop(bootsteps.StartStopStep):
    """Runs before the pool waits for its tasks, for any reason that the worker stops.

    There is no signal when an error stops the parent: without this step it would wait forever for its slots, which
    would continue without supervision.
    """

    requires = ("celery.worker.components:Pool",)

    def stop(self, parent: Any) -> None:
        _ask_slots_to_stop(str(parent.hostname)).join(STOP_RECORD_SECONDS)


app.steps["worker"].add(SlotsStop)
