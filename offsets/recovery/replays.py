"""Replays: planned, begun, followed and ended here; the only writer of their rows. `replaying` does the work."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.guards import Actor, Source, bounded_wait, check_allowed, check_reason, name_of, require_live
from offsets.actions.move_plans import Bounds
from offsets.actions.moves import Log, logs_of
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.leases import LeaseToken
from offsets.models import DatabaseTime, OperatorAction, PartitionCheckpoint, Replay, ReplayRange
from offsets.ranges import KnownRange, OffsetRange
from offsets.recovery.replay_plans import MAX_RANGES, ReplayPlan, checked_range, plan_replay, refuse_overlap

KIND = "replay"
CANCEL = "cancel_replay"
ACTIVE = (Replay.Status.QUEUED, Replay.Status.RUNNING)
#: What the column of the throttle holds.
MAX_RATE = 2**31 - 1
_ENDLESS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """Offsets of one live checkpoint. `to_count` is what the preview promised: None where nobody looked."""

    checkpoint_id: int
    offsets: OffsetRange
    to_count: int | None = None


class TakenOverError(Exception):
    """Another process runs this replay now."""


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
            return _insert(group_id, kept, action, actor.name, reason, records_per_second, automatic=automatic)
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


def _insert(
    group_id: str,
    kept: Sequence[tuple[Wanted, ReplayPlan]],
    action: OperatorAction | None,
    username: str,
    reason: str,
    records_per_second: int | None,
    *,
    automatic: bool,
) -> Replay:
    replay = Replay.objects.create(
        group_id=group_id,
        automatic=automatic,
        username=username,
        reason=reason,
        action=action,
        records_per_second=records_per_second,
        total_offsets=sum(plan.readable.size for _, plan in kept if plan.readable),
        expired_offsets=sum(plan.expired for _, plan in kept),
    )
    ReplayRange.objects.bulk_create(
        ReplayRange(
            replay=replay,
            checkpoint_id=one.checkpoint_id,
            start=plan.readable.start,
            end=plan.readable.end,
            position=plan.readable.start,
        )
        for one, plan in kept
        if plan.readable
    )
    journal.record(group_id, KIND, f"Replay {replay.pk} of {replay.total_offsets:,} offsets by {username}: {reason}")
    return replay


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
            waiting = Replay.objects.filter(pk=replay_id, status__in=ACTIVE, cancel_requested=False)
            if replay is None or not waiting.update(cancel_requested=True):
                raise RefusedError(_not_cancelled(replay_id))
            Replay.objects.filter(pk=replay_id, status=Replay.Status.QUEUED).update(
                status=Replay.Status.CANCELLED, finished_at=DatabaseTime(), detail="Cancelled before it began."
            )
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


# --- Running --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """How far one transaction has brought a range, and what it counted."""

    position: int
    counted: int = 0
    deduplicated: int = 0
    dead_letters: int = 0


def start(replay_id: int) -> Replay | None:
    """Mark it as running; None when it has ended. One that was told to stop starts, too, to be ended: the process that
    ran it may be gone.
    """
    waiting = Replay.objects.filter(pk=replay_id, status__in=ACTIVE)
    begun = waiting.update(
        status=Replay.Status.RUNNING, starts=F("starts") + 1, started_at=Coalesce("started_at", DatabaseTime())
    )
    return Replay.objects.get(pk=replay_id) if begun else None


def waiting_ranges(replay: Replay) -> list[ReplayRange]:
    ranges = replay.ranges.filter(state=ReplayRange.State.WAITING).select_related("checkpoint")
    return list(ranges.order_by("checkpoint_id", "start"))


def advance(one: ReplayRange, step: Step, token: LeaseToken) -> None:
    """Move a range forward, in the transaction that counted it. Raises TakenOverError."""
    state = ReplayRange.State.DONE if step.position >= one.end else ReplayRange.State.WAITING
    _change(one, token, position=step.position, state=state)
    Replay.objects.filter(pk=one.replay_id).update(
        done_offsets=F("done_offsets") + (step.position - one.position),
        counted=F("counted") + step.counted,
        deduplicated=F("deduplicated") + step.deduplicated,
        dead_letters=F("dead_letters") + step.dead_letters,
    )


def pass_over(one: ReplayRange, position: int, detail: str, token: LeaseToken, *, expired: int) -> None:
    """Move a range over what Kafka has deleted; `expired` of it was never counted. Raises TakenOverError."""
    state = ReplayRange.State.EXPIRED if position >= one.end else ReplayRange.State.WAITING
    _change(one, token, position=position, state=state, detail=detail)
    Replay.objects.filter(pk=one.replay_id).update(
        done_offsets=F("done_offsets") + (position - one.position), expired_offsets=F("expired_offsets") + expired
    )


def give_up(one: ReplayRange, detail: str, token: LeaseToken) -> None:
    """What is left of a range is not replayed, for a reason that the row keeps. Raises TakenOverError."""
    _change(one, token, state=ReplayRange.State.REFUSED, detail=detail)
    Replay.objects.filter(pk=one.replay_id).update(done_offsets=F("done_offsets") + (one.end - one.position))


def _change(one: ReplayRange, token: LeaseToken, **values: Any) -> None:
    """By compare-and-set, while the lease is held: a process that was stopped and goes on changes nothing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM offsets_lease WHERE name = %s AND holder = %s AND epoch = %s FOR SHARE",
            [token.name, token.holder, token.epoch],
        )
        if cursor.fetchone() is None:
            raise TakenOverError
    waiting = ReplayRange.objects.filter(pk=one.pk, position=one.position, state=ReplayRange.State.WAITING)
    if not waiting.update(**values):
        raise TakenOverError


