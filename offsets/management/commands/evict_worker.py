"""`manage.py evict_worker`: take all partitions from a worker that is alive but makes no progress."""

from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape

from offsets.actions import eviction
from offsets.actions.guards import Actor, Source
from offsets.management.base import DRY_RUN, OperatorCommand
from offsets.management.scope import add_execute, reason_of


class Command(OperatorCommand):
    help = (
        "Fence a worker's partitions and ask it to drop uncommitted work and stop. Other workers continue at the "
        "committed offsets. Dry run unless --execute is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("worker", metavar="WORKER", help="Worker id, as shown by offsets_status and the dashboard.")
        add_execute(parser)

    def run(self, **options: Any) -> None:
        reason = reason_of(options)
        actor = Actor.of_operating_system()
        shown = eviction.preview(options["worker"], actor)
        data: dict[str, Any] = {"worker": shown.worker_id, "executed": options["execute"], "detail": shown.text}
        if options["execute"]:
            action = eviction.evict(
                shown.worker_id, actor=actor, reason=reason, source=Source.COMMAND, owned=shown.owned
            )
            data["action_id"] = action.pk

        def show(console: Console) -> None:
            console.print(escape(shown.text))
            console.print("Done." if options["execute"] else DRY_RUN)

        self.emit(data, show, as_json=options["json"])
