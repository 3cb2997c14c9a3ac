"""The rows of replays: inserts, advances and finishes them; their only writer."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import F, Value
from django.db.models.functions import Coalesce

from offsets import journal, leases, purging
from offsets.leases import LeaseToken
from offsets.models import DatabaseTime, OperatorAction, Replay, ReplayRange
from offsets.replays.plans import ReplayPlan, Wanted

KIND = "replay"


ACTIVE = (Replay.Status.QUEUED, Replay.Status.RUNNING)


class TakenOverError(Exception):
    """Another process runs this replay now."""


def insert(
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
            checkpoint_id=span.checkpoint_id,
            start=plan.readable.start,
            end=plan.readable.end,
            position=plan.readable.start,
        )
        for span, plan in kept
        if plan.readable
    )
    journal.record(group_id, KIND, f"Replay {replay.pk} of {replay.total_offsets:,} offsets by {username}: {reason}")
    return replay


def request_cancel(replay_id: int) -> bool:
    """Ask a replay to stop; a queued one ends at once. False where it has ended or was asked before."""
    waiting = Replay.objects.filter(pk=replay_id, status__in=ACTIVE, cancel_requested=False)
    if not waiting.update(cancel_requested=True):
        return False
    Replay.objects.filter(pk=replay_id, status=Replay.Status.QUEUED).update(
        status=Replay.Status.CANCELLED, finished_at=DatabaseTime(), detail="Cancelled before it began."
    )
    return True


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one transaction has brought a range, and what it counted."""

    position: int
    counted: int = 0
    deduplicated: int = 0
    dead_letters: int = 0


def start(replay_id: int) -> Replay | None:
    """Mark it as running; None when it has ended. A cancelled one starts, too, to be ended: its process may be dead."""
    waiting = Replay.objects.filter(pk=replay_id, status__in=ACTIVE)
    begun = waiting.update(
        status=Replay.Status.RUNNING, starts=F("starts") + 1, started_at=Coalesce("started_at", DatabaseTime())
    )
    return Replay.objects.get(pk=replay_id) if begun else None


def waiting_ranges(replay: Replay) -> list[ReplayRange]:
    ranges = replay.ranges.filter(state=ReplayRange.State.WAITING).select_related("checkpoint")
    return list(ranges.order_by("checkpoint_id", "start"))


def advance(span: ReplayRange, step: Progress, token: LeaseToken) -> None:
    """Move a range forward, in the transaction that counted it. Raises TakenOverError."""
    state = ReplayRange.State.DONE if step.position >= span.end else ReplayRange.State.WAITING
    _change(span, token, position=step.position, state=state)
    Replay.objects.filter(pk=span.replay_id).update(
        done_offsets=F("done_offsets") + (step.position - span.position),
        counted=F("counted") + step.counted,
        deduplicated=F("deduplicated") + step.deduplicated,
        dead_letters=F("dead_letters") + step.dead_letters,
    )


def pass_over(span: ReplayRange, position: int, detail: str, token: LeaseToken, *, expired: int) -> None:
    """Advance a range past offsets that Kafka has deleted, `expired` of them uncounted. Raises TakenOverError."""
    state = ReplayRange.State.EXPIRED if position >= span.end else ReplayRange.State.WAITING
    _change(span, token, position=position, state=state, detail=detail)
    Replay.objects.filter(pk=span.replay_id).update(
        done_offsets=F("done_offsets") + (position - span.position), expired_offsets=F("expired_offsets") + expired
    )


def give_up(span: ReplayRange, detail: str, token: LeaseToken) -> None:
    """Leave the rest of a range unreplayed, for the reason in `detail`. Raises TakenOverError."""
    _change(span, token, state=ReplayRange.State.REFUSED, detail=detail)
    Replay.objects.filter(pk=span.replay_id).update(done_offsets=F("done_offsets") + (span.end - span.position))


