"""`manage.py rebuild_partition`: count a partition again from the log start."""

from typing import Any

from django.core.management.base import CommandParser

from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of


class Command(MoveCommand):
    help = (
        "Drop a partition's counts and count it again from the log start. Records that retention deleted cannot be "
        "counted again; the preview shows how many."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument(
            "--keep-counts",
            action="store_true",
            help="For a recreated topic or truncated log: keep the old counts and count the new log in addition.",
        )
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        reason = reason_of(options)
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        self.show_and_apply(
            MoveKind.RESTART if options["keep_counts"] else MoveKind.REBUILD,
            [Move(row.pk) for row in rows],
            group=options["group"],
            reason=reason,
            execute=options["execute"],
            as_json=options["json"],
        )
        return None
