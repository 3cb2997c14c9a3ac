"""What `pause_partitions` and `resume_partitions` share: they set the desired state of the partitions in scope."""

from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.actions import pause
from offsets.actions.guards import Request
from offsets.actions.pause import ActionKind
from offsets.errors import RefusedError
from offsets.management.base import EXIT_REFUSED, OperatorCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of
from offsets.models import PartitionCheckpoint


class DesiredStateCommand(OperatorCommand):
    """Dry run unless `--execute`. Each partition is changed only if it is as the command has just previewed it."""

    kind: ActionKind

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        execute, request = options["execute"], request_of(options)
        chosen = in_scope(options["group"], options["topic"], everything=options["all"])
        items = [self._item(checkpoint, request, execute=execute) for checkpoint in chosen]
        data = {
            "action": self.kind.value,
            "group": options["group"],
            "executed": execute,
            "count": sum(item["outcome"] in ("applied", "would apply") for item in items),
            "items": items,
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return EXIT_REFUSED if any(item["outcome"] == "refused" for item in items) else None

    def _item(self, checkpoint: PartitionCheckpoint, request: Request, *, execute: bool) -> dict[str, Any]:
        item: dict[str, Any] = {
            "checkpoint_id": checkpoint.pk,
            "topic": checkpoint.topic,
            "partition": checkpoint.partition,
        }
        if checkpoint.desired_state == self.kind.target_state:
            # Not a refusal: a scope may include partitions that are already in this state.
            return item | {"outcome": "unchanged", "detail": f"Already {checkpoint.desired_state}."}
        try:
            preview = pause.preview(self.kind, checkpoint.pk, request.actor)
            item |= {"detail": preview.text, "before": preview.before, "after": preview.after}
            if not execute:
                return item | {"outcome": "would apply"}
            action = pause.set_paused(self.kind, checkpoint.pk, request, seen=preview.seen)
        except RefusedError as error:
            return item | {"outcome": "refused", "detail": str(error)}
        return item | {"outcome": "applied", "action_id": action.pk, "detail": action.detail}


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table("Partition", "Outcome", "Detail")
    for item in data["items"]:
        table.add_row(f"{item['topic']}-{item['partition']}", item["outcome"], escape(item["detail"]))
    console.print(table)
    if not data["executed"]:
        console.print("Dry run: nothing was changed. Add --execute --reason 'why' to do it.")
