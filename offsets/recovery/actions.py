"""Operator actions: preview, then apply what was previewed, with its audit row in one transaction.

The one door for page, admin, API and commands: permission, reason and compare-and-set are checked here, not there.
A refusal changes nothing and leaves an audit row as well.
"""

import enum
import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from django.conf import settings
from django.db import OperationalError, connection, transaction

from offsets import journal, ledger
from offsets.errors import NotAllowedError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.health import duration, per_second
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.permissions import AnyUser, can_operate
from offsets.types import DesiredState

MAX_REASON_LENGTH = 500
_LOCK_NOT_AVAILABLE = "55P03"
_RATE_WINDOW_SECONDS = 60


class UnknownPartitionError(RefusedError):
    """No checkpoint has this id."""


class ReasonError(RefusedError):
    """The reason is missing or too long; the audit row would say nothing."""


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


class Source(enum.StrEnum):
    """Through which door an action came."""

    ADMIN = "admin"
    API = "api"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and whether they may. Audit rows keep the name: it must outlive the user."""

    name: str
    allowed: bool

    @classmethod
    def of_user(cls, user: AnyUser) -> "Actor":
        return cls(user.get_username(), can_operate(user))

    @classmethod
    def of_operating_system(cls) -> "Actor":
        """Whoever can run commands beside the settings can do anything; the audit still wants a name."""
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = "unknown"
        return cls(f"os:{name}"[:150], allowed=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """What an operator saw of a partition: the compare half of every action's compare-and-set."""

    epoch: int
    owner: str | None
    desired_state: str

    @classmethod
    def of(cls, checkpoint: PartitionCheckpoint) -> "Seen":
        return cls(checkpoint.epoch, checkpoint.owner_id, checkpoint.desired_state)


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
    _check_allowed(kind, actor)
    checkpoint = _check_possible(kind, checkpoint_id, checkpoint)
    before = _state(checkpoint)
    return Preview(
        kind,
        checkpoint.pk,
        _name(checkpoint),
        _in_words(kind, checkpoint),
        before,
        {**before, "desired_state": kind.target_state.value},
        Seen.of(checkpoint),
    )


def apply(
    kind: ActionKind, checkpoint_id: int, *, actor: Actor, reason: str, source: Source, seen: Seen
) -> OperatorAction:
    """Do it, if the partition is still as it was seen. Raises RefusedError, having audited the refusal."""
    reason = reason.replace("\x00", "").strip()
    try:
        with transaction.atomic(), _bounded_wait():
            checkpoint = ledger.lock_checkpoint(checkpoint_id)
            _check_allowed(kind, actor)
            _check_reason(reason)
            checkpoint = _check_possible(kind, checkpoint_id, checkpoint)
            _check_unchanged(checkpoint, seen)
            return _apply(kind, checkpoint, actor, reason, source)
    except RefusedError as error:
        _audit_refusal(kind, checkpoint_id, actor, reason, source, str(error))
        raise


def _apply(
    kind: ActionKind, checkpoint: PartitionCheckpoint, actor: Actor, reason: str, source: Source
) -> OperatorAction:
    before = _state(checkpoint)
    text = _in_words(kind, checkpoint)
    action = OperatorAction.objects.create(
        kind=kind,
        checkpoint=checkpoint,
        username=actor.name,
        target=str(checkpoint),
        source=source,
        reason=reason,
        before=before,
        after={**before, "desired_state": kind.target_state.value},
        outcome=OperatorAction.Outcome.APPLIED,
        detail=text,
    )
    if not ledger.set_desired_state(
        checkpoint.pk, checkpoint.desired_state, checkpoint.epoch, kind.target_state, action.pk
    ):
        # The row is locked, so this is a hand-made trigger or a bug; the transaction takes the audit row with it.
        raise StalePreviewError(f"{_name(checkpoint)} changed while it was locked; nothing was changed.")
    journal.record(
        checkpoint.group_id,
        kind.done,
        f"{_name(checkpoint)} {kind.done} by {actor.name}: {reason}",
        topic=checkpoint.topic,
        partition=checkpoint.partition,
    )
    return action


# --- Checks ---------------------------------------------------------------------------------------


def _check_allowed(kind: ActionKind, actor: Actor) -> None:
    if not actor.allowed:
        raise NotAllowedError(
            f"{actor.name or 'An anonymous user'} may not {kind} partitions. Ask for the group 'operator'."
        )


def _check_reason(reason: str) -> None:
    if not reason:
        raise ReasonError("Say why: a reason is required, and kept with the action.")
    if len(reason) > MAX_REASON_LENGTH:
        raise ReasonError(f"The reason has {len(reason)} characters; at most {MAX_REASON_LENGTH} are kept.")


def _check_possible(
    kind: ActionKind, checkpoint_id: int, checkpoint: PartitionCheckpoint | None
) -> PartitionCheckpoint:
    if checkpoint is None:
        raise UnknownPartitionError(f"There is no checkpoint {checkpoint_id}.")
    if checkpoint.retired_at is not None:
        raise RefusedError(
            f"{_name(checkpoint)}: this checkpoint was retired ({checkpoint.retired_reason or 'no reason kept'}); "
            "act on the live one."
        )
    if checkpoint.desired_state == kind.target_state:
        raise RefusedError(f"{_name(checkpoint)} is already {kind.target_state}; nothing was changed.")
    return checkpoint


def _check_unchanged(checkpoint: PartitionCheckpoint, seen: Seen) -> None:
    now = Seen.of(checkpoint)
    moved = [
        f"{name} was {was if was is not None else 'nobody'}, is {value if value is not None else 'nobody'}"
        for (name, was), value in zip(asdict(seen).items(), asdict(now).values(), strict=True)
        if was != value
    ]
    if moved:
        raise StalePreviewError(
            f"{_name(checkpoint)} has changed since you looked: {'; '.join(moved)}. Nothing was changed; look again."
        )


def _audit_refusal(
    kind: ActionKind, checkpoint_id: int, actor: Actor, reason: str, source: Source, detail: str
) -> None:
    """Outside the transaction that was rolled back; before and after are the same."""
    checkpoint = PartitionCheckpoint.objects.filter(pk=checkpoint_id).first()
    state = _state(checkpoint) if checkpoint else {}
    OperatorAction.objects.create(
        kind=kind,
        checkpoint=checkpoint,
        username=actor.name,
        target=str(checkpoint) if checkpoint else f"checkpoint {checkpoint_id}",
        source=source,
        reason=reason[:MAX_REASON_LENGTH],
        before=state,
        after=state,
        outcome=OperatorAction.Outcome.REFUSED,
        detail=detail,
    )


@contextmanager
def _bounded_wait() -> Iterator[None]:
    """Wait briefly for a row that a commit holds; a stopped worker may hold it for many seconds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(settings.CLAIM_LOCK_TIMEOUT_MS)])
    try:
        yield
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise ServiceUnavailableError(
            "The partition's worker holds it in a transaction that does not end. Nothing was changed; try again."
        ) from error


# --- Words ----------------------------------------------------------------------------------------


def _name(checkpoint: PartitionCheckpoint) -> str:
    return f"{checkpoint.topic}-{checkpoint.partition}"


def _state(checkpoint: PartitionCheckpoint) -> dict[str, object]:
    return {
        "desired_state": checkpoint.desired_state,
        "next_offset": checkpoint.next_offset,
        "epoch": checkpoint.epoch,
        "owner": checkpoint.owner_id,
    }


def _in_words(kind: ActionKind, checkpoint: PartitionCheckpoint) -> str:
    name, owner = _name(checkpoint), checkpoint.owner_id
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
