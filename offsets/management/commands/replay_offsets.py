"""`manage.py replay_offsets`: count uncounted offsets next to the running workers."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandParser
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offsets.actions import dead_letters
from offsets.actions.dead_letters import DeadLetterFilter
from offsets.actions.guards import Actor, Source
from offsets.errors import RefusedError
from offsets.management import reset_targets
from offsets.management.base import DRY_RUN, EXIT_AIM_NOT_MET, OperatorCommand, non_negative, positive
from offsets.management.scope import add_execute, add_scope, in_scope, reason_of
from offsets.models import Replay
from offsets.replays import requests, runner, selection
from offsets.replays import rows as replay_rows
from offsets.replays.plans import ReplayPlan, Wanted, parse_range
from offsets.tasks import dispatch_replay
from offsets.types import RangeKind


class Command(OperatorCommand):
    help = (
        "Count uncounted offsets (failed, skipped or claimed) next to the running workers. Offsets that are already "
        "counted are deduplicated; next offsets do not move. Dry run unless --execute is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument(
            "--offsets",
            action="append",
            default=[],
            metavar="START-END",
            help="A range of one partition, end exclusive. Repeatable.",
        )
        parser.add_argument("--since", metavar="TIMESTAMP", help="Records at or after this time. ISO 8601 with a zone.")
        parser.add_argument("--until", metavar="TIMESTAMP", help="Records before this time.")
        parser.add_argument(
            "--status",
            action="append",
            choices=[kind.value for kind in selection.UNCOUNTED],
            help="Only offsets with this outcome. Repeatable. Default: failed, if neither offsets nor times are given.",
        )
        parser.add_argument(
            "--dead-letters",
            nargs="?",
            const="",
            metavar="ERROR_CODE",
            help="Requeue pending dead letters instead of reading ranges: all, or those with this error code.",
        )
        parser.add_argument("--rate", type=positive, metavar="N", help="Maximum records per second.")
        parser.add_argument("--background", action="store_true", help="Let the workers run it; do not wait.")
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument(
            "--resume", type=non_negative, metavar="ID", help="Continue a replay that no process runs."
        )
        instead.add_argument("--cancel", type=non_negative, metavar="ID", help="Stop a replay after the current chunk.")
        instead.add_argument("--list", action="store_true", help="List the group's replays, newest first.")
        add_execute(parser)

    def run(self, **options: Any) -> int | None:
        if options["list"]:
            self._list(options)
            return None
        if options["cancel"] is not None:
            self._cancel(options["cancel"], options)
            return None
        if options["resume"] is not None:
            return self._follow(options["resume"], options)
        reason = reason_of(options)
        if options["dead_letters"] is not None:
            self._requeue(options, reason)
            return None
        wanted = _wanted(options)
        actor = Actor.of_operating_system()
        plans = requests.preview(wanted, actor)
        if not options["execute"]:
            self._dry_run(plans, options)
            return None
        seen = [Wanted(w.checkpoint_id, w.offsets, p.counted) for w, p in zip(wanted, plans, strict=True)]
        replay = requests.begin(
            seen, actor=actor, reason=reason, source=Source.COMMAND, records_per_second=options["rate"]
        )
        if options["background"]:
            dispatch_replay(replay.pk)
            self._show(replay, options)
            return None
        return self._follow(replay.pk, options)

    def _cancel(self, replay_id: int, options: Mapping[str, Any]) -> None:
        actor, reason = Actor.of_operating_system(), reason_of(options)
        if options["execute"]:
            self._show(requests.cancel(replay_id, actor=actor, reason=reason, source=Source.COMMAND), options)
            return
        text = requests.preview_cancel(replay_id, actor)
        self.emit(
            {"executed": False, "id": replay_id, "detail": text},
            lambda console: console.print(f"{text}\n{DRY_RUN}"),
            as_json=options["json"],
        )

    def _requeue(self, options: Mapping[str, Any], reason: str) -> None:
        """Requeue dead letters partition by partition: an error in one leaves the others unchanged."""
        _refuse_with_dead_letters(options)
        actor = Actor.of_operating_system()
        items = []
        for row in in_scope(options["group"], options["topic"], everything=options["all"]):
            chosen = DeadLetterFilter(row.group_id, row.topic, row.partition, options["dead_letters"])
            if not chosen.rows().exists():
                continue
            shown = dead_letters.preview(dead_letters.REQUEUE, chosen, actor)
            item = {"partition": f"{row.topic}-{row.partition}", "detail": shown.text, "changed": 0}
            if options["execute"] and shown.will_change:
                done = dead_letters.resolve(
                    dead_letters.REQUEUE, shown.ids, actor=actor, reason=reason, source=Source.COMMAND
                )
                item["changed"] = done.changed
            items.append(item | {"matched": len(shown.ids), "still_fail": shown.still_fail})
        if not items:
            raise RefusedError("No matching pending dead letters. Nothing was changed.")
        data = {"executed": options["execute"], "items": items}

        def show(console: Console) -> None:
            for item in items:
                console.print(escape(f"{item['partition']}: {item['detail']}"))
            console.print("Done." if options["execute"] else DRY_RUN)

        self.emit(data, show, as_json=options["json"])

    # --- Output --------------------------------------------------------------------------------

    def _dry_run(self, plans: Sequence[ReplayPlan], options: Mapping[str, Any]) -> None:
        data = {
            "executed": False,
            "to_count": sum(plan.counted for plan in plans),
            "items": [{"partition": plan.name, **plan.as_json(), "detail": plan.text} for plan in plans],
        }

        def show(console: Console) -> None:
            for plan in plans[:20]:
                console.print(escape(plan.text))
            if len(plans) > 20:
                console.print(f"… and {len(plans) - 20:,} more ranges.")
            console.print(DRY_RUN)

        self.emit(data, show, as_json=options["json"])

    def _follow(self, replay_id: int, options: Mapping[str, Any]) -> int | None:
        """Run the replay in this process with a progress bar. Ctrl-C stops it; it can be resumed."""
        stop = threading.Event()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with (
            _stopped_by_signals(stop),
            Progress(*columns, console=Console(stderr=True), disable=options["json"]) as bar,
        ):
            task = bar.add_task(f"replay {replay_id}", total=None)

            def show(replay: Replay) -> None:
                bar.update(task, completed=replay.done_offsets, total=replay.total_offsets)

            replay = runner.run(replay_id, should_stop=stop.is_set, on_progress=show)
        if replay is None:
            raise RefusedError(f"Replay {replay_id} has ended, or another process runs it. See replay_offsets --list.")
        self._show(replay, options)
        if replay.status == Replay.Status.RUNNING:
            self.stderr.write(
                f"Stopped. The recovery manager continues it; to continue it here, use --resume {replay_id}."
            )
        return None if replay.status == Replay.Status.DONE else EXIT_AIM_NOT_MET

    def _show(self, replay: Replay, options: Mapping[str, Any]) -> None:
        data = {"executed": True, **replay_rows.progress(replay)}
        self.emit(data, lambda console: _show(console, data), as_json=options["json"])

    def _list(self, options: Mapping[str, Any]) -> None:
        rows = Replay.objects.filter(group_id=options["group"]).order_by("-pk")[:50]
        data = {"items": [replay_rows.progress(row) for row in rows]}

        def show(console: Console) -> None:
            for item in data["items"]:
                _show(console, item)

        self.emit(data, show, as_json=options["json"])


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`. The caller's handlers are restored afterwards."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(console: Console, item: Mapping[str, Any]) -> None:
    share = f"{item['done_offsets']:,} of {item['total_offsets']:,} offsets"
    rate = f", {item['offsets_per_second']:,.0f} offsets/s" if item["offsets_per_second"] else ""
    eta = f", {item['eta_seconds']:,.0f} s left" if item["eta_seconds"] else ""
    console.print(escape(f"Replay {item['id']} {item['status']}: {share}{rate}{eta}. {item['detail']}"))


def _refuse_with_dead_letters(options: Mapping[str, Any]) -> None:
    """Refuse range options with `--dead-letters`: they would be ignored, and more would be counted than named."""
    names = ("offsets", "since", "until", "status", "rate", "background")
    conflicting = [f"--{name}" for name in names if options[name]]
    if conflicting:
        raise RefusedError(
            f"--dead-letters cannot be combined with {', '.join(conflicting)}. To requeue single dead letters, use "
            "`dead_letters --requeue --id ID`."
        )


def _timestamp_ms(option: str, text: str | None) -> int | None:
    """Parse an option's timestamp into milliseconds. Raises RefusedError."""
    if not text:
        return None
    timestamp = reset_targets.timestamp_ms(text, datetime.max.replace(tzinfo=UTC))
    if timestamp > datetime.now(UTC).timestamp() * 1000:
        raise RefusedError(f"--{option} {text!r} is in the future. Use a time in the past, or omit the option.")
    return timestamp


