from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.commands import OperatorCommand, non_negative, positive
from offsets.errors import RefusedError
from offsets.models import DeadLetter, PartitionCheckpoint
from offsets.payloads import preview_text
from offsets.types import DeadLetterStatus


class Command(OperatorCommand):
    help = "List records that could not be counted, newest first, with the reason and a preview of their value."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (%(default)s).")
        parser.add_argument("--topic", help="Only of this topic.")
        parser.add_argument("--partition", type=non_negative, help="Only of this partition; needs --topic.")
        parser.add_argument(
            "--status", choices=[status.value for status in DeadLetterStatus], help="Only of this status."
        )
        parser.add_argument("--limit", type=positive, default=100, help="At most so many (%(default)s).")

    def run(self, **options: Any) -> None:
        if options["partition"] is not None and not options["topic"]:
            raise RefusedError("--partition needs --topic.")
        checkpoints = PartitionCheckpoint.objects.filter(group_id=options["group"])
        if options["topic"]:
            checkpoints = checkpoints.filter(topic=options["topic"])
        if options["partition"] is not None:
            checkpoints = checkpoints.filter(partition=options["partition"])
        letters = DeadLetter.objects.filter(checkpoint__in=checkpoints)
        if options["status"]:
            letters = letters.filter(status=options["status"])
        shown = letters.select_related("checkpoint").order_by("-created_at", "-id")[: options["limit"]]
        data = {"count": letters.count(), "items": [_item(letter) for letter in shown]}
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])


def _item(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.pk,
        "topic": letter.checkpoint.topic,
        "partition": letter.checkpoint.partition,
        "offset": letter.offset,
        "status": letter.status,
        "error_code": letter.error_code,
        "error_detail": letter.error_detail,
        "key": _preview(letter.key),
        "value": _preview(letter.value),
        "value_bytes": None if letter.value is None else len(letter.value),
        "record_timestamp": letter.record_timestamp,
        "created_at": letter.created_at,
    }


def _preview(column: bytes | memoryview | None) -> str | None:
    return preview_text(None if column is None else bytes(column))


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
