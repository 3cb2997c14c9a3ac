"""`manage.py rebuild_partition`: drop the counts of a partition and count it again."""

from typing import Any

from django.core.management.base import CommandParser

from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of


class Command(MoveCommand):
    help = (
        "Drop the counts of a partition and count it again from its baseline, or from the log start if that is later. "
        "Offsets that retention has deleted are reported first, and are missing afterwards."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument(
            "--keep-counts",
            action="store_true",
            help="For a recreated or truncated topic: keep the old counts, and count the new log in addition.",
        )
        parser.add_argument(
            "--from-log-start",
            action="store_true",
            help="Begin at the log start even below the baseline: also count offsets that this group never counted.",
        )
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        request = request_of(options)
        if options["keep_counts"] and options["from_log_start"]:
            raise RefusedError("--from-log-start drops the counts; it cannot be combined with --keep-counts.")
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        self.show_and_apply(
            MoveKind.RESTART if options["keep_counts"] else MoveKind.REBUILD,
            [Move(row.pk, from_log_start=options["from_log_start"]) for row in rows],
            group=options["group"],
            request=request,
            execute=options["execute"],
            as_json=options["json"],
        )
        return None
