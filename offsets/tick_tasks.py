"""Celery tasks that are ticks: those that waited in the queue are dropped as they arrive, before a process runs one."""

import logging
from collections.abc import Callable
from typing import Any

from celery import Task, shared_task

from offsets.clock import monotonic
from offsets.loops import LOOPS, Loop
from offsets.ticks import DUE_AFTER

logger = logging.getLogger(__name__)


def tick_task(loop: Loop, name: str) -> Callable[[Callable[[], None]], "Task[[], None]"]:
    """Make the function a Celery task, of which only so many reach a process as are due."""
    return shared_task(name=name, loop=loop.name, Strategy="offsets.tick_tasks:early_dropped")  # type: ignore[call-overload,no-any-return]


def early_dropped(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy for messages of `task`, in the parent process of a worker.

    By this process's own monotonic clock; `offsets.ticks` judges the rest by the database's.
    """
    from celery.worker import strategy  # of workers only

    handle = strategy.default(task, app, consumer, **options)
    pause = DUE_AFTER * LOOPS[task.loop].interval_seconds
    last = float("-inf")

    def on_message(message: Any, body: Any, ack: Any, *more: Any, **others: Any) -> Any:
        nonlocal last
        now = monotonic()
        if now - last < pause:
            ack(logger, consumer.connection_errors)
            return None
        last = now
        return handle(message, body, ack, *more, **others)

    return on_message