def _change(span: ReplayRange, token: LeaseToken, **values: Any) -> None:
    """Compare-and-set, while the lease is held: a process that was suspended and resumes changes nothing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM offsets_lease WHERE name = %s AND holder = %s AND epoch = %s FOR SHARE",
            [token.name, token.holder, token.epoch],
        )
        if cursor.fetchone() is None:
            raise TakenOverError
    waiting = ReplayRange.objects.filter(pk=span.pk, position=span.position, state=ReplayRange.State.WAITING)
    if not waiting.update(**values):
        raise TakenOverError


def is_cancelled(replay_id: int) -> bool:
    return Replay.objects.filter(pk=replay_id, cancel_requested=True).exists()


def finish(replay_id: int) -> Replay:
    """Set its final status: done, failed where a range was refused, cancelled where it was asked to stop."""
    replay = Replay.objects.get(pk=replay_id)
    left = replay.ranges.filter(state=ReplayRange.State.WAITING).exists()
    refused = list(replay.ranges.filter(state=ReplayRange.State.REFUSED).values_list("detail", flat=True)[:3])
    if left:
        status, detail = Replay.Status.CANCELLED, "Cancelled; counts so far stay."
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
    parts = [f"{replay.counted:,} events counted", f"{replay.deduplicated:,} already counted"]
    if replay.dead_letters:
        parts.append(f"{replay.dead_letters:,} dead letters")
    if replay.expired_offsets:
        parts.append(f"{replay.expired_offsets:,} offsets no longer in Kafka")
    return ", ".join(parts) + "."


def without_runner(group_id: str) -> list[int]:
    """Active replays without a process: queued ones, and those whose process died."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id FROM offsets_replay r"  # noqa: S608 - a constant
            " WHERE r.group_id = %s AND r.status IN ('queued', 'running')"
            " AND NOT EXISTS (SELECT 1 FROM offsets_lease l WHERE l.name = 'replay:' || r.id"
            f" AND {leases.HELD}) ORDER BY r.id",
            [group_id],
        )
        return [row[0] for row in cursor.fetchall()]


def lease_seconds() -> float:
    """The heartbeat timeout of a process that runs a replay: the same as a worker's."""
    return float(settings.HEARTBEAT_TIMEOUT_SECONDS)


def orphaned(group_id: str) -> list[tuple[int, datetime]]:
    """Running replays whose process is dead, with the time it was last alive."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id,"  # noqa: S608 - a constant
            " coalesce(least(l.expires_at - make_interval(secs => %s), clock_timestamp()), r.started_at)"
            " FROM offsets_replay r"
            " LEFT JOIN offsets_lease l ON l.name = 'replay:' || r.id WHERE r.group_id = %s AND r.status = 'running'"
            f" AND (l.name IS NULL OR NOT {leases.HELD}) ORDER BY r.id",
            [lease_seconds(), group_id],
        )
        return list(cursor.fetchall())


def not_taken(group_id: str, seconds: float) -> list[tuple[int, datetime]]:
    """Replays that have been queued for longer than `seconds`, with the time since when."""
    queued = Replay.objects.filter(group_id=group_id, status=Replay.Status.QUEUED)
    old = queued.filter(created_at__lt=DatabaseTime() - Value(timedelta(seconds=seconds)))
    return list(old.order_by("pk").values_list("pk", "created_at"))


def waiting_of(checkpoint_id: int) -> list[ReplayRange]:
    """The ranges of a partition that active replays still have to read."""
    waiting = ReplayRange.objects.filter(replay__status__in=ACTIVE, state=ReplayRange.State.WAITING)
    return list(waiting.filter(checkpoint_id=checkpoint_id))


def active_ranges(group_id: str) -> list[tuple[int, int, int]]:
    """The ranges that active replays still have to read: (checkpoint id, start, end)."""
    waiting = ReplayRange.objects.filter(
        replay__group_id=group_id, replay__status__in=ACTIVE, state=ReplayRange.State.WAITING
    )
    return list(waiting.values_list("checkpoint_id", "start", "end"))


def purge(days: int) -> int:
    """Delete replays that ended more than `days` ago; the ledger and the audit log keep their effects."""
    return purging.in_chunks(lambda limit: _purge_chunk(days, limit), chunk=1000)


def _purge_chunk(days: int, limit: int) -> int:
    old = Replay.objects.filter(finished_at__lt=DatabaseTime() - Value(timedelta(days=days))).order_by("pk")
    ids = list(old.values_list("pk", flat=True)[:limit])
    return int(Replay.objects.filter(pk__in=ids).delete()[1].get("offsets.Replay", 0))


def progress(replay: Replay) -> dict[str, Any]:
    """Progress, rate and time left, as every reader shows it."""
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
    """Offsets per second since the start, and the seconds left at that rate."""
    rate = done / seconds if seconds and done else None
    eta = (total - done) / rate if rate and not ended else None
    return {
        "offsets_per_second": None if rate is None else round(rate, 1),
        "eta_seconds": None if eta is None else round(eta, 1),
        "seconds": None if seconds is None else round(seconds, 1),
    }
