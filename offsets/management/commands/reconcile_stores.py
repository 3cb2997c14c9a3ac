"""`manage.py reconcile_stores`: compare the ledger with another offset store, and make them equal."""

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
        "Show the drift between the ledger and another offset store. --towards postgres seeks the group to the store's "
        "offsets; --towards store writes the ledger's offsets to the store."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument(
            "--store", default="kafka", choices=("kafka", "redis", "file"), help="Offset store (default: %(default)s)."
        )
        parser.add_argument("--towards", choices=("postgres", "store"), help="Which side to update.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        reason = reason_of(options)
        everything = options["all"] or not options["topic"]
        rows = in_scope(options["group"], options["topic"], everything=everything)
        drifts = reconcile.compare(options["group"], options["store"], [row.pk for row in rows])
        if options["towards"] == "postgres":
            self._seek(options, drifts, reason)
            return None
        differing = [drift for drift in drifts if drift.offsets != 0]
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
            "items": [_item(drift) for drift in drifts],
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return None

    def _seek(self, options: Mapping[str, Any], drifts: Sequence[Drift], reason: str) -> None:
        wanted = reconcile.seeks(drifts)
        self.show_and_apply(
            MoveKind.SEEK,
            wanted,
            group=options["group"],
            reason=reason,
            execute=options["execute"] and bool(wanted),
            as_json=options["json"],
            warnings=[] if wanted else ["The store has no different offset. Nothing to do."],
        )


def _item(drift: Drift) -> dict[str, Any]:
    return {
        "topic": drift.topic_partition.topic,
        "partition": drift.topic_partition.partition,
        "postgres": drift.ledger_next_offset,
        "store": drift.stored,
        "store_epoch": drift.stored_epoch,
        "drift": drift.offsets,
    }


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table(title=f"{data['group']}: ledger and {data['store']} store")
    for column in ("Partition", "Ledger", data["store"].capitalize(), "Drift"):
        table.add_column(column, justify="left" if column == "Partition" else "right")
    for item in data["items"]:
        stored, drift = item["store"], item["drift"]
        table.add_row(
            f"{item['topic']}-{item['partition']}",
            f"{item['postgres']:,}",
            "none" if stored is None else f"{stored:,}",
            "unknown" if drift is None else f"{drift:+,}",
        )
    console.print(table)
    if data["executed"]:
        console.print("Done. While the group is active, its workers write the offsets to Kafka within a second.")
    else:
        console.print("Nothing was changed. To apply, add --towards postgres or store, and --execute --reason '…'.")
