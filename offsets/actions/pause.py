"""Pause and resume partitions: preview, then apply what was previewed, with its audit row in one transaction."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.attempt import attempt
from offsets.actions.guards import Actor, Preview, Request, Seen, check_allowed, check_unchanged, require_live
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.monitoring.lag import lag_records, per_second
from offsets.text import duration
from offsets.types import DesiredState

_RATE_WINDOW_SECONDS = 60


class ActionKind(enum.StrEnum):
    PAUSE = "pause"
    RESUME = "resume"

    @property
    def target_state(self) -> DesiredState:
        return DesiredState.PAUSED if self is ActionKind.PAUSE else DesiredState.RUNNING

    @property
    def done(self) -> str:
        """Past tense, for the journal."""
        return f"{self.value}d"


@dataclass(frozen=True, slots=True, kw_only=True)
class PausePreview(Preview):
    """What pausing or resuming will do, and the token to apply exactly that."""

    checkpoint_id: int
    before: Mapping[str, object]
    after: Mapping[str, object]
    seen: Seen

    def as_json(self) -> dict[str, Any]:
        seen = {"epoch": self.seen.epoch, "owner": self.seen.owner, "desired_state": self.seen.desired_state}
        return {
            **Preview.as_json(self),
            "checkpoint_id": self.checkpoint_id,
            "before": self.before,
            "after": self.after,
            "seen": seen,
        }


def preview(kind: ActionKind, checkpoint_id: int, actor: Actor) -> PausePreview:
    """Say what `set_paused` would do now. Raises RefusedError where it would refuse; changes and audits nothing."""
    check_allowed(kind, actor)
    checkpoint = _require_possible(kind, checkpoint_id, PartitionCheckpoint.objects.filter(pk=checkpoint_id).first())
    before = audit.state_of(checkpoint)
    return PausePreview(
        kind=kind,
        checkpoint_id=checkpoint.pk,
        target=checkpoint.name,
        text=_in_words(kind, checkpoint),
        before=before,
        after={**before, "desired_state": kind.target_state.value},
        seen=Seen.of(checkpoint),
    )


def set_paused(
    kind: ActionKind, checkpoint_id: int, request: Request, *, seen: Seen, undoes: OperatorAction | None = None
) -> OperatorAction:
    """Pause or resume, if the partition is still as it was seen. Raises RefusedError, having audited the refusal."""
    with attempt(kind, request, checkpoint_id) as change, change.transaction():
        checkpoint = _require_possible(kind, checkpoint_id, ledger.lock_checkpoint(checkpoint_id))
        check_unchanged(checkpoint, seen)
        return _apply(kind, checkpoint, request, undoes)


def _apply(
    kind: ActionKind, checkpoint: PartitionCheckpoint, request: Request, undoes: OperatorAction | None
) -> OperatorAction:
    before = audit.state_of(checkpoint)
    action = audit.applied(
        kind,
        checkpoint,
        request,
        before=before,
        after={**before, "desired_state": kind.target_state.value},
        detail=_in_words(kind, checkpoint),
        undoes=undoes,
    )
    if not ledger.set_desired_state(
        checkpoint.pk, checkpoint.desired_state, checkpoint.epoch, kind.target_state, action.pk
    ):
        # The row is locked, so this is a hand-made trigger or a bug; the transaction takes the audit row with it.
        raise StalePreviewError(f"{checkpoint.name} changed while it was locked; nothing was changed.")
    journal.record(
        checkpoint.group_id,
        kind.done,
        f"{checkpoint.name} {kind.done} by {request.actor.name}: {request.reason}",
        topic=checkpoint.topic,
        partition=checkpoint.partition,
    )
    return action


# --- Checks ---------------------------------------------------------------------------------------


def _require_possible(
    kind: ActionKind, checkpoint_id: int, checkpoint: PartitionCheckpoint | None
) -> PartitionCheckpoint:
    checkpoint = require_live(checkpoint_id, checkpoint)
    if checkpoint.desired_state == kind.target_state:
        raise RefusedError(f"{checkpoint.name} is already {kind.target_state}; nothing was changed.")
    return checkpoint


# --- Words ----------------------------------------------------------------------------------------


def _in_words(kind: ActionKind, checkpoint: PartitionCheckpoint) -> str:
    name, owner = checkpoint.name, checkpoint.owner_id
    within = duration(settings.HEARTBEAT_INTERVAL_MS / 1000)
    rate, waiting = _log_growth_and_lag(checkpoint)
    if kind is ActionKind.PAUSE:
        who = f"its worker {owner} stops within {within}" if owner else "no worker owns it; the next owner will wait"
        growth = f"lag will grow by about {rate:,.0f} a second" if rate is not None else "lag will grow"
        return f"Pause {name} at offset {checkpoint.next_offset:,}: {who}; {growth}."
    if checkpoint.halt_reason:
        return f"Resume {name}: it stays halted ({checkpoint.halt_reason}) and counts nothing until that is resolved."
    who = f"its worker {owner} resumes within {within}" if owner else "no worker owns it; the next owner will resume it"
    backlog = f"; {waiting:,} records behind" if waiting is not None else ""
    return f"Resume {name} at offset {checkpoint.next_offset:,}: {who}{backlog}."


def _log_growth_and_lag(checkpoint: PartitionCheckpoint) -> tuple[float | None, int | None]:
    """Records a second that arrive, over the last minute, and the lag; None where there are no recent samples."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM sampled_at)::float8, log_end_offset, log_start_offset FROM offsets_lagsample"
            " WHERE checkpoint_id = %s AND sampled_at BETWEEN statement_timestamp() - make_interval(secs => %s)"
            " AND statement_timestamp() ORDER BY sampled_at",
            [checkpoint.pk, _RATE_WINDOW_SECONDS],
        )
        samples = cursor.fetchall()
    if not samples:
        return None, None
    rate = per_second(samples[0][:2], samples[-1][:2])
    _, log_end, log_start = samples[-1]
    return (max(0.0, rate) if rate is not None else None), lag_records(log_end, checkpoint.next_offset, log_start)
