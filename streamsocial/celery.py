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

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamsocial.settings")

app = Celery("streamsocial")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# Celery gives up on a lost broker after a hundred attempts; the worker would then not return with Redis.
app.conf.broker_connection_max_retries = None
# Restoring unacknowledged messages over a lost connection ends the whole worker (kombu 5.7); see also the setting
# CELERY_BROKER_TRANSPORT_OPTIONS.
redis_transport.Channel.do_restore = False

# `expires` bounds the backlog while no control worker runs: a late tick is useless.
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