def is_cancelled(replay_id: int) -> bool:
    return Replay.objects.filter(pk=replay_id, cancel_requested=True).exists()


def finish(replay_id: int) -> Replay:
    """Say how it ended: done, failed where a range was refused, cancelled where it was told to stop."""
    replay = Replay.objects.get(pk=replay_id)
    left = replay.ranges.filter(state=ReplayRange.State.WAITING).exists()
    refused = list(replay.ranges.filter(state=ReplayRange.State.REFUSED).values_list("detail", flat=True)[:3])
    if left:
        status, detail = Replay.Status.CANCELLED, "Cancelled; what it had counted stays counted."
    elif refused:
        status, detail = Replay.Status.FAILED, "; ".join(refused)
    else:
        status, detail = Replay.Status.DONE, _outcome(replay)
    Replay.objects.filter(pk=replay_id, status=Replay.Status.RUNNING).update(
        status=status, detail=detail, finished_at=DatabaseTime()
    )
    replay.refresh_from_db()
    journal.record(
        replay.group_id,
        KIND,
        f"Replay {replay_id} {status}: {detail}",
        level="info" if status == Replay.Status.DONE else "warning",
    )
    return replay


def _outcome(replay: Replay) -> str:
    parts = [f"{replay.counted:,} events counted", f"{replay.deduplicated:,} left out, because they were counted"]
    if replay.dead_letters:
        parts.append(f"{replay.dead_letters:,} dead letters")
    if replay.expired_offsets:
        parts.append(f"{replay.expired_offsets:,} offsets gone from Kafka")
    return ", ".join(parts) + "."


# --- Reading --------------------------------------------------------------------------------------


def without_runner(group_id: str) -> list[int]:
    """Replays that have not ended and that no process runs now: their turn, or a dead one's work, has come."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id FROM offsets_replay r WHERE r.group_id = %s AND r.status IN ('queued', 'running')"
            " AND NOT EXISTS (SELECT 1 FROM offsets_lease l WHERE l.name = 'replay:' || r.id"
            " AND l.expires_at >= clock_timestamp()) ORDER BY r.id",
            [group_id],
        )
        return [row[0] for row in cursor.fetchall()]


def lease_seconds() -> float:
    """How long a process that runs a replay may be silent: as long as a worker may."""
    return float(settings.HEARTBEAT_TIMEOUT_SECONDS)


def orphaned(group_id: str) -> list[tuple[int, datetime]]:
    """Replays that run by their row, and whose process is gone; with when it was last known to live."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id, coalesce(l.expires_at - make_interval(secs => %s), r.started_at) FROM offsets_replay r"
            " LEFT JOIN offsets_lease l ON l.name = 'replay:' || r.id WHERE r.group_id = %s AND r.status = 'running'"
            " AND (l.expires_at IS NULL OR l.expires_at < clock_timestamp()) ORDER BY r.id",
            [lease_seconds(), group_id],
        )
        return list(cursor.fetchall())


def not_taken(group_id: str, seconds: float) -> list[tuple[int, datetime]]:
    """Replays that have waited for a process for longer than `seconds`; with since when."""
    queued = Replay.objects.filter(group_id=group_id, status=Replay.Status.QUEUED)
    old = queued.filter(created_at__lt=DatabaseTime() - Value(timedelta(seconds=seconds)))
    return list(old.order_by("pk").values_list("pk", "created_at"))


def waiting_of(checkpoint_id: int) -> list[ReplayRange]:
    """What replays that have not ended still have to read of a partition."""
    waiting = ReplayRange.objects.filter(replay__status__in=ACTIVE, state=ReplayRange.State.WAITING)
    return list(waiting.filter(checkpoint_id=checkpoint_id))


def active_ranges(group_id: str) -> list[tuple[int, int, int]]:
    """What replays that have not ended still have to read: (checkpoint id, start, end)."""
    waiting = ReplayRange.objects.filter(
        replay__group_id=group_id, replay__status__in=ACTIVE, state=ReplayRange.State.WAITING
    )
    return list(waiting.values_list("checkpoint_id", "start", "end"))


def purge(days: int) -> int:
    """Forget replays that ended more than `days` ago; the ledger and the audit keep what they did."""
    old = Replay.objects.filter(finished_at__lt=DatabaseTime() - Value(timedelta(days=days)))
    return int(old.delete()[1].get("offsets.Replay", 0))


def progress(replay: Replay) -> dict[str, Any]:
    """Done of total, rate and what is left, as every reader shows it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float8"
            " FROM offsets_replay WHERE id = %s",
            [replay.pk],
        )
        (seconds,) = cursor.fetchone()
    return {
        "id": replay.pk,
        "group": replay.group_id,
        "status": replay.status,
        "automatic": replay.automatic,
        "username": replay.username,
        "reason": replay.reason,
        "done_offsets": replay.done_offsets,
        "total_offsets": replay.total_offsets,
        "counted": replay.counted,
        "deduplicated": replay.deduplicated,
        "dead_letters": replay.dead_letters,
        "expired_offsets": replay.expired_offsets,
        "starts": replay.starts,
        **rates(replay.done_offsets, replay.total_offsets, seconds, ended=replay.finished_at is not None),
        "detail": replay.detail,
        "created_at": replay.created_at,
        "started_at": replay.started_at,
        "finished_at": replay.finished_at,
    }


def rates(done: int, total: int, seconds: float | None, *, ended: bool) -> dict[str, float | None]:
    """Offsets a second since the start, and the seconds that the rest will take at that rate."""
    rate = done / seconds if seconds and done else None
    eta = (total - done) / rate if rate and not ended else None
    return {
        "offsets_per_second": None if rate is None else round(rate, 1),
        "eta_seconds": None if eta is None else round(eta, 1),
        "seconds": None if seconds is None else round(seconds, 1),
    }
