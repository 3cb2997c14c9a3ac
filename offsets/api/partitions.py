"""Partitions: preview an action, then apply it."""

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import moves, pause
from offsets.actions.guards import Actor, Seen, Source, UnknownPartitionError
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move, MovePreview
from offsets.actions.pause import ActionKind
from offsets.api.http import MAX_INTEGER, BadInputError, api_view, body_of, outcome_of, reason_of
from offsets.models import OperatorAction, PartitionCheckpoint


@api_view("GET", "HEAD")
def preview(request: HttpRequest, checkpoint_id: int, kind: str) -> HttpResponse:
    """What an action will do, as text, and the `seen` that the POST must repeat."""
    if kind in _MOVES:
        return JsonResponse(_shown(_preview_move(request, checkpoint_id, MoveKind(kind))))
    shown = pause.preview(_kind(kind), _known_id(checkpoint_id), Actor.of_user(request.user))
    return JsonResponse(
        {
            "kind": shown.kind.value,
            "checkpoint_id": shown.checkpoint_id,
            "target": shown.target,
            "text": shown.text,
            "before": shown.before,
            "after": shown.after,
            "seen": {
                "epoch": shown.seen.epoch,
                "owner": shown.seen.owner,
                "desired_state": shown.seen.desired_state,
            },
        }
    )


@api_view("POST")
def act(request: HttpRequest, checkpoint_id: int, kind: str) -> HttpResponse:
    """Apply the previewed action, if the partition has not changed since."""
    body = body_of(request)
    reason = reason_of(body)
    if kind in _MOVES:
        return JsonResponse(outcome_of(_apply_move(request, checkpoint_id, MoveKind(kind), body, reason)))
    action = pause.set_paused(
        _kind(kind),
        _known_id(checkpoint_id),
        actor=Actor.of_user(request.user),
        reason=reason,
        source=Source.API,
        seen=_seen(body.get("seen")),
    )
    return JsonResponse(outcome_of(action))


# --- Moves ----------------------------------------------------------------------------------------

_MOVES = frozenset(kind.value for kind in MoveKind)
#: Targets that are not offsets. They are resolved to the log bounds when the request arrives.
_WORDS = ("earliest", "latest")


def _preview_move(request: HttpRequest, checkpoint_id: int, kind: MoveKind) -> MovePreview:
    move = Move(_known_id(checkpoint_id), _target(kind, checkpoint_id, request.GET.get("to", "")))
    return moves.preview(kind, [move], Actor.of_user(request.user))[0]


def _apply_move(
    request: HttpRequest, checkpoint_id: int, kind: MoveKind, body: dict[str, Any], reason: str
) -> OperatorAction:
    target = body.get("to", "")
    if not isinstance(target, str | int) or isinstance(target, bool):
        raise BadInputError("`to` must be an offset. Use that of the preview.")
    seen = _seen(body.get("seen"))
    if seen.next_offset is None:
        raise BadInputError("`seen` must contain next_offset. Use that of the preview.")
    move = Move(_known_id(checkpoint_id), _target(kind, checkpoint_id, str(target)), seen)
    actor = Actor.of_user(request.user)
    return moves.move_partitions(kind, [move], actor=actor, reason=reason, source=Source.API)[0]


def _target(kind: MoveKind, checkpoint_id: int, text: str) -> int:
    """The target offset from an offset or word; 0 for actions that choose their target themselves."""
    if kind not in (MoveKind.SEEK, MoveKind.SKIP):
        return 0
    if text in _WORDS:
        logs = moves.logs_of(PartitionCheckpoint.objects.filter(pk=checkpoint_id))
        if checkpoint_id not in logs:
            raise UnknownPartitionError(
                f"Cannot read the log bounds of checkpoint {checkpoint_id}: the topic was deleted or "
                "the partition has no leader."
            )
        bounds = logs[checkpoint_id].bounds
        return bounds.start if text == "earliest" else bounds.end
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_INTEGER):
        raise BadInputError(f"Invalid `to` {text[:40]!r}. Use an offset, {' or '.join(_WORDS)}.")
    return int(text)


def _shown(preview: MovePreview) -> dict[str, Any]:
    return {
        "kind": preview.kind.value,
        "checkpoint_id": preview.checkpoint_id,
        "target": preview.target,
        "text": preview.text,
        "before": preview.before,
        "after": preview.after,
        "to": preview.plan.target,
        "log_start_offset": preview.bounds.start,
        "log_end_offset": preview.bounds.end,
        "seen": asdict(preview.seen),
    }


# --- Input ----------------------------------------------------------------------------------------


def _kind(text: str) -> ActionKind:
    try:
        return ActionKind(text)
    except ValueError:
        known = ", ".join([kind.value for kind in ActionKind] + sorted(_MOVES))
        raise UnknownPartitionError(f"Unknown action {text!r}. Use one of: {known}.") from None


def _known_id(checkpoint_id: int) -> int:
    """Refuse an id that is too large for the database."""
    if checkpoint_id > MAX_INTEGER:
        raise UnknownPartitionError(f"Unknown checkpoint {checkpoint_id}.")
    return checkpoint_id


def _seen(value: Any) -> Seen:
    if isinstance(value, dict):
        epoch, owner, state = value.get("epoch"), value.get("owner"), value.get("desired_state")
        next_offset = value.get("next_offset")
        valid = (owner is None or isinstance(owner, str)) and (next_offset is None or type(next_offset) is int)
        if valid and type(epoch) is int and isinstance(state, str):
            return Seen(epoch, owner, state, next_offset)
    raise BadInputError("`seen` must contain epoch, owner (or null) and desired_state. Use those of the preview.")
