"""`manage.py offsets_status`: offsets, lag and status of each partition."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.table import Table

from analytics.dashboard.read_model import dashboard_of
from analytics.dashboard.snapshot import PartitionSnapshot, Snapshot
from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.management.base import EXIT_UNAVAILABLE, OperatorCommand
from offsets.management.commands.verify_offsets import refuse_unknown
from offsets.monitoring import lag_samples
from offsets.monitoring.status import Status
from offsets.text import duration
from offsets.types import TopicPartition

_COLOURS = {
    Status.OK: "green",
    Status.LAGGING: "yellow",
    Status.SLOW: "yellow",
    Status.PAUSED: "cyan",
    Status.REWOUND: "cyan",
}
_FIELDS = (
    "topic",
    "partition",
    "owner",
    "epoch",
    "next_offset",
    "log_start_offset",
    "log_end_offset",
    "lag",
    "lag_seconds",
    "status",
    "status_detail",
    "status_since",
    "eta_seconds",
    "dead_letters",
)


class Command(OperatorCommand):
    help = (
        "Show owner, epoch, offsets, lag and status of each partition of a group. Without Kafka: show what the ledger "
        "knows, and exit with 3."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group.")
        parser.add_argument("--topic", default="", help="Only this topic.")

    def run(self, **options: Any) -> int | None:
        group, topic = options["group"], options["topic"]
        refuse_unknown(group, topic)
        status = None
        try:
            bounds = KafkaAdmin().log_bounds(
                TopicPartition(p["topic"], p["partition"]) for p in dashboard_of(group).snapshot()["partitions"]
            )
            lag_samples.sample(group, bounds)
        except ServiceUnavailableError as error:
            self.stderr.write(f"{error} Log ends and lag are unknown.")
            status = EXIT_UNAVAILABLE
        snapshot = dashboard_of(group).snapshot()
        partitions = [p for p in snapshot["partitions"] if not topic or p["topic"] == topic]
        data = {"group": group, "partitions": [_row(p) for p in partitions], "loops": snapshot["loops"]}
        self.emit(data, lambda console: _show(console, snapshot, partitions), as_json=options["json"])
        return status


def _row(partition: PartitionSnapshot) -> dict[str, Any]:
    return {name: partition[name] for name in _FIELDS} | {"ranges": partition["range_offsets"]}  # type: ignore[literal-required]


def _show(console: Console, snapshot: Snapshot, partitions: list[PartitionSnapshot]) -> None:
    console.print(f"{snapshot['group']}: {snapshot['headline']}", soft_wrap=True)
    table = Table()
    for name in ("Partition", "Status", "Owner"):
        table.add_column(name, no_wrap=True)
    for name in ("Epoch", "Next offset", "Log end", "Lag", "Behind"):
        table.add_column(name, justify="right")
    for partition in partitions:
        behind = "–" if partition["lag_seconds"] is None else duration(partition["lag_seconds"])
        table.add_row(
            f"{partition['topic']}-{partition['partition']}",
            f"[{_COLOURS.get(Status.of_label(partition['status']), 'bold red')}]{partition['status']}[/]",
            partition["owner"] or "–",
            str(partition["epoch"]),
            *(
                "–" if n is None else f"{n:,}"
                for n in (partition["next_offset"], partition["log_end_offset"], partition["lag"])
            ),
            behind,
        )
    # Never narrower than its content: a truncated offset is a wrong offset.
    console.print(table, width=max(console.width, 110))
    for partition in partitions:
        if partition["status"] != "OK":
            console.print(
                f"{partition['topic']}-{partition['partition']}: {partition['status_detail']}", soft_wrap=True
            )
    for loop in snapshot["loops"]:
        if loop["late"]:
            console.print(loop["detail"], soft_wrap=True)
