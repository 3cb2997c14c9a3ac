from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.actions import dead_letters
from offsets.actions.dead_letter_listing import DeadLetterFilter, as_json, listed
from offsets.errors import RefusedError
from offsets.management.base import OperatorCommand, non_negative, positive
from offsets.management.scope import add_execute, request_of
from offsets.models import DeadLetter
from offsets.types import DeadLetterStatus


class Command(OperatorCommand):
    help = (
        "List records that could not be counted, newest first, with the reason and a preview of the value. Show one in "
        "full, count them after all, discard them, or reopen discarded ones. A dry run unless --execute."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (%(default)s).")
        parser.add_argument("--topic", help="Filter by topic.")
        parser.add_argument("--partition", type=non_negative, help="Filter by partition; needs --topic.")
        parser.add_argument("--status", choices=[status.value for status in DeadLetterStatus], help="Filter by status.")
        parser.add_argument("--error-code", default="", help="Filter by error code.")
        parser.add_argument("--id", type=positive, action="append", default=[], help="Filter by id; repeatable.")
        parser.add_argument("--show", type=positive, metavar="ID", help="Show one in full: decoded, and in base64.")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--requeue", action="store_true", help="Count the pending ones that match, where possible.")
        what.add_argument("--discard", action="store_true", help="Never count the pending ones that match.")
        what.add_argument("--reopen", action="store_true", help="Make the discarded ones that match pending again.")
        add_execute(parser)
        parser.add_argument("--limit", type=positive, default=100, help="Maximum number (default: %(default)s).")

    def run(self, **options: Any) -> None:
        if options["partition"] is not None and not options["topic"]:
            raise RefusedError("--partition needs --topic.")
        kind = next(
            (name for name in (dead_letters.REQUEUE, dead_letters.DISCARD, dead_letters.REOPEN) if options[name]), None
        )
        if options["show"]:
            self._show_one(options)
        elif kind:
            self._act(kind, options)
        elif options["execute"]:
            raise RefusedError("--execute needs --requeue, --discard or --reopen.")
        else:
            self._list(options)

    def _list(self, options: Mapping[str, Any]) -> None:
        found = _filter(options, options["status"] or "").rows()
        shown = listed(found.order_by("-created_at", "-id"), options["limit"])
        data = {"count": found.count(), "items": shown}
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])

    def _show_one(self, options: Mapping[str, Any]) -> None:
        letter = DeadLetter.objects.select_related("checkpoint").filter(pk=options["show"]).first()
        if letter is None or letter.checkpoint.group_id != options["group"]:
            raise RefusedError(f"The group {options['group']!r} has no dead letter {options['show']}.")
        data = as_json(letter)

        def show(console: Console) -> None:
            for name, value in data.items():
                console.print(f"[bold]{name}[/]: {escape(str(value))}")

        self.emit(data, show, as_json=options["json"])

    def _act(self, kind: str, options: Mapping[str, Any]) -> None:
        request = request_of(options)
        status = DeadLetterStatus.DISCARDED if kind == dead_letters.REOPEN else DeadLetterStatus.PENDING
        if options["status"] not in (None, status):
            raise RefusedError(f"--{kind} acts on {status} dead letters, not on {options['status']} ones.")
        preview = dead_letters.preview(kind, _filter(options, status), request.actor)
        data: dict[str, Any] = {
            "action": kind,
            "executed": options["execute"],
            "matched": len(preview.ids),
            "changed": 0,
            "still_fail": preview.still_fail,
            "reasons": preview.reasons,
            "detail": preview.text,
        }
        if options["execute"]:
            done = dead_letters.resolve(kind, preview.ids, request)
            data |= {"changed": done.changed, "still_fail": done.still_fail, "action_id": done.action.pk}
        self.emit(data, lambda console: _show_outcome(console, data), as_json=options["json"])


def _filter(options: Mapping[str, Any], status: str) -> DeadLetterFilter:
    return DeadLetterFilter(
        options["group"],
        options["topic"] or "",
        options["partition"],
        options["error_code"],
        status,
        tuple(options["id"]),
    )


def _show_outcome(console: Console, data: Mapping[str, Any]) -> None:
    console.print(escape(data["detail"]))
    for reason in data["reasons"]:
        console.print(f"Still fails: {escape(reason)}")
    if data["executed"]:
        console.print(f"Done: {data['changed']:,} changed, {data['still_fail']:,} unchanged.")
    else:
        console.print("Dry run: nothing was changed. Add --execute --reason 'why' to do it.")


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table("Partition", "Offset", "Status", "Error", "Value")
    for item in data["items"]:
        value = "(tombstone)" if item["value"] is None else item["value"]
        table.add_row(
            f"{item['topic']}-{item['partition']}",
            f"{item['offset']:,}",
            item["status"],
            item["error_code"],
            escape(value),
        )
    console.print(table)
    if len(data["items"]) < data["count"]:
        console.print(f"{len(data['items']):,} of {data['count']:,} shown; raise --limit for more.")
