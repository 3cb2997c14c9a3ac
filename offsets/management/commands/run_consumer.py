"""`manage.py run_consumer`: one worker in the foreground."""

import signal
import threading
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console

from offsets.management.base import EXIT_AIM_NOT_MET, OperatorCommand
from offsets.processing.worker import WorkerOptions, WorkerSummary, run_worker


class Command(OperatorCommand):
    help = (
        "Run one worker in the foreground. Ctrl-C and SIGTERM finish and commit the current batch; a second signal "
        "ends the process at once, and nothing is lost or counted twice then either."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--topic", action="append", help="Topic to consume. Repeatable. Default: ENGAGEMENT_TOPIC.")
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (default: %(default)s).")
        parser.add_argument(
            "--semantics", default=settings.PROCESSING_SEMANTICS, help="Semantics (default: %(default)s)."
        )
        parser.add_argument("--store", default=settings.OFFSET_STORE, help="Offset store (default: %(default)s).")
        parser.add_argument(
            "--exit-when-caught-up",
            action="store_true",
            help="Stop once the log ends seen at the start are committed by the group. Exits with 1 if a partition is "
            "paused or halted, or a batch failed.",
        )

    def run(self, **options: Any) -> int | None:
        stop = threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()
            signal.signal(number, signal.SIG_DFL)
            self.stderr.write("Finishing and committing the current batch …")

        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGTERM, on_signal)
        summary = run_worker(
            WorkerOptions(
                group_id=options["group"],
                topics=tuple(options["topic"] or [settings.ENGAGEMENT_TOPIC]),
                exit_when_caught_up=options["exit_when_caught_up"],
                semantics=options["semantics"],
                store=options["store"],
            ),
            should_stop=stop.is_set,
        )
        self.emit(summary.as_json(), lambda console: _show(console, summary), as_json=options["json"])
        met = summary.caught_up and not summary.failed_batches
        return EXIT_AIM_NOT_MET if options["exit_when_caught_up"] and not met else None


def _show(console: Console, summary: WorkerSummary) -> None:
    rate = f", {summary.events_per_second:,.0f} events/s" if summary.events_per_second else ""
    deduplicated = f"; {summary.deduplicated:,} deduplicated" if summary.deduplicated else ""
    failed = summary.failed_batches
    console.print(
        f"{summary.worker_id} counted {summary.events:,} events in {summary.commits:,} commits "
        f"({summary.seconds:.1f} s{rate}){deduplicated}; {summary.dead_letters:,} dead letters, "
        f"{summary.fenced_commits:,} fenced commits."
        + (f" {summary.failed_batches:,} failed batches: see offsets_status." if failed else "")
    )
