"""`manage.py run_recovery_manager`: the recovery manager in the foreground; it watches without Celery or Redis."""

import json
import logging
import os
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db import connection

from offsets.database import DATABASE_LOST, answers_within, describe_outage
from offsets.errors import OffsetsError, ServiceUnavailableError
from offsets.exit_deadline import exit_within, stop_on_signals
from offsets.management.base import OperatorCommand
from offsets.monitoring import notifications
from offsets.recovery.manager import RecoveryManager, Tick
from offsets.replays import runner
from offsets.tasks import dispatch_replay

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ALERT_SECONDS = 2.0


class Command(OperatorCommand):
    help = (
        "Check the group each second: assess every partition and worker, open and close incidents, fence dead workers, "
        "evict stuck ones, replay failed ranges. Several may run: one leads, the others stand by. Stop with Ctrl-C."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (%(default)s).")
        parser.add_argument(
            "--run-replays",
            action="store_true",
            help="Run replays in this process, one after the other, instead of sending them to the Celery workers.",
        )
        parser.add_argument("--once", action="store_true", help="Run one tick and print the result.")

    def run(self, **options: Any) -> None:
        stop = threading.Event()
        if not options["once"]:
            stop_on_signals(stop)
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        alerts = threading.Thread(target=_send_alerts, args=(stop,), name="alerts", daemon=True)
        if not options["once"]:
            alerts.start()
        deadline = exit_within(settings.SHUTDOWN_SECONDS, asked=stop.is_set, describe=lambda: "in a tick or a replay")
        with deadline, ThreadPoolExecutor(1, "replay") as pool:
            waiting: set[int] = set()

            def run_here(replay_id: int) -> None:
                # The manager dispatches it again every few seconds while it runs.
                if replay_id not in waiting:
                    waiting.add(replay_id)
                    pool.submit(_run_replay, replay_id, stop).add_done_callback(lambda _: waiting.discard(replay_id))

            dispatch = run_here if options["run_replays"] else dispatch_replay
            manager = RecoveryManager(options["group"], holder, dispatch=dispatch)
            try:
                while True:
                    tick = manager.tick()
                    self._report(tick, options)
                    if options["once"] and tick.trouble:
                        raise ServiceUnavailableError(tick.trouble)
                    if options["once"] or stop.wait(TICK_SECONDS):
                        break
            finally:
                stop.set()
                _release(manager)

    def _report(self, tick: Tick, options: dict[str, Any]) -> None:
        """With --json a line for each tick; otherwise only what changes."""
        if options["json"]:
            self.stdout.write(json.dumps(asdict(tick)))
        elif options["once"]:
            self.emit(None, lambda console: console.print(_in_words(tick)), as_json=False)


def _in_words(tick: Tick) -> str:
    if not tick.leading:
        return f"Not the leader. {tick.trouble}".strip()
    lines = [f"{name}: {status}" for name, status in tick.statuses.items()]
    lines += [f"Opened: {text}" for text in tick.opened] + [f"Closed: {text}" for text in tick.closed]
    return "\n".join(lines) or "The group has no partitions yet."


def _run_replay(replay_id: int, stop: threading.Event) -> None:
    try:
        runner.run(replay_id, should_stop=stop.is_set)
    except (OffsetsError, *DATABASE_LOST) as error:
        logger.warning("Replay %d will be run again: %s", replay_id, error)
    except Exception:
        # The pool would swallow it.
        logger.exception("Replay %d failed and will be retried.", replay_id)
    finally:
        connection.close()


def _send_alerts(stop: threading.Event) -> None:
    """On its own thread: a receiver that hangs must not delay a tick."""
    while not stop.wait(ALERT_SECONDS):
        try:
            notifications.send_due()
        except DATABASE_LOST as error:
            logger.debug("Alerts are delayed: %s", error)
            connection.close()


def _release(manager: RecoveryManager) -> None:
    try:
        with answers_within(settings.SHUTDOWN_SECONDS / 10):
            manager.release()
    except DATABASE_LOST as error:
        logger.warning("The lease was not released. %s", describe_outage(error))
