"""`manage.py accept_loss`: continue at the start of Kafka's log."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape

from offsets.actions.guards import Request
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of
from offsets.models import PartitionCheckpoint
from offsets.replays import acceptance, selection
from offsets.replays.acceptance import Accepted
from offsets.types import RangeKind


class Command(MoveCommand):
    help = (
        "Record unread offsets that Kafka has deleted as expired, and continue at the start of the log. With --failed: "
        "record offsets that could not be applied as skipped, so that they are not retried."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument("--failed", action="store_true", help="Accept failed ranges instead of deleted offsets.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        request = request_of(options)
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        if options["failed"]:
            return self._accept_failed(rows, options, request)
        self.show_and_apply(
            MoveKind.ACCEPT_LOSS,
            [Move(row.pk) for row in rows],
            group=options["group"],
            request=request,
            execute=options["execute"],
            as_json=options["json"],
        )
        return None

    def _accept_failed(
        self, rows: Sequence[PartitionCheckpoint], options: Mapping[str, Any], request: Request
    ) -> int | None:
        wanted = [
            Accepted(one.checkpoint_id, one.offsets) for one in selection.of_kinds(rows, [RangeKind.FAILED], None)
        ]
        if not wanted:
            raise RefusedError("No failed offsets in this scope. Nothing was changed.")
        shown = [acceptance.preview(accepted, request.actor) for accepted in wanted]
        if options["execute"]:
            seen = [Accepted(preview.checkpoint_id, preview.offsets, preview.failed) for preview in shown]
            acceptance.accept_failed(seen, request)
        data = {
            "action": acceptance.KIND,
            "executed": options["execute"],
            "items": [
                {"partition": one.target, "start": one.offsets.start, "end": one.offsets.end, "failed": one.failed}
                for one in shown
            ],
        }

        def show(console: Console) -> None:
            for one in shown:
                console.print(escape(one.text))
            done = "Done." if options["execute"] else "Dry run: nothing was changed. Add --execute --reason 'why'."
            console.print(done)

        self.emit(data, show, as_json=options["json"])
        return None
