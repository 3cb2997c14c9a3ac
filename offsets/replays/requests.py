"""Replays as operators request them: preview, begin, cancel. `runner` does the work, `rows` keeps the record."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from django.db import transaction

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.guards import Actor, Source, bounded_wait, check_allowed, check_reason, name_of, require_live
from offsets.actions.move_plans import Bounds
from offsets.actions.moves import Log, logs_of
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint, Replay, ReplayRange
from offsets.ranges import KnownRange, OffsetRange
from offsets.replays.plans import MAX_RANGES, ReplayPlan, Wanted, checked_range, plan_replay, refuse_overlap
from offsets.replays.rows import ACTIVE, KIND, insert, request_cancel, waiting_of

CANCEL = "cancel_replay"
#: What the column of the throttle holds.
MAX_RATE = 2**31 - 1
_ENDLESS = 2**63 - 1


# --- Preview and begin ----------------------------------------------------------------------------


def preview(wanted: Sequence[Wanted], actor: Actor) -> list[ReplayPlan]:
    """Say what a replay would do. Raises RefusedError where it would be refused; changes nothing."""
    check_allowed(KIND, actor)
    _check_wanted(wanted)
    rows = PartitionCheckpoint.objects.in_bulk([one.checkpoint_id for one in wanted])
    return _Plans(wanted, rows, _logs_of(rows.values())).all()


def begin(
    wanted: Sequence[Wanted],
    *,
    actor: Actor,
    reason: str,
    source: Source,
    records_per_second: int | None = None,
    automatic: bool = False,
    logs: Mapping[int, Log] | None = None,
) -> Replay:
    """Record a replay of all of it, or of nothing; it is queued, and runs when somebody takes it. An automatic one
    leaves out what is refused, as long as anything is left: one broken partition may not hold up the others. `logs`
    are those of `logs_for`, where the caller has a transaction already, in which nobody may wait for Kafka.

    Raises RefusedError, having audited the refusal; ServiceUnavailableError while Kafka does not answer.
    """
    reason = reason.replace("\x00", "").strip()
    at = wanted[0].checkpoint_id if wanted else 0
    try:
        check_allowed(KIND, actor)
        check_reason(reason)
        _check_wanted(wanted)
        if records_per_second is not None and not 1 <= records_per_second <= MAX_RATE:
            raise RefusedError(f"A replay reads from 1 to {MAX_RATE:,} records a second, not {records_per_second:,}.")
        logs = logs_for(wanted) if logs is None else logs
        with transaction.atomic(), bounded_wait():
            plans = _Plans(wanted, ledger.lock_checkpoints([one.checkpoint_id for one in wanted]), logs)
            kept: list[tuple[Wanted, ReplayPlan]] = []
            refused: OffsetsError | None = None
            for one in wanted:
                at = one.checkpoint_id
                try:
                    kept.append((one, plans.checked(one)))
                except (RefusedError, ServiceUnavailableError) as error:
                    if not automatic:
                        raise
                    refused = refused or error
            if refused and not kept:
                raise refused
            if not any(plan.readable for _, plan in kept):
                first = kept[0][1]
                raise RefusedError(
                    f"{first.name} {first.wanted}: Kafka does not have these offsets any more. They are lost."
                )
            group_id = plans.rows[kept[0][0].checkpoint_id].group_id
            action = None if automatic else _audited(plans.rows, kept, actor, reason, source)
            return insert(group_id, kept, action, actor.name, reason, records_per_second, automatic=automatic)
    except RefusedError as error:
        if not automatic:
            audit.refused(KIND, at, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _check_wanted(wanted: Sequence[Wanted]) -> None:
    if not wanted:
        raise RefusedError("Nothing is to be replayed: no range matches.")
    if len(wanted) > MAX_RANGES:
        raise RefusedError(
            f"At most {MAX_RANGES:,} ranges at once, not {len(wanted):,}. Name fewer partitions, or less of them."
        )
    for one in wanted:
        checked_range(one.offsets.start, one.offsets.end)
    places = sorted((one.checkpoint_id, one.offsets) for one in wanted)
    for before, after in pairwise(places):
        if before[0] == after[0] and after[1].start < before[1].end:
            raise RefusedError(
                f"The ranges {before[1]} and {after[1]} of one partition overlap; name each offset once."
            )


def logs_for(wanted: Sequence[Wanted]) -> dict[int, Log]:
    """What Kafka holds of the partitions named, by checkpoint. Raises ServiceUnavailableError."""
    return _logs_of(PartitionCheckpoint.objects.filter(pk__in={one.checkpoint_id for one in wanted}))


def _logs_of(rows: Iterable[PartitionCheckpoint]) -> dict[int, Log]:
    """What Kafka holds. A log that reaches as far as the ledger did when it was asked has all that the ledger has come
    to since; one that does not was truncated.
    """
    known = list(rows)
    logs = logs_of(known)
    for row in known:
        log = logs.get(row.pk)
        if log is not None and log.bounds.end >= row.ledger_end:
            logs[row.pk] = replace(log, bounds=Bounds(log.bounds.start, _ENDLESS))
    return logs


class _Plans:
    """Plans of many ranges, for a few questions per partition: a live worker may wait for the lock meanwhile."""

    def __init__(
        self, wanted: Sequence[Wanted], rows: Mapping[int, PartitionCheckpoint], logs: Mapping[int, Log]
    ) -> None:
        self._wanted = wanted
        self.rows = rows
        self._logs = logs
        hulls: dict[int, OffsetRange] = {}
        for one in wanted:
            hull = hulls.get(one.checkpoint_id, one.offsets)
            hulls[one.checkpoint_id] = OffsetRange(min(hull.start, one.offsets.start), max(hull.end, one.offsets.end))
        self._known = {pk: ledger.known_ranges(pk, hull) for pk, hull in hulls.items() if pk in rows}
        self._active: dict[int, list[ReplayRange]] = {}

    def all(self) -> list[ReplayPlan]:
        return [self._plan(one) for one in self._wanted]

    def checked(self, one: Wanted) -> ReplayPlan:
        """The plan under the row's lock, if it is still what was shown, and nobody replays these offsets already."""
        plan = self._plan(one)
        if one.to_count is not None and plan.counted != one.to_count:
            raise StalePreviewError(
                f"{plan.name} has changed since you looked: {one.to_count:,} offsets were to be counted, now "
                f"{plan.counted:,}. Nothing was changed; look again."
            )
        if one.checkpoint_id not in self._active:
            self._active[one.checkpoint_id] = sorted(waiting_of(one.checkpoint_id), key=lambda r: r.start)
        others = _overlapping(self._active[one.checkpoint_id], one.offsets)
        refuse_overlap(plan.name, one.offsets, [(r.replay_id, OffsetRange(r.start, r.end)) for r in others])
        return plan

    def _plan(self, one: Wanted) -> ReplayPlan:
        row = require_live(one.checkpoint_id, self.rows.get(one.checkpoint_id))
        log = self._logs.get(row.pk)
        if log is None:
            raise ServiceUnavailableError(
                f"Kafka does not tell what the log of {name_of(row)} holds: the topic is gone, or it has no leader."
            )
        if log.topic_id != row.topic_id:
            raise RefusedError(
                f"{name_of(row)}: the topic was deleted and created again; its offsets mean other records."
            )
        if log.bounds.end < row.ledger_end:
            raise RefusedError(
                f"{name_of(row)}: the log ends at {log.bounds.end:,}, but the ledger at {row.ledger_end:,}: it was "
                "truncated, and its offsets may mean other records."
            )
        known = _overlapping(self._known[row.pk], one.offsets)
        plan = plan_replay(name_of(row), one.offsets, known, row.next_offset, log.bounds)
        if plan.readable is None and not plan.expired:
            raise RefusedError(f"{plan.name} {one.offsets}: nothing of it can be replayed. {plan.text}")
        return plan


