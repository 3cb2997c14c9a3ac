"""Undo an operator's action, where that is possible; itself an action, with preview and audit."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings

from offsets import journal, ledger
from offsets.actions import audit, dead_letters, moves, pause, retire
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.guards import Actor, Request, Seen, check_allowed, check_unchanged, require_live
from offsets.actions.logs import log_of, logs_of
from offsets.actions.move_plans import MoveKind, plan_resume
from offsets.actions.moves import Move, MovePreview, context_of
from offsets.actions.pause import ActionKind
from offsets.errors import RefusedError
from offsets.models import DeadLetter, OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange
from offsets.text import whole_number

UNDO = "undo"
_INVERSE = {ActionKind.PAUSE: ActionKind.RESUME, ActionKind.RESUME: ActionKind.PAUSE}
_SEEKS = (MoveKind.SEEK, MoveKind.SKIP, MoveKind.ACCEPT_LOSS)
#: Kinds that can be undone; whether an action still can is checked in its preview.
UNDOABLE = frozenset({*_SEEKS, *_INVERSE, MoveKind.REBUILD, dead_letters.DISCARD, retire.KIND})


def find(reference: str, group_id: str = "") -> list[OperatorAction]:
    """The applied actions that `reference` names: one by its number, or all of one change by its id; of one group, if
    it is given. A retirement is always its whole change.

    Raises RefusedError when there are none, or when one of them was already undone.
    """
    applied = OperatorAction.objects.filter(outcome=OperatorAction.Outcome.APPLIED).select_related("checkpoint")
    number = whole_number(reference)
    if number is not None:
        rows = list(applied.filter(pk=number))
    else:
        try:
            rows = list(applied.filter(change_id=uuid.UUID(reference)).order_by("pk"))
        except ValueError:
            raise RefusedError(f"{reference!r} is neither the number of an action nor the id of a change.") from None
    if not rows or (group_id and _groups(rows) - {group_id}):
        raise RefusedError(f"No applied action {reference}. See the action log.")
    if number is not None and rows[0].kind == retire.KIND:
        # A topic is retired as a whole, and comes back as a whole.
        rows = list(applied.filter(change_id=rows[0].change_id).order_by("pk"))
    for row in rows:
        if OperatorAction.objects.filter(undoes=row).exists():
            raise RefusedError(f"Action {row.pk} ({row.kind} {row.target}) was already undone.")
    return rows


def _groups(actions: Sequence[OperatorAction]) -> set[str]:
    """The groups that these acted on. An action on dead letters of several partitions names none itself."""
    named = {action.checkpoint.group_id for action in actions if action.checkpoint is not None}
    unnamed = [action.pk for action in actions if action.checkpoint is None]
    letters = DeadLetter.objects.filter(action__in=unnamed) if unnamed else DeadLetter.objects.none()
    return named | set(letters.values_list("checkpoint__group_id", flat=True).distinct())


def preview(undone: Sequence[OperatorAction], actor: Actor) -> list[MovePreview]:
    """What undoing these seeks would do. Raises RefusedError where that is no longer possible."""
    return moves.preview(MoveKind.SEEK, [_seek_back(action) for action in undone], actor)


def texts(undone: Sequence[OperatorAction], actor: Actor) -> list[str]:
    """What undoing these would do, in words; of any kind."""
    check_allowed(UNDO, actor)
    described = []
    for action in undone:
        if action.kind in _SEEKS:
            described += [shown.text for shown in preview([action], actor)]
        elif action.kind == MoveKind.REBUILD:
            described.append(_restoration(action).text)
        elif action.kind == retire.KIND:
            described.append(retire.undo_text(action))
        elif action.kind == dead_letters.DISCARD:
            described.append(dead_letters.preview(dead_letters.REOPEN, _discarded(action), actor).text)
        elif action.kind in _INVERSE and action.checkpoint_id is not None:
            described.append(pause.preview(_INVERSE[ActionKind(action.kind)], action.checkpoint_id, actor).text)
        else:
            raise RefusedError(f"Action {action.pk} ({action.kind} {action.target}) cannot be undone.")
    return described


def seen_of(undone: Sequence[OperatorAction]) -> dict[int, Seen]:
    """The partitions as they are now, by action: for `undo`, which then applies to nothing else."""
    rows = {action.pk: _moved(action) for action in undone}
    return {pk: Seen.of(row) for pk, row in rows.items() if row is not None}


def _moved(action: OperatorAction) -> PartitionCheckpoint | None:
    """The checkpoint that undoing an action changes."""
    if action.kind == MoveKind.REBUILD:
        return _both(action)[1]
    if action.kind in (*_SEEKS, *_INVERSE) and action.checkpoint is not None:
        action.checkpoint.refresh_from_db()
        return action.checkpoint
    return None


def undo(
    undone: Sequence[OperatorAction], request: Request, *, seen: Mapping[int, Seen] | None = None
) -> list[OperatorAction]:
    """Undo all of them or nothing. Raises RefusedError, audited.

    `seen` is what `seen_of` returned when the undo was previewed; without it, partitions are compared with what they
    are when Kafka is asked.
    """
    first = undone[0]
    with attempt(UNDO, request, first.checkpoint_id, target=f"{first.kind} {first.target}"):
        seeks = all(action.kind in _SEEKS for action in undone)
        back = [_seek_back(action, (seen or {}).get(action.pk)) for action in undone] if seeks else []
        inverse = _INVERSE.get(first.kind) if len(undone) == 1 else None  # type: ignore[call-overload]
        now = pause.preview(inverse, first.checkpoint_id or 0, request.actor).seen if inverse else None
    # From here on a refusal is audited by the action that undoes.
    if seeks:
        return moves.move_partitions(MoveKind.SEEK, back, request)
    if inverse and now:
        return [
            pause.set_paused(
                inverse, first.checkpoint_id or 0, request, seen=(seen or {}).get(first.pk, now), undoes=first
            )
        ]
    if len(undone) == 1 and first.kind == dead_letters.DISCARD:
        done = dead_letters.resolve(dead_letters.REOPEN, _discarded(first).ids, request, undoes=first)
        return [done.action]
    if all(action.kind == MoveKind.REBUILD for action in undone):
        return _swap_back(undone, request, seen or {})
    if all(action.kind == retire.KIND for action in undone):
        return retire.bring_back(undone, UNDO, request)
    raise RefusedError("These actions cannot be undone together. Undo them one by one, the last one first.")


def _discarded(action: OperatorAction) -> DeadLetterFilter:
    """The dead letters that an action discarded. Raises RefusedError where none are left."""
    ids = tuple(DeadLetter.objects.filter(action=action).order_by("pk").values_list("pk", flat=True))
    if not ids:
        raise RefusedError(f"Action {action.pk} ({action.kind} {action.target}): nothing left to undo.")
    group_id = DeadLetter.objects.values_list("checkpoint__group_id", flat=True).get(pk=ids[0])
    return DeadLetterFilter(group_id, ids=ids)


def _seek_back(action: OperatorAction, seen: Seen | None = None) -> Move:
    """The seek that undoes a seek: to the offset before, with the baseline where nothing was counted below it."""
    row = require_live(action.checkpoint_id or 0, action.checkpoint)
    row.refresh_from_db()
    was, went = int(action.before["next_offset"]), int(action.after["next_offset"])
    if went < was <= row.next_offset:
        raise RefusedError(f"{row.name} has passed {was:,} again since action {action.pk}: nothing left to undo.")
    baseline = int(action.before["baseline_offset"])
    lowered = int(action.after["baseline_offset"]) < baseline
    restores = lowered and not ledger.anything_below(row.pk, baseline)
    return Move(row.pk, was, seen or Seen.of(row), baseline if restores else None, undoes=action)


def _both(action: OperatorAction) -> tuple[PartitionCheckpoint, PartitionCheckpoint]:
    """The checkpoint that a rebuild retired, and the one that it started, which must be live."""
    old = action.checkpoint
    new = PartitionCheckpoint.objects.filter(pk=action.after.get("checkpoint_id"), retired_at__isnull=True).first()
    if old is None or old.purged_at is not None:
        raise _purged(action)
    if new is None or old.retired_reason != "rebuilt":
        raise RefusedError(f"Action {action.pk} ({action.kind} {action.target}): the partition was rebuilt since.")
    return old, new


def _purged(action: OperatorAction) -> RefusedError:
    return RefusedError(
        f"Action {action.pk} ({action.kind} {action.target}): the counts from before were deleted, "
        f"{settings.REBUILT_RETENTION_DAYS} days after the rebuild (REBUILT_RETENTION_DAYS)."
    )


@dataclass(frozen=True, slots=True)
class _Restoration:
    """What undoing a rebuild does, as of when Kafka was asked."""

    action: OperatorAction
    old: PartitionCheckpoint
    new: PartitionCheckpoint
    seen: Seen
    text: str


def _restoration(action: OperatorAction) -> _Restoration:
    """Ask Kafka whether the old ledger can go on. Raises RefusedError, ServiceUnavailableError."""
    old, new = _both(action)
    log = log_of(old, logs_of([old]))
    at = context_of(old, log)
    expired = old.next_offset < log.bounds.start
    known = ledger.known_ranges(old.pk, OffsetRange(old.next_offset, log.bounds.start)) if expired else []
    text = (
        f"Undo the rebuild of {new.name}: restores the counts from before, drops the counts since, and resumes at "
        f"{old.next_offset:,}.{plan_resume(at, known, log.bounds).in_words(log.bounds)}"
    )
    return _Restoration(action, old, new, Seen.of(new), text)


def _swap_back(undone: Sequence[OperatorAction], request: Request, seen: Mapping[int, Seen]) -> list[OperatorAction]:
    with attempt(UNDO, request, undone[0].checkpoint_id or 0) as change:
        restored = [_restoration(action) for action in undone]
        with change.transaction():
            done = []
            for restoration in restored:
                change.checkpoint_id = restoration.old.pk
                done.append(_swap(restoration, change, seen.get(restoration.action.pk, restoration.seen)))
            return done


def _swap(restoration: _Restoration, change: Attempt, seen: Seen) -> OperatorAction:
    pair = _both(restoration.action)
    locked = ledger.lock_checkpoints([row.pk for row in pair])
    old, new = (locked[row.pk] for row in pair)
    if old.purged_at is not None:
        raise _purged(restoration.action)
    check_unchanged(new, seen)
    done = audit.applied(
        *(UNDO, new, change.request),
        before=audit.state_of(new),
        after={},
        detail=restoration.text,
        change_id=change.change_id,
        undoes=restoration.action,
    )
    back = ledger.swap_back(old, new, action=done)
    audit.complete(done, audit.state_of(back))
    journal.record(
        *(new.group_id, UNDO, f"{new.name}: rebuild undone by {change.request.actor.name}: {change.request.reason}"),
        topic=new.topic,
        partition=new.partition,
    )
    return done
