"""What `reset_offsets`, `skip_offsets`, `accept_loss` and `rebuild_partition` share: preview, table, execution."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.actions import moves
from offsets.actions.guards import Request
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move, MovePreview
from offsets.management.base import OperatorCommand
from offsets.models import OperatorAction


class MoveCommand(OperatorCommand):
    """Dry run unless `--execute`; then moves all partitions or none, each only if it is as it was just previewed."""

    def show_and_apply(
        self,
        kind: MoveKind,
        wanted: Sequence[Move],
        *,
        group: str,
        request: Request,
        execute: bool,
        as_json: bool,
        warnings: Sequence[str] = (),
    ) -> list[MovePreview]:
        """Raises RefusedError, having changed nothing."""
        previews = moves.preview(kind, wanted, request.actor)
        done: Sequence[OperatorAction] = ()
        if execute:
            seen = [replace(m, seen=p.seen) for m, p in zip(wanted, previews, strict=True)]
            done = moves.move_partitions(kind, seen, request)
        data = {
            "action": kind.value,
            "group": group,
            "executed": execute,
            "change_id": str(done[0].change_id) if done else None,
            "warnings": list(warnings),
            "items": [_item(p, done[at] if done else None) for at, p in enumerate(previews)],
        }
        self.emit(data, lambda console: _show(console, data), as_json=as_json)
        return previews


def _item(preview: MovePreview, action: OperatorAction | None) -> dict[str, Any]:
    """With `action`, as it was when it was applied: a running partition may have advanced since the preview."""
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
            *("unknown" if number is None else f"{number:,}" for number in numbers),
        )
    console.print(table)
    for text in data["warnings"]:
        console.print(f"[yellow]{escape(text)}[/]")
    for item in data["items"]:
        console.print(escape(item["detail"]))
    if data["executed"]:
        console.print(f"Done. Undo with: reset_offsets --undo {data['change_id']}")
    else:
        console.print("Dry run: nothing was changed. Add --execute --reason 'why' to do it.")
