"""`manage.py accept_loss`: go on where Kafka's log begins now."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape

from offsets.actions.guards import Actor, Source
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of
from offsets.models import PartitionCheckpoint
from offsets.replays import acceptance, selection
from offsets.replays.acceptance import Accepted
from offsets.types import RangeKind


class Command(MoveCommand):
    help = (
        "Record as expired what Kafka deleted before it was read, and go on at the start of the log. With --failed: "
        "record as skipped what could not be applied, so that nothing retries it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument("--failed", action="store_true", help="The failed ranges, instead of what Kafka deleted.")
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
        wanted = [
            Accepted(one.checkpoint_id, one.offsets) for one in selection.of_kinds(rows, [RangeKind.FAILED], None)
        ]
        if not wanted:
            raise RefusedError("The ledger holds no failed offsets there; nothing was changed.")
        actor = Actor.of_operating_system()
        shown = [acceptance.preview(one, actor) for one in wanted]
        if options["execute"]:
            seen = [Accepted(one.checkpoint_id, one.offsets, one.failed) for one in shown]
            acceptance.accept_failed(seen, actor=actor, reason=reason, source=Source.COMMAND)
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
