"""`manage.py reset_offsets`: seek partitions, with the options of kafka-consumer-groups, even while they run."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from rich.markup import escape

from offsets.actions import moves, undo
from offsets.actions.guards import Actor, Source
from offsets.actions.move_plans import MoveKind, clamped
from offsets.actions.moves import Log, Move
from offsets.errors import RefusedError
from offsets.kafka.admin import KafkaAdmin
from offsets.management import reset_targets
from offsets.management.base import DRY_RUN, non_negative
from offsets.management.moves import MoveCommand
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of
from offsets.models import PartitionCheckpoint
from offsets.types import TopicPartition

_MAX_FILE_BYTES = 16 * 1024 * 1024


class Command(MoveCommand):
    help = (
        "Seek partitions of a group, running or not. Dry run unless --execute is given. Under exactly_once, offsets "
        "that are read again are deduplicated; uncounted offsets that a forward seek passes are recorded as skipped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--to-offset", type=non_negative, metavar="N", help="This offset.")
        where.add_argument("--to-earliest", action="store_true", help="The log start.")
        where.add_argument("--to-latest", action="store_true", help="The log end.")
        where.add_argument("--to-current", action="store_true", help="The current next offset; useful with --export.")
        where.add_argument("--shift-by", type=int, metavar="N", help="Forward by N, or backward with a minus sign.")
        where.add_argument(
            "--to-datetime", metavar="TIMESTAMP", help="First record at or after this time. ISO 8601 with a zone."
        )
        where.add_argument("--by-duration", metavar="DURATION", help="First record within this duration, e.g. P1DT2H.")
        where.add_argument("--from-file", metavar="CSV", help="topic,partition,offset per line; - for standard input.")
        where.add_argument("--undo", metavar="ID", help="Undo an action, or a change of several partitions.")
        parser.add_argument("--export", metavar="CSV", help="Write the targets to a file; - for standard output.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        reason = reason_of(options)
        if options["undo"]:
            return self._undo(options, reason)
        rows, targets = self._scope_and_targets(options)
        logs = moves.logs_of(rows)
        wanted, warnings = _clamped(rows, targets, logs)
        if options["export"]:
            self._export(options["export"], {_tp(row): move.target for row, move in zip(rows, wanted, strict=True)})
            if not options["execute"]:
                return None
        # Keep halted partitions that do not move: a seek to the same offset can lift the halt.
        wanted = [m for row, m in zip(rows, wanted, strict=True) if m.target != row.next_offset or row.halt_reason]
        if not wanted:
            warnings = [*warnings, "All partitions are already at the target. Nothing to do."]
        self.show_and_apply(
            MoveKind.SEEK,
            wanted,
            group=options["group"],
            reason=reason,
            execute=options["execute"] and bool(wanted),
            as_json=options["json"],
            warnings=warnings,
        )
        return None

    def _scope_and_targets(
        self, options: Mapping[str, Any]
    ) -> tuple[list[PartitionCheckpoint], dict[TopicPartition, int]]:
        """The partitions in scope and their targets, not yet clamped to the log."""
        if options["from_file"]:
            listed = reset_targets.read_csv(_read(options["from_file"]), options["group"])
            scopes = [f"{tp.topic}:{tp.partition}" for tp in listed]
            return in_scope(options["group"], scopes, everything=False), listed
        rows = in_scope(options["group"], options["topic"], everything=options["all"])
        return rows, _targets(options, rows)

    def _export(self, name: str, targets: Mapping[TopicPartition, int]) -> None:
        text = reset_targets.write_csv(targets)
        if name == "-":
            self.stdout.write(text, ending="")
            return
        try:
            Path(name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise RefusedError(f"Cannot write {name}: {error.strerror}.") from error

    def _undo(self, options: Mapping[str, Any], reason: str) -> int | None:
        actor = Actor.of_operating_system()
        undone = undo.find(options["undo"])
        texts = undo.texts(undone, actor)
        done = undo.undo(undone, actor=actor, reason=reason, source=Source.COMMAND) if options["execute"] else []
        data = {
            "action": "undo",
            "executed": options["execute"],
            "change_id": str(done[0].change_id) if done and done[0].change_id else None,
            "items": [{"undoes": action.pk, "detail": text} for action, text in zip(undone, texts, strict=True)],
        }
        last = "Done." if done else DRY_RUN
        self.emit(data, lambda console: console.print(escape("\n".join([*texts, last]))), as_json=options["json"])
        return None


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
    rows: Sequence[PartitionCheckpoint], targets: Mapping[TopicPartition, int], logs: Mapping[int, Log]
) -> tuple[list[Move], list[str]]:
    """Clamp targets to the logs, as kafka-consumer-groups does. Explicit targets outside get a warning."""
    wanted, warnings = [], []
    for row in rows:
        if row.pk not in logs or _tp(row) not in targets:
            raise RefusedError(
                f"Cannot read the log bounds of {_tp(row)}: the topic was deleted, or the partition has no leader. "
                "Nothing was changed."
            )
        asked, bounds = targets[_tp(row)], logs[row.pk].bounds
        target = clamped(asked, bounds)
        if target != asked and asked not in (0, reset_targets.MAX_OFFSET):
            warnings.append(
                f"{_tp(row)}: {asked:,} is outside the log ({bounds.start:,} to {bounds.end:,}). Using {target:,}."
            )
        wanted.append(Move(row.pk, target))
    return wanted, warnings


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1) if name == "-" else _head(Path(name))
        if len(raw) > _MAX_FILE_BYTES:
            raise RefusedError(f"{name} is larger than {_MAX_FILE_BYTES >> 20} MiB.")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise RefusedError(f"Cannot read {name}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise RefusedError(f"{name} is not UTF-8 text.") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES + 1)
