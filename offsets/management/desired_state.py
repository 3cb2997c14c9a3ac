"""Shared by `pause_partitions` and `resume_partitions`: both set the desired state of partitions."""

from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.actions import pause
from offsets.actions.guards import Actor, Source
from offsets.actions.pause import ActionKind
from offsets.errors import RefusedError
from offsets.management.base import DRY_RUN, EXIT_REFUSED, OperatorCommand
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of
from offsets.models import PartitionCheckpoint


class DesiredStateCommand(OperatorCommand):
    """Dry run unless `--execute`. A partition that changed since its preview is refused."""

    kind: ActionKind

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        execute, reason = options["execute"], reason_of(options)
        chosen = in_scope(options["group"], options["topic"], everything=options["all"])
        actor = Actor.of_operating_system()
        items = [self._item(checkpoint, actor, reason, execute=execute) for checkpoint in chosen]
        data = {
            "action": self.kind.value,
            "group": options["group"],
            "executed": execute,
            "count": sum(item["outcome"] in ("applied", "would apply") for item in items),
            "items": items,
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return EXIT_REFUSED if any(item["outcome"] == "refused" for item in items) else None

    def _item(self, checkpoint: PartitionCheckpoint, actor: Actor, reason: str, *, execute: bool) -> dict[str, Any]:
        item: dict[str, Any] = {
            "checkpoint_id": checkpoint.pk,
            "topic": checkpoint.topic,
            "partition": checkpoint.partition,
        }
        if checkpoint.desired_state == self.kind.target_state:
            # Not a refusal: with a whole topic in scope, some partitions may already have the state.
            return item | {"outcome": "unchanged", "detail": f"Already {checkpoint.desired_state}."}
        try:
            preview = pause.preview(self.kind, checkpoint.pk, actor)
            item |= {"detail": preview.text, "before": preview.before, "after": preview.after}
            if not execute:
                return item | {"outcome": "would apply"}
            action = pause.set_paused(
                self.kind, checkpoint.pk, actor=actor, reason=reason, source=Source.COMMAND, seen=preview.seen
            )
        except RefusedError as error:
            return item | {"outcome": "refused", "detail": str(error)}
        return item | {"outcome": "applied", "action_id": action.pk, "detail": action.detail}


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table("Partition", "Outcome", "Detail")
    for item in data["items"]:
        table.add_row(f"{item['topic']}-{item['partition']}", item["outcome"], escape(item["detail"]))
    console.print(table)
    if not data["executed"]:
        console.print(DRY_RUN)
