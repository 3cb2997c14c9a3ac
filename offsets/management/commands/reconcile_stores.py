"""`manage.py reconcile_stores`: compare the ledger with another store, and bring them together."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.table import Table

from offsets.actions import reconcile
from offsets.actions.guards import Actor, Source
from offsets.actions.move_plans import MoveKind
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of
from offsets.stores.drift import Drift


class Command(MoveCommand):
    help = (
        "Show how far another store stands from the ledger. --towards postgres makes it a seek of the group; "
        "--towards store writes the ledger's offsets there."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument("--store", default="kafka", choices=("kafka", "redis", "file"), help="(%(default)s)")
        parser.add_argument("--towards", choices=("postgres", "store"), help="Who is to follow whom.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        reason = reason_of(options)
        everything = options["all"] or not options["topic"]
        rows = in_scope(options["group"], options["topic"], everything=everything)
        found = reconcile.compare(options["group"], options["store"], [row.pk for row in rows])
        if options["towards"] == "postgres":
            self._seek(options, found, reason)
            return None
        differing = [one for one in found if one.offsets != 0]
        executes = options["execute"] and options["towards"] == "store" and bool(differing)
        if executes:
            reconcile.write_to_store(
                *(options["store"], differing),
                actor=Actor.of_operating_system(),
                reason=reason,
                source=Source.COMMAND,
            )
        data = {
            "group": options["group"],
            "store": options["store"],
            "executed": executes,
            "items": [_item(one) for one in found],
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return None

    def _seek(self, options: Mapping[str, Any], found: Sequence[Drift], reason: str) -> None:
        wanted = reconcile.seeks(found)
        self.show_and_apply(
            MoveKind.SEEK,
            wanted,
            group=options["group"],
            reason=reason,
            execute=options["execute"] and bool(wanted),
            as_json=options["json"],
            warnings=[] if wanted else ["The store holds nothing that differs; nothing is to be done."],
        )


def _item(one: Drift) -> dict[str, Any]:
    return {
        "topic": one.topic_partition.topic,
        "partition": one.topic_partition.partition,
        "postgres": one.ledger_next_offset,
        "store": one.stored,
        "store_epoch": one.stored_epoch,
        "drift": one.offsets,
    }


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table(title=f"{data['group']}: the ledger and the {data['store']} store")
    for column in ("Partition", "Ledger", data["store"].capitalize(), "Drift"):
        table.add_column(column, justify="left" if column == "Partition" else "right")
    for item in data["items"]:
        held, away = item["store"], item["drift"]
        table.add_row(
            f"{item['topic']}-{item['partition']}",
            f"{item['postgres']:,}",
            "nothing" if held is None else f"{held:,}",
            "unknown" if away is None else f"{away:+,}",
        )
    console.print(table)
    if data["executed"]:
        console.print("Done: the store is told. While the group is active its owners write to Kafka, within a second.")
    else:
        console.print("Nothing was changed. Add --towards postgres or --towards store, --execute and --reason 'why'.")
