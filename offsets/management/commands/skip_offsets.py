"""`manage.py skip_offsets`: pass records without counting them, and record that in the ledger."""

from typing import Any

from django.core.management.base import CommandParser

from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.management.base import non_negative, positive
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of


class Command(MoveCommand):
    help = "Skip the next records of a partition: they are recorded as skipped. An undo counts them."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--count", type=positive, metavar="N", help="Number of offsets to skip.")
        where.add_argument("--to", type=non_negative, metavar="OFFSET", help="All offsets below this one.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        request = request_of(options)
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        if len(rows) > 1 and options["to"] is not None:
            raise RefusedError(f"--to needs one partition, not {len(rows)}. Use --count instead.")
        count, to = options["count"] or 0, options["to"]
        wanted = [Move(row.pk, row.next_offset + count if to is None else to) for row in rows]
        self.show_and_apply(
            MoveKind.SKIP,
            wanted,
            group=options["group"],
            request=request,
            execute=options["execute"],
            as_json=options["json"],
        )
        return None
