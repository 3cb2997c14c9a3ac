"""`manage.py accept_loss`: go on where Kafka's log begins now."""

from typing import Any

from django.core.management.base import CommandParser

from offsets.management.commands._moves import MoveCommand
from offsets.management.commands._scope import add_execute, add_scope, in_scope, reason_of
from offsets.recovery.moves import Move
from offsets.recovery.plans import MoveKind


class Command(MoveCommand):
    help = "Record as expired what Kafka deleted before it was read, and go on at the start of the log."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        reason = reason_of(options)
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        self.show_and_apply(
            MoveKind.ACCEPT_LOSS,
            [Move(row.pk) for row in rows],
            group=options["group"],
            reason=reason,
            execute=options["execute"],
            as_json=options["json"],
        )
        return None
