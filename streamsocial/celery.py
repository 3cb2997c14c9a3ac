"""The Celery application: slots on a queue of their own, everything else on `control`.

A slot runs for as long as its worker lives; on a shared queue a few of them would starve supervision.
"""

import logging
import os
import threading
from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_shutting_down
from kombu.transport import redis as redis_transport

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamsocial.settings")

app = Celery("streamsocial")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# Celery gives a lost broker up after a hundred attempts; a worker that ends then would not come back with Redis.
app.conf.broker_connection_max_retries = None
# Messages here are reminders: a tick comes again by itself, and a start is sent again. So none is kept for
# redelivery, and none handed back; handing back over a connection that was lost ends the whole worker (kombu 5.7).
app.conf.broker_transport_options = {"ack_emulation": False}
redis_transport.Channel.do_restore = False

# `expires` bounds what piles up while no control worker runs: a tick that is late is worth nothing.
app.conf.beat_schedule = {
    "supervise": {"task": "offsets.tasks.supervise", "schedule": 2.0, "options": {"expires": 4}},
    "recover": {"task": "offsets.tasks.recover", "schedule": 1.0, "options": {"expires": 2}},
    "notify": {"task": "offsets.tasks.notify", "schedule": 2.0, "options": {"expires": 4}},
    "monitor": {"task": "analytics.tasks.monitor", "schedule": 1.0, "options": {"expires": 2}},
    "fold": {"task": "analytics.tasks.fold", "schedule": 1.0, "options": {"expires": 2}},
    "verify": {"task": "offsets.tasks.verify", "schedule": 10.0, "options": {"expires": 20}},
    "compare-stores": {"task": "offsets.tasks.compare_stores", "schedule": 5.0, "options": {"expires": 10}},
    "thin": {"task": "offsets.tasks.thin", "schedule": 60.0, "options": {"expires": 120}},
    "purge": {"task": "analytics.tasks.purge", "schedule": 3600.0, "options": {"expires": 3600}},
}

#: How long the end of a worker waits for the database to hear of it; the slots hear without it.
TELLING_SECONDS = 5.0

# Each tick would say that it was received and that it succeeded: five lines a second, and the others drown.
for _name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def _ask_slots_to_stop(node: str) -> threading.Thread:
    """Only the parent process hears of a shutdown; the slots in its children are told here."""
    from offsets.processing.slots import stop_node

    return stop_node(node)


@worker_shutting_down.connect
def _on_shutdown_signal(sender: object = None, **_: object) -> None:
    _ask_slots_to_stop(str(sender))


class SlotsStop(bootsteps.StartStopStep):
    """Runs before the pool waits for its tasks, whatever ends the worker.

    No signal is sent when an error ends the parent: without this it would wait for its slots for ever, and they would
    run on without supervision.
    """

    requires = ("celery.worker.components:Pool",)

    def stop(self, parent: Any) -> None:
        _ask_slots_to_stop(str(parent.hostname)).join(TELLING_SECONDS)


app.steps["worker"].add(SlotsStop)
