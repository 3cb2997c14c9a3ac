"""`manage.py accept_loss`: continue at the current log start."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape

from offsets.actions.guards import Actor, Source
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.management.base import DRY_RUN
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of
from offsets.models import PartitionCheckpoint
from offsets.replays import acceptance, selection
from offsets.replays.acceptance import Accepted
from offsets.types import RangeKind


class Command(MoveCommand):
    help = (
        "Record as expired what Kafka deleted before it was read, and continue at the log start. With --failed, record "
        "failed ranges as skipped instead, so that they are not retried."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument("--failed", action="store_true", help="Record the failed ranges as skipped instead.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        reason = reason_of(options)
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        if options["failed"]:
            return self._accept_failed(rows, options, reason)
        self.show_and_apply(
            MoveKind.ACCEPT_LOSS,
            [Move(row.pk) for row in rows],
            group=options["group"],
            reason=reason,
            execute=options["execute"],
            as_json=options["json"],
        )
        return None

    def _accept_failed(
        self, rows: Sequence[PartitionCheckpoint], options: Mapping[str, Any], reason: str
    ) -> int | None:
        failed = selection.of_kinds(rows, [RangeKind.FAILED], None)
        wanted = [Accepted(row.checkpoint_id, row.offsets) for row in failed]
        if not wanted:
            raise RefusedError("No failed offsets in this scope. Nothing was changed.")
        actor = Actor.of_operating_system()
        shown = [acceptance.preview(accepted, actor) for accepted in wanted]
        if options["execute"]:
            seen = [Accepted(preview.checkpoint_id, preview.offsets, preview.failed) for preview in shown]
            acceptance.accept_failed(seen, actor=actor, reason=reason, source=Source.COMMAND)
        data = {
            "action": acceptance.KIND,
            "executed": options["execute"],
            "items": [
                {
                    "partition": preview.target,
                    "start": preview.offsets.start,
                    "end": preview.offsets.end,
                    "failed": preview.failed,
                }
                for preview in shown
            ],
        }

        def show(console: Console) -> None:
            for preview in shown:
                console.print(escape(preview.text))
            console.print("Done." if options["execute"] else DRY_RUN)

        self.emit(data, show, as_json=options["json"])
        return None
