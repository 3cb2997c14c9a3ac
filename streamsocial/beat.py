"""The scheduler of the periodic loops: it bounds how many ticks wait, and does without two clocks that agree."""

import logging
from typing import Any

from celery.beat import PersistentScheduler, ScheduleEntry
from django.conf import settings

from offsets.processing.slots import messages_in

logger = logging.getLogger(__name__)

#: So many ticks may wait in the control queue. Ticks recur, so that nothing is lost by sending no more.
MAX_WAITING = 50


class BoundedScheduler(PersistentScheduler):
    """Sends no tick while too many wait, which is so while no control worker runs."""

    _full = False

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        if not self._is_full():
            super().apply_entry(entry, producer=producer)

    def _is_full(self) -> bool:
        queue = settings.CELERY_TASK_DEFAULT_QUEUE
        try:
            full = messages_in(queue, self.connection) >= MAX_WAITING
        except (
            Exception
        ) as error:  # whatever the transport raises: then the tick cannot be sent either, and is reported
            logger.debug("How many ticks wait is unknown: %s", error)
            return False
        if full and not self._full:
            logger.warning(
                "%d ticks wait in %s; no more are sent until a control worker takes them.", MAX_WAITING, queue
            )
        self._full = full
        return full

    def tick(self, *arguments: Any, **options: Any) -> float:
        self._forget_future()
        return float(super().tick(*arguments, **options))

    def _forget_future(self) -> None:
        """After the clock was set back, also before the start: no tick would be sent until it is caught up."""
        now = self.app.now()
        ahead = [entry for entry in self.schedule.values() if entry.last_run_at and entry.last_run_at > now]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            self._heap = None
