"""`manage.py reconcile_stores`: compare the ledger with another store, and reconcile them."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.table import Table

from offsets.actions import reconcile
from offsets.actions.guards import Request
from offsets.actions.move_plans import MoveKind
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of
from offsets.stores.drift import Drift


class Command(MoveCommand):
    help = (
        "Compare another store with the ledger. --towards postgres seeks the group to the store's offsets; "
        "--towards store writes the ledger's offsets to the store."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument(
            "--store",
            default="kafka",
            choices=("kafka", "redis", "file"),
            help="Default: %(default)s.",
        )
        parser.add_argument("--towards", choices=("postgres", "store"), help="Which side to update.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        request = request_of(options)
        everything = options["all"] or not options["topic"]
        rows = in_scope(options["group"], options["topic"], everything=everything)
        drifts = reconcile.compare(options["group"], options["store"], [row.pk for row in rows])
        if options["towards"] == "postgres":
            self._seek(options, drifts, request)
            return None
        differing = [seen for seen in drifts if seen.offsets != 0]
        executes = options["execute"] and options["towards"] == "store" and bool(differing)
        if executes:
            reconcile.write_to_store(options["store"], differing, request)
        data = {
            "group": options["group"],
            "store": options["store"],
            "executed": executes,
            "items": [_item(seen) for seen in drifts],
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return None

    def _seek(self, options: Mapping[str, Any], drifts: Sequence[Drift], request: Request) -> None:
        wanted = reconcile.seeks(drifts)
        self.show_and_apply(
            MoveKind.SEEK,
            wanted,
            group=options["group"],
            request=request,
            execute=options["execute"] and bool(wanted),
            as_json=options["json"],
            warnings=[] if wanted else ["The store does not differ. Nothing to do."],
        )


def _item(seen: Drift) -> dict[str, Any]:
    return {
        "topic": seen.topic_partition.topic,
        "partition": seen.topic_partition.partition,
        "postgres": seen.ledger_next_offset,
        "store": seen.stored,
        "store_epoch": seen.stored_epoch,
        "drift": seen.offsets,
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
        console.print("Done: the store is updated. In an active group, the owners write to Kafka within a second.")
    else:
        console.print("Nothing was changed. Add --towards postgres or --towards store, --execute and --reason 'why'.")
