"""Operator actions: preview, then apply what was previewed, with its audit row in one transaction.

The one door for page, admin, API and commands: permission, reason and compare-and-set are checked here, not there.
A refusal changes nothing and leaves an audit row as well.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.guards import (
    Actor,
    Seen,
    Source,
    bounded_wait,
    check_allowed,
    check_reason,
    check_unchanged,
    name_of,
    require_live,
)
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.monitoring.lag import per_second
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
        """How the journal names it."""
        return f"{self.value}d"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an action will do, in words, and the token to apply exactly that."""

    kind: ActionKind
    checkpoint_id: int
    target: str
    text: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    seen: Seen


def preview(kind: ActionKind, checkpoint_id: int, actor: Actor) -> Preview:
    """Say what `apply` would do now. Raises RefusedError where it would refuse; audits nothing, changes nothing."""
    checkpoint = PartitionCheckpoint.objects.filter(pk=checkpoint_id).first()
    check_allowed(kind, actor)
    checkpoint = _check_possible(kind, checkpoint_id, checkpoint)
    before = audit.state_of(checkpoint)
    return Preview(
        kind,
        checkpoint.pk,
        name_of(checkpoint),
        _in_words(kind, checkpoint),
        before,
        {**before, "desired_state": kind.target_state.value},
        Seen.of(checkpoint),
    )


def set_paused(
    kind: ActionKind,
    checkpoint_id: int,
    *,
    actor: Actor,
    reason: str,
    source: Source,
    seen: Seen,
    undoes: OperatorAction | None = None,
) -> OperatorAction:
    """Do it, if the partition is still as it was seen. Raises RefusedError, having audited the refusal."""
    reason = reason.replace("\x00", "").strip()
    try:
        with transaction.atomic(), bounded_wait():
            checkpoint = ledger.lock_checkpoint(checkpoint_id)
            check_allowed(kind, actor)
            check_reason(reason)
            checkpoint = _check_possible(kind, checkpoint_id, checkpoint)
            check_unchanged(checkpoint, seen)
            return _apply(kind, checkpoint, actor, reason, source, undoes)
    except RefusedError as error:
        audit.refused(kind, checkpoint_id, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _apply(
    kind: ActionKind,
    checkpoint: PartitionCheckpoint,
    actor: Actor,
    reason: str,
    source: Source,
    undoes: OperatorAction | None,
) -> OperatorAction:
    before = audit.state_of(checkpoint)
    text = _in_words(kind, checkpoint)
    action = audit.applied(
        kind,
        checkpoint,
        actor=actor,
        reason=reason,
        source=source,
        before=before,
        after={**before, "desired_state": kind.target_state.value},
        detail=text,
        undoes=undoes,
    )
    if not ledger.set_desired_state(
        checkpoint.pk, checkpoint.desired_state, checkpoint.epoch, kind.target_state, action.pk
    ):
        # The row is locked, so this is a hand-made trigger or a bug; the transaction takes the audit row with it.
        raise StalePreviewError(f"{name_of(checkpoint)} changed while it was locked; nothing was changed.")
    journal.record(
        checkpoint.group_id,
        kind.done,
        f"{name_of(checkpoint)} {kind.done} by {actor.name}: {reason}",
        topic=checkpoint.topic,
        partition=checkpoint.partition,
    )
    return action


# --- Checks ---------------------------------------------------------------------------------------


def _check_possible(
    kind: ActionKind, checkpoint_id: int, checkpoint: PartitionCheckpoint | None
) -> PartitionCheckpoint:
    checkpoint = require_live(checkpoint_id, checkpoint)
    if checkpoint.desired_state == kind.target_state:
        raise RefusedError(f"{name_of(checkpoint)} is already {kind.target_state}; nothing was changed.")
    return checkpoint


# --- Words ----------------------------------------------------------------------------------------


def _in_words(kind: ActionKind, checkpoint: PartitionCheckpoint) -> str:
    name, owner = name_of(checkpoint), checkpoint.owner_id
    within = duration(settings.HEARTBEAT_INTERVAL_MS / 1000)
    rate, waiting = _log_growth_and_lag(checkpoint)
    if kind is ActionKind.PAUSE:
        who = f"its worker {owner} stops within {within}" if owner else "no worker owns it, and the next one waits"
        growth = f"lag will grow by about {rate:,.0f} a second" if rate is not None else "lag will grow"
        return f"Pause {name} at offset {checkpoint.next_offset:,}: {who}; {growth}."
    if checkpoint.halt_reason:
        return f"Resume {name}: it stays halted ({checkpoint.halt_reason}) and counts nothing until that is resolved."
    who = f"its worker {owner} goes on within {within}" if owner else "no worker owns it; it goes on when one does"
    backlog = f"; {waiting:,} records wait" if waiting is not None else ""
    return f"Resume {name} at offset {checkpoint.next_offset:,}: {who}{backlog}."


def _log_growth_and_lag(checkpoint: PartitionCheckpoint) -> tuple[float | None, int | None]:
    """Records a second that arrive, over the last minute, and the lag; None where there are no recent samples."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM sampled_at)::float8, log_end_offset FROM offsets_lagsample"
            " WHERE checkpoint_id = %s AND sampled_at > statement_timestamp() - make_interval(secs => %s)"
            " ORDER BY sampled_at",
            [checkpoint.pk, _RATE_WINDOW_SECONDS],
        )
        samples = cursor.fetchall()
    if not samples:
        return None, None
    rate = per_second(samples[0], samples[-1])
    return (max(0.0, rate) if rate is not None else None), max(0, samples[-1][1] - checkpoint.next_offset)
