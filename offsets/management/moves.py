"""Shared by the commands that move offsets: preview, table, execution."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.actions import moves
from offsets.actions.guards import Actor, Source
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move, MovePreview
from offsets.management.base import DRY_RUN, OperatorCommand
from offsets.models import OperatorAction


class MoveCommand(OperatorCommand):
    """Dry run unless `--execute`. All partitions move or none; one that changed since its preview is refused."""

    def show_and_apply(
        self,
        kind: MoveKind,
        wanted: Sequence[Move],
        *,
        group: str,
        reason: str,
        execute: bool,
        as_json: bool,
        warnings: Sequence[str] = (),
    ) -> list[MovePreview]:
        """Show the moves and, with `execute`, apply them. Raises RefusedError if nothing was changed."""
        actor = Actor.of_operating_system()
        previews = moves.preview(kind, wanted, actor)
        done: Sequence[OperatorAction] = ()
        if execute:
            seen = [
                Move(m.checkpoint_id, m.target, p.seen, m.baseline, m.undoes)
                for m, p in zip(wanted, previews, strict=True)
            ]
            done = moves.move_partitions(kind, seen, actor=actor, reason=reason, source=Source.COMMAND)
        data = {
            "action": kind.value,
            "group": group,
            "executed": execute,
            "change_id": str(done[0].change_id) if done else None,
            "warnings": list(warnings),
            "items": [_item(preview, done[index] if done else None) for index, preview in enumerate(previews)],
        }
        self.emit(data, lambda console: _show(console, data), as_json=as_json)
        return previews


def _item(preview: MovePreview, action: OperatorAction | None) -> dict[str, Any]:
    """After an action, its own figures: a running partition may have advanced since the preview."""
    return {
        "checkpoint_id": preview.checkpoint_id,
        "topic": preview.topic,
        "partition": preview.partition,
        "before": action.before if action else preview.before,
        "after": action.after if action else preview.after,
        "log_start_offset": preview.bounds.start,
        "log_end_offset": preview.bounds.end,
        "action_id": action.pk if action else None,
        "detail": action.detail if action else preview.text,
    }


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table()
    for column in ("Partition", "Before", "After", "To count", "Deduplicated", "Counted twice", "Lost"):
        table.add_column(column, justify="left" if column == "Partition" else "right")
    for item in data["items"]:
        before, after = item["before"], item["after"]
        numbers = [after.get(name, 0) for name in ("to_count", "deduplicated", "duplicated", "lost")]
        table.add_row(
            f"{item['topic']}-{item['partition']}",
            f"{before['next_offset']:,}",
            f"{after['next_offset']:,}",
            *(f"{number:,}" for number in numbers),
        )
    console.print(table)
    for text in data["warnings"]:
        console.print(f"[yellow]{escape(text)}[/]")
    for item in data["items"]:
        console.print(escape(item["detail"]))
    if data["executed"]:
        console.print(f"Done. Undo with: reset_offsets --undo {data['change_id']}")
    else:
        console.print(DRY_RUN)
