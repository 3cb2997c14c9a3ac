"""What `pause_partitions` and `resume_partitions` share: both set what is wanted of the partitions in a scope."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.commands import EXIT_REFUSED, OperatorCommand
from offsets.errors import RefusedError
from offsets.models import PartitionCheckpoint
from offsets.recovery import actions
from offsets.recovery.actions import ActionKind, Actor, Source


def parse_scope(text: str) -> tuple[str, tuple[int, ...]]:
    """`topic:0,1` or `topic`; no numbers mean all partitions of the topic. Raises RefusedError."""
    topic, colon, numbers = text.partition(":")
    try:
        partitions = tuple(sorted({int(number) for number in numbers.split(",")})) if colon else ()
    except ValueError:
        partitions = (-1,)
    if not topic or any(number < 0 for number in partitions):
        raise RefusedError(f"{text!r} is no scope. Write a topic and partition numbers, as in engagement:0,1.")
    return topic, partitions


def in_scope(group_id: str, scopes: Sequence[str], *, everything: bool) -> list[PartitionCheckpoint]:
    """The live checkpoints that the options name. Raises RefusedError when one of them does not exist."""
    if everything == bool(scopes):
        raise RefusedError("Name the partitions with --topic TOPIC:0,1, or all of the group with --all; not both.")
    live = PartitionCheckpoint.objects.filter(group_id=group_id, retired_at__isnull=True)
    checkpoints = {(one.topic, one.partition): one for one in live}
    if not checkpoints:
        raise RefusedError(f"The group {group_id!r} has no partitions yet.")
    chosen = dict(checkpoints) if everything else {}
    for topic, partitions in map(parse_scope, scopes):
        wanted = [(topic, number) for number in partitions] or [key for key in checkpoints if key[0] == topic]
        unknown = [f"{name}-{number}" for name, number in wanted if (name, number) not in checkpoints]
        if unknown or not wanted:
            raise RefusedError(f"The group {group_id!r} has no {', '.join(unknown) or topic}. Nothing was changed.")
        chosen |= {key: checkpoints[key] for key in wanted}
    return [chosen[key] for key in sorted(chosen)]


class DesiredStateCommand(OperatorCommand):
    """Dry run unless `--execute`. Each partition is changed only if it is as the command has just seen it."""

    kind: ActionKind

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (%(default)s).")
        parser.add_argument(
            "--topic",
            action="append",
            default=[],
            metavar="TOPIC[:0,1]",
            help="Partitions to act on; may be given again. Without numbers: all of the topic.",
        )
        parser.add_argument("--all", action="store_true", help="All partitions of the group.")
        parser.add_argument("--execute", action="store_true", help="Do it. Without this, only say what would happen.")
        parser.add_argument("--reason", default="", help="Why; kept with the action. Required with --execute.")

    def run(self, **options: Any) -> int | None:
        execute, reason = options["execute"], options["reason"].strip()
        if execute and not reason:
            raise RefusedError("--execute needs --reason: it is kept with the action.")
        chosen = in_scope(options["group"], options["topic"], everything=options["all"])
        actor = Actor.of_operating_system()
        items = [self._item(checkpoint, actor, reason, execute=execute) for checkpoint in chosen]
        data = {
            "action": self.kind.value,
            "group": options["group"],
            "executed": execute,
            "count": sum(item["outcome"] in ("applied", "would apply") for item in items),
            "items": items,
        }
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])
        return EXIT_REFUSED if any(item["outcome"] == "refused" for item in items) else None

    def _item(self, checkpoint: PartitionCheckpoint, actor: Actor, reason: str, *, execute: bool) -> dict[str, Any]:
        item: dict[str, Any] = {
            "checkpoint_id": checkpoint.pk,
            "topic": checkpoint.topic,
            "partition": checkpoint.partition,
        }
        if checkpoint.desired_state == self.kind.target_state:
            # Nothing is asked of this one: that is no refusal when a whole topic was named.
            return item | {"outcome": "unchanged", "detail": f"Already {checkpoint.desired_state}."}
        try:
            preview = actions.preview(self.kind, checkpoint.pk, actor)
            item |= {"detail": preview.text, "before": preview.before, "after": preview.after}
            if not execute:
                return item | {"outcome": "would apply"}
            action = actions.apply(
                self.kind, checkpoint.pk, actor=actor, reason=reason, source=Source.COMMAND, seen=preview.seen
            )
        except RefusedError as error:
            return item | {"outcome": "refused", "detail": str(error)}
        return item | {"outcome": "applied", "action_id": action.pk, "detail": action.detail}


def _show(console: Console, data: dict[str, Any]) -> None:
    table = Table("Partition", "Outcome", "Detail")
    for item in data["items"]:
        table.add_row(f"{item['topic']}-{item['partition']}", item["outcome"], escape(item["detail"]))
    console.print(table)
    if not data["executed"]:
        console.print("Dry run: nothing was changed. Add --execute --reason 'why' to do it.")
