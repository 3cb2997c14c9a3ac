"""`manage.py evict_worker`: take the partitions from a worker that is alive but stuck."""

from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape

from offsets.actions import eviction
from offsets.management.base import OperatorCommand
from offsets.management.scope import add_execute, request_of


class Command(OperatorCommand):
    help = (
        "Fence a worker's partitions and ask it to stop; other workers continue from the committed offsets. "
        "A dry run unless --execute."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("worker", metavar="WORKER", help="Worker id, as shown by offsets_status.")
        add_execute(parser)

    def run(self, **options: Any) -> None:
        request = request_of(options)
        shown = eviction.preview(options["worker"], request.actor)
        data: dict[str, Any] = {"worker": shown.target, "executed": options["execute"], "detail": shown.text}
        if options["execute"]:
            action = eviction.evict(shown.target, request, owned=shown.owned)
            data["action_id"] = action.pk

        def show(console: Console) -> None:
            console.print(escape(shown.text))
            done = "Done." if options["execute"] else "Dry run: nothing was changed. Add --execute --reason 'why'."
            console.print(done)

        self.emit(data, show, as_json=options["json"])
