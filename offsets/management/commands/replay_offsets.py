"""`manage.py replay_offsets`: count uncounted offsets, while the workers keep running."""

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
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.guards import Request
from offsets.errors import RefusedError
from offsets.management import reset_targets
from offsets.management.base import EXIT_AIM_NOT_MET, OperatorCommand, non_negative, positive
from offsets.management.scope import add_execute, add_scope, in_scope, request_of
from offsets.models import Replay
from offsets.replays import requests, runner, selection
from offsets.replays import rows as replay_rows
from offsets.replays.plans import ReplayPlan, Wanted, parse_range
from offsets.tasks import dispatch_replay
from offsets.types import RangeKind


class Command(OperatorCommand):
    help = (
        "Read offsets again while the workers keep running, and count the uncounted ones: failed, skipped, or claimed "
        "and lost. Counted offsets are not counted again; live offsets do not move. A dry run unless --execute."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_scope(parser)
        parser.add_argument(
            "--offsets", action="append", default=[], metavar="START-END", help="A range of one partition; repeatable."
        )
        parser.add_argument("--since", metavar="MOMENT", help="Records from this time on: ISO 8601 with a zone.")
        parser.add_argument("--until", metavar="MOMENT", help="Records before this time.")
        parser.add_argument(
            "--status",
            action="append",
            choices=[kind.value for kind in selection.UNCOUNTED],
            help="Filter by outcome; repeatable. Default: failed, unless offsets or times are given.",
        )
        parser.add_argument(
            "--dead-letters",
            nargs="?",
            const="",
            metavar="ERROR_CODE",
            help="Instead of ranges: pending dead letters in scope, all or by error code, from their stored bytes.",
        )
        parser.add_argument("--rate", type=positive, metavar="N", help="Maximum records per second.")
        parser.add_argument("--background", action="store_true", help="Let the Celery workers run it; do not wait.")
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument("--resume", type=non_negative, metavar="ID", help="Run a replay that has no process.")
        instead.add_argument("--cancel", type=non_negative, metavar="ID", help="Stop a replay after the current chunk.")
        instead.add_argument("--list", action="store_true", help="List the replays of the group, newest first.")
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
        request = request_of(options)
        if options["dead_letters"] is not None:
            self._requeue(options, request)
            return None
        wanted = _wanted(options)
        plans = requests.preview(wanted, request.actor)
        if not options["execute"]:
            self._dry_run(plans, options)
            return None
        seen = [Wanted(w.checkpoint_id, w.offsets, p.counted) for w, p in zip(wanted, plans, strict=True)]
        replay = requests.begin(seen, request, records_per_second=options["rate"])
        if options["background"]:
            dispatch_replay(replay.pk)
            self._show(replay, options)
            return None
        return self._follow(replay.pk, options)

    def _cancel(self, replay_id: int, options: Mapping[str, Any]) -> None:
        request = request_of(options)
        if options["execute"]:
            self._show(requests.cancel(replay_id, request), options)
            return
        text = requests.preview_cancel(replay_id, request.actor).text
        advice = "Dry run: nothing was changed. Add --execute --reason 'why'."
        self.emit(
            {"executed": False, "id": replay_id, "detail": text},
            lambda console: console.print(f"{text}\n{advice}"),
            as_json=options["json"],
        )

    def _requeue(self, options: Mapping[str, Any], request: Request) -> None:
        """Each partition in scope separately: a partition that fails changes nothing in the others."""
        _refuse_beside_dead_letters(options)
        items = []
        for row in in_scope(options["group"], options["topic"], everything=options["all"]):
            chosen = DeadLetterFilter(row.group_id, row.topic, row.partition, options["dead_letters"])
            if not chosen.rows().exists():
                continue
            shown = dead_letters.preview(dead_letters.REQUEUE, chosen, request.actor)
            item = {"partition": row.name, "detail": shown.text, "changed": 0}
            if options["execute"] and shown.will_change:
                done = dead_letters.resolve(dead_letters.REQUEUE, shown.ids, request)
                item["changed"] = done.changed
            items.append(item | {"matched": len(shown.ids), "still_fail": shown.still_fail})
        if not items:
            raise RefusedError("No pending dead letter matches; nothing was changed.")
        data = {"executed": options["execute"], "items": items}

        def show(console: Console) -> None:
            for item in items:
                console.print(escape(f"{item['partition']}: {item['detail']}"))
            console.print(
                "Done." if options["execute"] else "Dry run: nothing was changed. Add --execute --reason 'why'."
            )

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
            console.print("Dry run: nothing was changed. Add --execute --reason 'why' to do it.")

        self.emit(data, show, as_json=options["json"])

    def _follow(self, replay_id: int, options: Mapping[str, Any]) -> int | None:
        """Run it here, with a progress bar; after Ctrl-C it can be resumed."""
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
            raise RefusedError(f"Replay {replay_id} has ended, or another process runs it. See --list.")
        self._show(replay, options)
        if replay.status == Replay.Status.RUNNING:
            self.stderr.write(f"Stopped. Resume it with --resume {replay_id}; the recovery manager resumes it, too.")
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
    """INT and TERM set `stop`; the former handlers are restored afterwards."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(console: Console, item: Mapping[str, Any]) -> None:
    share = f"{item['done_offsets']:,} of {item['total_offsets']:,} offsets"
    rate = f", {item['offsets_per_second']:,.0f} per second" if item["offsets_per_second"] else ""
    eta = f", {item['eta_seconds']:,.0f} s left" if item["eta_seconds"] else ""
    console.print(escape(f"Replay {item['id']} {item['status']}: {share}{rate}{eta}. {item['detail']}"))


def _refuse_beside_dead_letters(options: Mapping[str, Any]) -> None:
    """Options that select offsets do not select dead letters: ignored, they would count more than was asked for."""
    names = ("offsets", "since", "until", "status", "rate", "background")
    beside = [f"--{name}" for name in names if options[name]]
    if beside:
        raise RefusedError(
            f"--dead-letters cannot be combined with {', '.join(beside)}: it requeues all pending ones in scope, "
            "or those of one error code. For single ones use `dead_letters --requeue --id ID`."
        )


def _moment(option: str, text: str | None) -> int | None:
    """In milliseconds. Raises RefusedError."""
    if not text:
        return None
    moment = reset_targets.timestamp_ms(text, datetime.max.replace(tzinfo=UTC))
    if moment > datetime.now(UTC).timestamp() * 1000:
        raise RefusedError(f"--{option} {text!r} is in the future. Use a time in the past, or omit it.")
    return moment


def _wanted(options: Mapping[str, Any]) -> list[Wanted]:
    """What the options name. Raises RefusedError."""
    rows = in_scope(options["group"], options["topic"], everything=options["all"])
    since, until = _moment("since", options["since"]), _moment("until", options["until"])
    if since is not None and until is not None and since >= until:
        raise RefusedError("--since must be before --until.")
    kinds = [RangeKind(name) for name in options["status"] or ()]
    within = selection.of_window(rows, since, until) if since is not None or until is not None else None
    if options["offsets"]:
        if len(rows) > 1:
            raise RefusedError(f"--offsets needs one partition, not {len(rows)}. Use --topic TOPIC:0.")
        named = [parse_range(text) for text in options["offsets"]]
        if within is not None or kinds:
            raise RefusedError("Use either --offsets, or --since, --until and --status; not both.")
        return [Wanted(rows[0].pk, offsets) for offsets in named]
    if within is not None and not kinds:
        return [Wanted(row_id, offsets) for row_id, ranges in within.items() for offsets in ranges]
    found = selection.of_kinds(rows, kinds or [RangeKind.FAILED], within)
    if not found:
        words = ", ".join(kinds or [RangeKind.FAILED])
        raise RefusedError(f"No {words} offsets in this scope. Nothing to replay.")
    return found