def _wanted(options: Mapping[str, Any]) -> list[Wanted]:
    """The ranges that the options select. Raises RefusedError."""
    rows = in_scope(options["group"], options["topic"], everything=options["all"])
    since, until = _timestamp_ms("since", options["since"]), _timestamp_ms("until", options["until"])
    if since is not None and until is not None and since >= until:
        raise RefusedError("--since must be before --until.")
    kinds = [RangeKind(name) for name in options["status"] or ()]
    within = selection.of_window(rows, since, until) if since is not None or until is not None else None
    if options["offsets"]:
        if len(rows) > 1:
            raise RefusedError(
                f"--offsets applies to one partition, but {len(rows)} are selected. Use --topic TOPIC:0."
            )
        named = [parse_range(text) for text in options["offsets"]]
        if within is not None or kinds:
            raise RefusedError("Use either --offsets, or --since, --until and --status.")
        return [Wanted(rows[0].pk, offsets) for offsets in named]
    if within is not None and not kinds:
        return [Wanted(row_id, offsets) for row_id, ranges in within.items() for offsets in ranges]
    wanted = selection.of_kinds(rows, kinds or [RangeKind.FAILED], within)
    if not wanted:
        names = ", ".join(kinds or [RangeKind.FAILED])
        raise RefusedError(f"No {names} offsets in this scope. Nothing to replay.")
    return wanted
