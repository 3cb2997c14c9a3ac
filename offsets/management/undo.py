"""`--undo`, which several commands have."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from offsets.actions import undo
from offsets.actions.guards import Request
from offsets.management.base import OperatorCommand


def show_and_undo(command: OperatorCommand, options: Mapping[str, Any], request: Request) -> None:
    """Print what undoing the action or change `--undo` does; with `--execute`, undo it. Raises RefusedError."""
    undone = undo.find(options["undo"])
    seen = undo.seen_of(undone)
    texts = undo.texts(undone, request.actor)
    done = undo.undo(undone, request, seen=seen) if options["execute"] else []
    data = {
        "action": "undo",
        "executed": options["execute"],
        "change_id": str(done[0].change_id) if done and done[0].change_id else None,
        "items": [{"undoes": action.pk, "detail": text} for action, text in zip(undone, texts, strict=True)],
    }
    last = "Done." if done else "Dry run: nothing was changed. Add --execute --reason 'why' to do it."
    command.emit(data, lambda console: console.print(escape("\n".join([*texts, last]))), as_json=options["json"])
