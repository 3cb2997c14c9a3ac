"""`manage.py incidents`: cause, duration and timeline of incidents."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db.models import F
from rich.console import Console
from rich.markup import escape

from offsets.management.base import OperatorCommand, positive
from offsets.models import Incident
from offsets.monitoring.incidents import as_json
from offsets.text import duration


class Command(OperatorCommand):
    help = "List incidents, open ones first: cause, affected ranges, timeline, time to detect and to recover."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (%(default)s).")
        parser.add_argument("--open", action="store_true", help="Only open incidents.")
        parser.add_argument("--kind", default="", help="Filter by kind, e.g. worker_dead.")
        parser.add_argument("--limit", type=positive, default=50, help="Maximum number to list (default: %(default)s).")

    def run(self, **options: Any) -> None:
        rows = Incident.objects.filter(group_id=options["group"])
        if options["open"]:
            rows = rows.filter(closed_at__isnull=True)
        if options["kind"]:
            rows = rows.filter(kind=options["kind"])
        newest = rows.order_by(F("closed_at").desc(nulls_first=True), "-pk")[: options["limit"]]
        items = [as_json(row) for row in newest]
        data = {"count": rows.count(), "items": items}
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])


def _show(console: Console, data: dict[str, Any]) -> None:
    if not data["items"]:
        console.print("No incidents.")
    for item in data["items"]:
        state = "open" if item["closed_at"] is None else f"recovered in {duration(item['recover_seconds'])}"
        head = f"{item['id']} {item['severity']} {item['kind']} {item['subject']}"
        console.print(f"[bold]{escape(head)}[/]: {state}, detected in {duration(item['detect_seconds'])}")
        console.print(f"  {escape(item['summary'])}")
        for span in item["ranges"][:5]:
            offsets = f"[{span['start']:,}, {span['end']:,})"
            console.print(escape(f"  {span['topic']}-{span['partition']} {offsets} {span['kind']}"))
        for event in item["timeline"][-5:]:
            console.print(escape(f"  {event['at']:%H:%M:%S} {event['source']}: {event['text']}"))
