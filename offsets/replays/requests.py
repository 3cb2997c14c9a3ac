"""Requests for replays: preview, begin, cancel. `runner` does the work, `rows` keeps the record."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from django.db import transaction

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.guards import Actor, Preview, Request, check_allowed, require_live
from offsets.actions.moves import Log, log_of, logs_of
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint, Replay, ReplayRange
from offsets.ranges import KnownRange, OffsetRange
from offsets.replays import retries
from offsets.replays.plans import MAX_RANGES, ReplayPlan, Wanted, checked_range, plan_replay, refuse_overlap
from offsets.replays.rows import ACTIVE, KIND, insert, request_cancel, waiting_of

CANCEL = "cancel_replay"
#: The largest number in the column of the throttle.
MAX_RATE = 2**31 - 1


# --- Preview and begin ----------------------------------------------------------------------------


def preview(wanted: Sequence[Wanted], actor: Actor) -> list[ReplayPlan]:
    """Say what a replay would do. Raises RefusedError where it would be refused; changes nothing."""
    check_allowed(KIND, actor)
    _check_wanted(wanted)
    rows = PartitionCheckpoint.objects.in_bulk([span.checkpoint_id for span in wanted])
    return _Plans(wanted, rows, logs_of(rows.values())).all()


def begin(
    wanted: Sequence[Wanted],
    request: Request,
    *,
    records_per_second: int | None = None,
    automatic: bool = False,
    logs: Mapping[int, Log] | None = None,
) -> Replay:
    """Queue a replay of all ranges, or none. An automatic one leaves out refused ranges, as long as any are left: one
    broken partition must not hold up the others. A caller that is in a transaction already passes `logs` from
    `logs_for`: no transaction waits for Kafka.

    Raises RefusedError, having audited the refusal of one that is not automatic; ServiceUnavailableError while Kafka
    does not answer.
    """
    first_id = wanted[0].checkpoint_id if wanted else 0
    with attempt(KIND, request, first_id, audited=not automatic) as change:
        _check_wanted(wanted)
        if records_per_second is not None and not 1 <= records_per_second <= MAX_RATE:
            raise RefusedError(f"A replay reads from 1 to {MAX_RATE:,} records a second, not {records_per_second:,}.")
        logs = logs_for(wanted) if logs is None else logs
        with change.transaction():
            plans = _Plans(wanted, ledger.lock_checkpoints([span.checkpoint_id for span in wanted]), logs)
            kept = _accepted(wanted, plans, change, automatic=automatic)
            group_id = plans.rows[kept[0][0].checkpoint_id].group_id
            action = None if automatic else _audited(plans.rows, kept, request)
            return insert(
                *(group_id, kept, action, request.actor.name, request.reason, records_per_second), automatic=automatic
            )


def _accepted(
    wanted: Sequence[Wanted], plans: "_Plans", change: Attempt, *, automatic: bool
) -> list[tuple[Wanted, ReplayPlan]]:
    """The ranges that can be replayed, with their plans. An automatic replay leaves the others out, and postpones those
    that are refused: they would be due again at the next tick.
    """
    kept: list[tuple[Wanted, ReplayPlan]] = []
    refused: OffsetsError | None = None
    for span in wanted:
        change.checkpoint_id = span.checkpoint_id
        try:
            kept.append((span, plans.checked(span)))
        except (RefusedError, ServiceUnavailableError) as error:
            if not automatic:
                raise
            refused = refused or error
            if isinstance(error, RefusedError):
                retries.postpone(span.checkpoint_id, span.offsets, str(error))
    if refused and not kept:
        raise refused
    if not any(plan.readable for _, plan in kept):
        first = kept[0][1]
        raise RefusedError(f"{first.name} {first.wanted}: Kafka no longer has these offsets. They are lost.")
    return kept


def _check_wanted(wanted: Sequence[Wanted]) -> None:
    if not wanted:
        raise RefusedError("Nothing to replay: no range matches.")
    if len(wanted) > MAX_RANGES:
        raise RefusedError(
            f"At most {MAX_RANGES:,} ranges at once, not {len(wanted):,}. Name fewer partitions, or less of them."
        )
    for span in wanted:
        checked_range(span.offsets.start, span.offsets.end)
    places = sorted((span.checkpoint_id, span.offsets) for span in wanted)
    for before, after in pairwise(places):
        if before[0] == after[0] and after[1].start < before[1].end:
            raise RefusedError(
                f"The ranges {before[1]} and {after[1]} of one partition overlap; name each offset once."
            )


def logs_for(wanted: Sequence[Wanted]) -> dict[int, Log]:
    """The logs of the partitions named, by checkpoint. Raises ServiceUnavailableError."""
    return logs_of(PartitionCheckpoint.objects.filter(pk__in={span.checkpoint_id for span in wanted}))


class _Plans:
    """Plans of many ranges in a few queries per partition: a live worker may be waiting for the lock."""

    def __init__(
        self, wanted: Sequence[Wanted], rows: Mapping[int, PartitionCheckpoint], logs: Mapping[int, Log]
    ) -> None:
        self._wanted = wanted
        self.rows = rows
        self._logs = logs
        hulls: dict[int, OffsetRange] = {}
        for span in wanted:
            hull, offsets = hulls.get(span.checkpoint_id, span.offsets), span.offsets
            hulls[span.checkpoint_id] = OffsetRange(min(hull.start, offsets.start), max(hull.end, offsets.end))
        self._known = {pk: ledger.known_ranges(pk, hull) for pk, hull in hulls.items() if pk in rows}
        self._active: dict[int, list[ReplayRange]] = {}

    def all(self) -> list[ReplayPlan]:
        return [self._plan(span) for span in self._wanted]

    def checked(self, span: Wanted) -> ReplayPlan:
        """The plan under the row's lock, if it is still what was shown, and no other replay has these offsets."""
        plan = self._plan(span)
        if span.to_count is not None and plan.counted != span.to_count:
            raise StalePreviewError(
                f"{plan.name} has changed since you looked: {span.to_count:,} offsets were to be counted, now "
                f"{plan.counted:,}. Nothing was changed; refresh the preview."
            )
        if span.checkpoint_id not in self._active:
            self._active[span.checkpoint_id] = sorted(waiting_of(span.checkpoint_id), key=lambda r: r.start)
        others = _overlapping(self._active[span.checkpoint_id], span.offsets)
        refuse_overlap(plan.name, span.offsets, [(r.replay_id, OffsetRange(r.start, r.end)) for r in others])
        return plan

    def _plan(self, span: Wanted) -> ReplayPlan:
        row = require_live(span.checkpoint_id, self.rows.get(span.checkpoint_id))
        log = log_of(row, self._logs)
        if log.topic_id != row.topic_id:
            raise RefusedError(f"{row.name}: the topic was deleted and created again; its offsets mean other records.")
        if log.bounds.end < row.ledger_end:
            raise RefusedError(
                f"{row.name}: the log ends at {log.bounds.end:,}, but the ledger at {row.ledger_end:,}. The log was "
                "truncated, and its offsets may mean other records."
            )
        known = _overlapping(self._known[row.pk], span.offsets)
        plan = plan_replay(row.name, span.offsets, known, row.next_offset, log.bounds)
        if plan.readable is None and not plan.expired:
            raise RefusedError(f"{plan.name} {span.offsets}: nothing to replay. {plan.text}")
        return plan


