"""`manage.py retire_partitions`: end the watching of partitions that are gone or no longer wanted."""

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape

from offsets.actions import retire
from offsets.actions.retire import RetirePreview
from offsets.errors import RefusedError
from offsets.management.base import OperatorCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of
from offsets.management.undo import show_and_undo
from offsets.models import OperatorAction


class Command(OperatorCommand):
    help = (
        "Retire a topic's partitions, or with --all the whole group: no sampling, no lag, no incidents and no replays "
        "any more. Their counts stay in all totals. Use it when the topic was deleted or is no longer read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument("--undo", metavar="ID", help="Bring back what an action, or a change of several, retired.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        request = request_of(options)
        if options["undo"]:
            if options["topic"] or options["all"]:
                raise RefusedError("--undo names its partitions itself: leave --topic and --all out.")
            show_and_undo(self, options, request)
            return None
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        previews = retire.preview(rows, request.actor)
        done: Sequence[OperatorAction] = ()
        if options["execute"]:
            done = retire.retire(options["group"], {shown.checkpoint_id: shown.seen for shown in previews}, request)
        data = {
            "action": retire.KIND,
            "group": options["group"],
            "executed": options["execute"],
            "change_id": str(done[0].change_id) if done else None,
            "text": retire.summary(previews),
            "items": _items(previews, {action.checkpoint_id: action for action in done}),
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return None


def _items(previews: Sequence[RetirePreview], done: dict[int | None, OperatorAction]) -> list[dict[str, Any]]:
    items = []
    for shown in previews:
        item, action = shown.as_json(), done.get(shown.checkpoint_id)
        item |= {"action_id": action.pk if action else None, "detail": action.detail if action else shown.text}
        items.append({name: value for name, value in item.items() if name not in ("kind", "target", "text", "seen")})
    return items


def _show(console: Console, data: dict[str, Any]) -> None:
    for item in data["items"]:
        console.print(escape(item["detail"]))
    console.print(escape(data["text"]))
    if data["executed"]:
        console.print(f"Done. Undo with: retire_partitions --undo {data['change_id']} --execute --reason 'why'")
    else:
        console.print("Dry run: nothing was changed. Add --execute --reason 'why' to do it.")