SpanT = TypeVar("SpanT", KnownRange, ReplayRange)


def _overlapping(spans: Sequence[SpanT], wanted: OffsetRange) -> Sequence[SpanT]:
    """Those of sorted, disjoint `spans` that share an offset with `wanted`."""
    first = bisect_right(spans, wanted.start, key=lambda span: span.end)
    return spans[first : bisect_left(spans, wanted.end, key=lambda span: span.start)]


def _audited(
    rows: Mapping[int, PartitionCheckpoint],
    kept: Sequence[tuple[Wanted, ReplayPlan]],
    actor: Actor,
    reason: str,
    source: Source,
) -> OperatorAction:
    first, plans = rows[kept[0][0].checkpoint_id], [plan for _, plan in kept]
    target = str(first) if len(kept) == 1 else f"{first.group_id}: {len(kept):,} ranges"
    return audit.applied(
        KIND,
        first if len(kept) == 1 else None,
        target=target,
        actor=actor,
        reason=reason,
        source=source,
        before={},
        after={"ranges": [{"name": plan.name, **plan.as_json()} for plan in plans[:100]]},
        detail=" ".join(plan.text for plan in plans[:10]),
    )


def preview_cancel(replay_id: int, actor: Actor) -> str:
    """What `cancel` would do now, in words. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(CANCEL, actor)
    replay = Replay.objects.filter(pk=replay_id, status__in=ACTIVE, cancel_requested=False).first()
    if replay is None:
        raise RefusedError(_not_cancelled(replay_id))
    left = replay.total_offsets - replay.done_offsets
    return (
        f"Cancel replay {replay_id}: it ends after the chunk in hand, {left:,} of {replay.total_offsets:,} offsets are "
        "left as they are. What it has counted stays counted."
    )


def _not_cancelled(replay_id: int) -> str:
    status = Replay.objects.filter(pk=replay_id).values_list("status", flat=True).first()
    state = "There is no such replay" if status is None else f"It is {status} already, or told to stop"
    return f"Replay {replay_id} cannot be cancelled. {state}."


def cancel(replay_id: int, *, actor: Actor, reason: str, source: Source) -> Replay:
    """Stop a replay after the chunk in hand. What it has counted stays counted. Raises RefusedError, audited."""
    reason = reason.replace("\x00", "").strip()
    replay = Replay.objects.filter(pk=replay_id).first()
    target = f"replay {replay_id}"
    try:
        check_allowed(CANCEL, actor)
        check_reason(reason)
        with transaction.atomic():
            if replay is None or not request_cancel(replay_id):
                raise RefusedError(_not_cancelled(replay_id))
            audit.applied(
                *(CANCEL, None),
                target=target,
                actor=actor,
                reason=reason,
                source=source,
                before={},
                after={},
                detail=f"Cancel replay {replay_id} after the chunk in hand.",
            )
            journal.record(replay.group_id, CANCEL, f"Replay {replay_id} cancelled by {actor.name}: {reason}")
            replay.refresh_from_db()
            return replay
    except RefusedError as error:
        audit.refused(CANCEL, None, target=target, actor=actor, reason=reason, source=source, detail=str(error))
        raise
