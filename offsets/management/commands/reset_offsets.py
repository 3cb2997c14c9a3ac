"""`manage.py reset_offsets`: the options of kafka-consumer-groups, on a group that may be running."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from offsets.actions import logs as kafka_logs
from offsets.actions.logs import Log
from offsets.actions.move_plans import MoveKind, clamped
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.kafka.admin import KafkaAdmin
from offsets.management import reset_targets
from offsets.management.base import non_negative
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, request_of
from offsets.management.undo import show_and_undo
from offsets.models import PartitionCheckpoint
from offsets.text import InvalidTextError, file_text
from offsets.types import TopicPartition

_MAX_FILE_BYTES = 16 * 1024 * 1024


class Command(MoveCommand):
    help = (
        "Seek the partitions of a group, running or not. A dry run unless --execute. Under exactly_once, offsets that "
        "are read again are not counted again; a seek forward records the offsets between as skipped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--to-offset", type=non_negative, metavar="N")
        where.add_argument("--to-earliest", action="store_true", help="The start of the log.")
        where.add_argument("--to-latest", action="store_true", help="The end of the log.")
        where.add_argument("--to-current", action="store_true", help="The current offset; useful with --export.")
        where.add_argument("--shift-by", type=int, metavar="N", help="By N offsets; negative: backward.")
        where.add_argument(
            "--to-datetime", metavar="MOMENT", help="First record since this time: ISO 8601 with a zone."
        )
        where.add_argument("--by-duration", metavar="P1DT2H", help="First record within this duration.")
        where.add_argument("--from-file", metavar="CSV", help="Lines of topic,partition,offset; - for standard input.")
        where.add_argument("--undo", metavar="ID", help="Undo an action, or a change of several.")
        parser.add_argument("--export", metavar="CSV", help="Write the targets to a file; - for standard output.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        request = request_of(options)
        if options["undo"]:
            show_and_undo(self, options, request)
            return None
        rows, places = self._places(options)
        logs = kafka_logs.logs_of(rows)
        wanted, warnings = _clamped(rows, places, logs)
        if options["export"]:
            self._export(options["export"], {_tp(row): move.target for row, move in zip(rows, wanted, strict=True)})
            if not options["execute"]:
                return None
        # A seek to the current offset may end a halt; a partition that neither moves nor is halted is left out.
        wanted = [m for row, m in zip(rows, wanted, strict=True) if m.target != row.next_offset or row.halt_reason]
        if not wanted:
            warnings = [*warnings, "Every partition is already there. Nothing to do."]
        self.show_and_apply(
            MoveKind.SEEK,
            wanted,
            group=options["group"],
            request=request,
            execute=options["execute"] and bool(wanted),
            as_json=options["json"],
            warnings=warnings,
        )
        return None

    def _places(self, options: Mapping[str, Any]) -> tuple[list[PartitionCheckpoint], dict[TopicPartition, int]]:
        """The partitions in scope, and the target of each, not yet clamped to the log."""
        if options["from_file"]:
            listed = reset_targets.read_csv(_read(options["from_file"]), options["group"])
            scopes = [f"{tp.topic}:{tp.partition}" for tp in listed]
            return in_scope(options["group"], scopes, everything=False), listed
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        return rows, _targets(options, rows)

    def _export(self, name: str, places: Mapping[TopicPartition, int]) -> None:
        text = reset_targets.write_csv(places)
        if name == "-":
            self.stdout.write(text, ending="")
            return
        try:
            Path(name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise RefusedError(f"{name} cannot be written: {error.strerror}.") from error


def _tp(row: PartitionCheckpoint) -> TopicPartition:
    return TopicPartition(row.topic, row.partition)


def _targets(options: Mapping[str, Any], rows: Sequence[PartitionCheckpoint]) -> dict[TopicPartition, int]:
    partitions = [_tp(row) for row in rows]
    if options["to_offset"] is not None:
        return dict.fromkeys(partitions, options["to_offset"])
    if options["to_earliest"]:
        return dict.fromkeys(partitions, 0)
    if options["to_latest"]:
        return dict.fromkeys(partitions, reset_targets.MAX_OFFSET)
    if options["shift_by"] is not None:
        return {_tp(row): row.next_offset + options["shift_by"] for row in rows}
    now = datetime.now(UTC)
    if options["to_datetime"] is not None:
        return KafkaAdmin().offsets_for_time(partitions, reset_targets.timestamp_ms(options["to_datetime"], now))
    if options["by_duration"] is not None:
        return KafkaAdmin().offsets_for_time(partitions, reset_targets.duration_ms(options["by_duration"], now))
    return {_tp(row): row.next_offset for row in rows}


def _clamped(
    rows: Sequence[PartitionCheckpoint], places: Mapping[TopicPartition, int], logs: Mapping[int, Log]
) -> tuple[list[Move], list[str]]:
    """Clamp each target to its log, as kafka-consumer-groups does; with a warning for an explicit target."""
    wanted, warnings = [], []
    for row in rows:
        if row.pk not in logs or _tp(row) not in places:
            raise RefusedError(f"Cannot read the log bounds of {_tp(row)}: the topic was deleted, or it has no leader.")
        asked, bounds = places[_tp(row)], logs[row.pk].bounds
        target = clamped(asked, bounds)
        if target != asked and asked not in (0, reset_targets.MAX_OFFSET):
            warnings.append(
                f"{_tp(row)}: {asked:,} is outside of the log ({bounds.start:,} to {bounds.end:,}); using {target:,}."
            )
        wanted.append(Move(row.pk, target))
    return wanted, warnings


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1) if name == "-" else _head(Path(name))
        if len(raw) > _MAX_FILE_BYTES:
            raise RefusedError(f"{name} is larger than {_MAX_FILE_BYTES >> 20} MiB.")
        return file_text(raw)
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror}.") from error
    except InvalidTextError as error:
        raise RefusedError(f"{name}, {error}.") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES + 1)
