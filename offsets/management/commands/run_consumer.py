"""`manage.py run_consumer`: one worker in the foreground."""

import threading
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console

from offsets.exit_deadline import stop_on_signals
from offsets.management.base import EXIT_AIM_NOT_MET, OperatorCommand
from offsets.processing.worker import WorkerOptions, WorkerSummary, run_worker


class Command(OperatorCommand):
    help = (
        "Consume, count and commit in the foreground until Ctrl-C or SIGTERM, which finish and commit the current "
        "batch. A second signal ends the process at once; even then nothing is lost or counted twice."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--topic", action="append", help="Topic to consume; repeatable. Default: ENGAGEMENT_TOPIC.")
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group.")
        parser.add_argument("--semantics", default=settings.PROCESSING_SEMANTICS)
        parser.add_argument("--store", default=settings.OFFSET_STORE)
        parser.add_argument(
            "--exit-when-caught-up",
            action="store_true",
            help="Exit once the log ends at startup are committed; exit 1 if a partition is paused or halted, or a "
            "batch could not be applied.",
        )

    def run(self, **options: Any) -> int | None:
        stop = threading.Event()
        stop_on_signals(stop, on_first=lambda: self.stderr.write("Finishing and committing the current batch …"))
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
    again = f"; {summary.deduplicated:,} re-read, already counted" if summary.deduplicated else ""
    failed = summary.failed_batches
    console.print(
        f"{summary.worker_id} counted {summary.events:,} events in {summary.commits:,} commits "
        f"({summary.seconds:.1f} s{rate}){again}; {summary.dead_letters:,} dead letters, "
        f"{summary.fenced_commits:,} rejected commits."
        + (f" {summary.failed_batches:,} batches could not be applied: see offsets_status." if failed else "")
    )