SpanT = TypeVar("SpanT", KnownRange, ReplayRange)


def _overlapping(spans: Sequence[SpanT], wanted: OffsetRange) -> Sequence[SpanT]:
    """Those of sorted, disjoint `spans` that share an offset with `wanted`."""
    first = bisect_right(spans, wanted.start, key=lambda span: span.end)
    return spans[first : bisect_left(spans, wanted.end, key=lambda span: span.start)]


def _audited(
    rows: Mapping[int, PartitionCheckpoint], kept: Sequence[tuple[Wanted, ReplayPlan]], request: Request
) -> OperatorAction:
    first, plans = rows[kept[0][0].checkpoint_id], [plan for _, plan in kept]
    return audit.applied(
        *(KIND, first if len(kept) == 1 else None, request),
        target=str(first) if len(kept) == 1 else f"{first.group_id}: {len(kept):,} ranges",
        before={},
        after={"ranges": [{"name": plan.name, **plan.as_json()} for plan in plans[:100]]},
        detail=" ".join(plan.text for plan in plans[:10]),
    )


# --- Cancel ---------------------------------------------------------------------------------------


def preview_cancel(replay_id: int, actor: Actor) -> Preview:
    """Say what `cancel` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(CANCEL, actor)
    replay = Replay.objects.filter(pk=replay_id, status__in=ACTIVE, cancel_requested=False).first()
    if replay is None:
        raise RefusedError(_not_cancelled(replay_id))
    left = replay.total_offsets - replay.done_offsets
    text = (
        f"Cancel replay {replay_id}: stops after the current chunk, {left:,} of {replay.total_offsets:,} offsets are "
        "not replayed. Counts so far stay."
    )
    return Preview(kind=CANCEL, target=f"replay {replay_id}", text=text)


def _not_cancelled(replay_id: int) -> str:
    status = Replay.objects.filter(pk=replay_id).values_list("status", flat=True).first()
    state = "Unknown replay" if status is None else f"It is already {status}, or asked to stop"
    return f"Replay {replay_id} cannot be cancelled. {state}."


def cancel(replay_id: int, request: Request) -> Replay:
    """Stop a replay after the current chunk; counts so far stay. Raises RefusedError, audited."""
    with attempt(CANCEL, request, target=f"replay {replay_id}") as change, transaction.atomic():
        replay = Replay.objects.filter(pk=replay_id).first()
        if replay is None or not request_cancel(replay_id):
            raise RefusedError(_not_cancelled(replay_id))
        audit.applied(
            *(CANCEL, None, request),
            target=change.target,
            before={},
            after={},
            detail=f"Cancel replay {replay_id} after the current chunk.",
        )
        journal.record(
            replay.group_id, CANCEL, f"Replay {replay_id} cancelled by {request.actor.name}: {request.reason}"
        )
        replay.refresh_from_db()
        return replay
