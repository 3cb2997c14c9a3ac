"""Options that the commands on partitions share: the scope, `--execute` and `--reason`."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from offsets.actions.guards import Actor, Request, Source
from offsets.errors import RefusedError
from offsets.models import PartitionCheckpoint
from offsets.text import whole_number


def add_scope(parser: CommandParser) -> None:
    parser.add_argument("--group", default=settings.ENGAGEMENT_GROUP, help="Consumer group (%(default)s).")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="TOPIC[:0,1]",
        help="Partitions to act on; repeatable. Without numbers: all of the topic.",
    )
    parser.add_argument("--all", "--all-topics", action="store_true", help="All partitions of the group.")


def add_execute(parser: CommandParser) -> None:
    parser.add_argument("--execute", action="store_true", help="Apply the changes. Default: dry run.")
    parser.add_argument("--reason", default="", help="Saved in the audit log. Required with --execute.")


def request_of(options: Mapping[str, Any]) -> Request:
    """Who runs the command, and why. Raises RefusedError for --execute without a reason."""
    request = Request(Actor.of_operating_system(), options["reason"], Source.COMMAND)
    if options["execute"] and not options["reason"].strip():
        raise RefusedError("--execute needs --reason. It is saved in the audit log.")
    return request


def parse_scope(text: str) -> tuple[str, tuple[int, ...]]:
    """`topic:0,1` or `topic`; no numbers mean all partitions of the topic. Raises RefusedError."""
    topic, colon, numbers = text.partition(":")
    partitions = [whole_number(number.strip()) for number in numbers.split(",")] if colon else []
    if not topic or None in partitions:
        raise RefusedError(f"Invalid scope {text!r}. Use a topic and partition numbers, e.g. engagement:0,1.")
    return topic, tuple(sorted({number for number in partitions if number is not None}))


def in_scope(group_id: str, scopes: Sequence[str], *, everything: bool) -> list[PartitionCheckpoint]:
    """The live checkpoints that the options name. Raises RefusedError when one of them does not exist."""
    if everything == bool(scopes):
        raise RefusedError("Select partitions with --topic TOPIC:0,1, or the whole group with --all, but not both.")
    live = PartitionCheckpoint.objects.live(group_id)
    checkpoints = {(row.topic, row.partition): row for row in live}
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
