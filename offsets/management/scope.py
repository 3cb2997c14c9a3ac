"""Shared by the commands that act on partitions: the options that select them, `--execute` and `--reason`."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from offsets.errors import RefusedError
from offsets.models import PartitionCheckpoint


def add_scope(parser: CommandParser) -> None:
    parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (default: %(default)s).")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="TOPIC[:0,1]",
        help="Partitions to act on. Repeatable. Without numbers: all partitions of the topic.",
    )
    parser.add_argument("--all", "--all-topics", action="store_true", help="All partitions of the group.")


def add_execute(parser: CommandParser) -> None:
    parser.add_argument("--execute", action="store_true", help="Apply the change. Without it the command is a dry run.")
    parser.add_argument("--reason", default="", help="Why; saved in the audit log. Required with --execute.")


def reason_of(options: Mapping[str, Any]) -> str:
    """The reason, stripped. Raises RefusedError if `--execute` is given without one."""
    reason: str = options["reason"].strip()
    if options["execute"] and not reason:
        raise RefusedError("--execute needs --reason. It is saved in the audit log.")
    return reason


def parse_scope(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse `topic:0,1` or `topic`. No numbers mean all partitions of the topic. Raises RefusedError."""
    topic, colon, numbers = text.partition(":")
    try:
        partitions = tuple(sorted({int(number) for number in numbers.split(",")})) if colon else ()
    except ValueError:
        partitions = (-1,)
    if not topic or any(number < 0 for number in partitions):
        raise RefusedError(f"Invalid scope {text!r}. Use a topic, or a topic and partitions, e.g. engagement:0,1.")
    return topic, partitions


def in_scope(group_id: str, scopes: Sequence[str], *, everything: bool) -> list[PartitionCheckpoint]:
    """The live checkpoints that the options select. Raises RefusedError if one does not exist."""
    if everything == bool(scopes):
        raise RefusedError("Select partitions with --topic TOPIC:0,1, or the whole group with --all, but not both.")
    live = PartitionCheckpoint.objects.filter(group_id=group_id, retired_at__isnull=True)
    checkpoints = {(row.topic, row.partition): row for row in live}
    if not checkpoints:
        raise RefusedError(f"Group {group_id!r} has no partitions yet.")
    chosen = dict(checkpoints) if everything else {}
    for topic, partitions in map(parse_scope, scopes):
        wanted = [(topic, number) for number in partitions] or [key for key in checkpoints if key[0] == topic]
        unknown = [f"{name}-{number}" for name, number in wanted if (name, number) not in checkpoints]
        if unknown or not wanted:
            raise RefusedError(f"Group {group_id!r} has no {', '.join(unknown) or topic}. Nothing was changed.")
        chosen |= {key: checkpoints[key] for key in wanted}
    return [chosen[key] for key in sorted(chosen)]
