"""`manage.py verify_offsets`: check the invariants."""

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.table import Table

from offsets.errors import RefusedError
from offsets.management.base import EXIT_AIM_NOT_MET, OperatorCommand
from offsets.models import PartitionCheckpoint
from offsets.monitoring import invariants


class Command(OperatorCommand):
    help = "Check invariants I1 to I6 of a group, while workers run. Exit 1 if any is violated."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP)
        parser.add_argument("--topic", default="")

    def run(self, **options: Any) -> int | None:
        refuse_unknown(options["group"], options["topic"])
        result = invariants.check(options["group"], options["topic"])
        data = {
            "ok": result.ok,
            "invariants": {name: asdict(invariant) for name, invariant in result.invariants.items()},
            "promise": {**asdict(result.promise), "detail": result.promise.detail},
        }
        self.emit(data, lambda console: _show(console, result), as_json=options["json"])
        return None if result.ok else EXIT_AIM_NOT_MET


def refuse_unknown(group: str, topic: str) -> None:
    """An unknown group or topic is a typing error and must not pass the check."""
    known = PartitionCheckpoint.objects.filter(group_id=group)
    if not known.exists():
        raise RefusedError(f"No worker of group {group!r} has ever claimed a partition. Check --group.")
    if topic and not known.filter(topic=topic).exists():
        raise RefusedError(f"Group {group!r} has never read topic {topic!r}. Check --topic.")


def _show(console: Console, result: invariants.InvariantsResult) -> None:
    table = Table(title=f"Invariants of {result.group}")
    for column in ("", "Holds", "Details"):
        table.add_column(column)
    for name, invariant in result.invariants.items():
        table.add_row(name, "[green]yes[/]" if invariant.ok else "[bold red]NO[/]", invariant.detail)
    console.print(table)
    console.print(result.promise.detail)
