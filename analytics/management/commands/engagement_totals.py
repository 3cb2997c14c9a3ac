"""`manage.py engagement_totals`: show or export the counted events."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.table import Table

from analytics.export import write_counts
from analytics.metrics_store import MetricsStore
from offsets.errors import RefusedError
from offsets.management.base import OperatorCommand, non_negative
from offsets.models import PartitionCheckpoint


class Command(OperatorCommand):
    help = "Show counted events: all, or those of one content item or user. Or export all counts as CSV."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--content", type=non_negative, metavar="ID", help="Only this content item.")
        which.add_argument("--user", type=non_negative, metavar="ID", help="Only this user.")
        which.add_argument(
            "--export", type=Path, metavar="FILE", help="Write CSV: dimension,id,views,likes,comments,shares"
        )
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group.")
        parser.add_argument("--topic", default="", help="Only this topic.")

    def run(self, **options: Any) -> None:
        group, topic, export = options["group"], options["topic"], options["export"]
        self._refuse_unknown(group, topic)
        store = MetricsStore()
        rows = 0
        if export is not None:
            if not export.resolve().parent.is_dir():
                raise RefusedError(f"--export: folder {export.parent} does not exist.")
            rows = write_counts(export, store.export(group, topic))
        if options["content"] is not None:
            what, totals = (
                f"content {options['content']}",
                store.entity_totals("content", options["content"], group, topic),
            )
        elif options["user"] is not None:
            what, totals = f"user {options['user']}", store.entity_totals("user", options["user"], group, topic)
        else:
            what, totals = "all events", store.totals(group, topic)
        self.emit(
            {"totals": totals}, lambda console: _show(console, what, totals, export, rows), as_json=options["json"]
        )

    @staticmethod
    def _refuse_unknown(group: str, topic: str) -> None:
        """A misspelt name must not show zeros; the configured group may not have counted anything yet."""
        known = PartitionCheckpoint.objects.filter(group_id=group)
        if group != settings.ENGAGEMENT_GROUP and not known.exists():
            raise RefusedError(f"Group {group!r} has never claimed a partition. Check --group.")
        if topic and not known.filter(topic=topic).exists():
            raise RefusedError(f"Group {group!r} has never read topic {topic!r}. Check --topic.")


def _show(console: Console, what: str, totals: dict[str, int], export: Path | None, rows: int) -> None:
    table = Table(title=f"Counted: {what}")
    for name in (*totals, "all"):
        table.add_column(name, justify="right")
    table.add_row(*(f"{count:,}" for count in totals.values()), f"{sum(totals.values()):,}")
    console.print(table)
    if export is not None:
        console.print(f"Wrote {rows:,} rows to {export}.")
