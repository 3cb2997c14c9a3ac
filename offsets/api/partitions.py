"""Partitions: preview an action, then apply what was previewed."""

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
    """What an action would do, in words, and the `seen` that the POST must repeat."""
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
    """Apply what was previewed, if the partition is still as it was seen."""
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
#: Words for a target, beside an offset; the log's bounds are asked when they are used.
_WORDS = ("earliest", "latest")


def _preview_move(request: HttpRequest, checkpoint_id: int, kind: MoveKind) -> MovePreview:
    move = Move(_known_id(checkpoint_id), _target(kind, checkpoint_id, request.GET.get("to", "")))
    return moves.preview(kind, [move], Actor.of_user(request.user))[0]


def _apply_move(
    request: HttpRequest, checkpoint_id: int, kind: MoveKind, body: dict[str, Any], reason: str
) -> OperatorAction:
    target = body.get("to", "")
    if not isinstance(target, str | int) or isinstance(target, bool):
        raise BadInputError("`to` must be an offset, as the preview gave it.")
    seen = _seen(body.get("seen"))
    if seen.next_offset is None:
        raise BadInputError("`seen` must hold next_offset, as the preview gave it.")
    move = Move(_known_id(checkpoint_id), _target(kind, checkpoint_id, str(target)), seen)
    actor = Actor.of_user(request.user)
    return moves.move_partitions(kind, [move], actor=actor, reason=reason, source=Source.API)[0]


def _target(kind: MoveKind, checkpoint_id: int, text: str) -> int:
    """An offset, or a word for one. Actions that choose their target themselves take none."""
    if kind not in (MoveKind.SEEK, MoveKind.SKIP):
        return 0
    if text in _WORDS:
        logs = moves.logs_of(PartitionCheckpoint.objects.filter(pk=checkpoint_id))
        if checkpoint_id not in logs:
            raise UnknownPartitionError(f"Kafka does not know the log of checkpoint {checkpoint_id}.")
        bounds = logs[checkpoint_id].bounds
        return bounds.start if text == "earliest" else bounds.end
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_INTEGER):
        raise BadInputError(f"`to` must be an offset, {' or '.join(_WORDS)}, not {text[:40]!r}.")
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
        raise UnknownPartitionError(f"There is no action {text!r}; use one of: {known}.") from None


def _known_id(checkpoint_id: int) -> int:
    """The path takes any digits; the database does not."""
    if checkpoint_id > MAX_INTEGER:
        raise UnknownPartitionError(f"There is no checkpoint {checkpoint_id}.")
    return checkpoint_id


def _seen(value: Any) -> Seen:
    if isinstance(value, dict):
        epoch, owner, state = value.get("epoch"), value.get("owner"), value.get("desired_state")
        at = value.get("next_offset")
        named = (owner is None or isinstance(owner, str)) and (at is None or type(at) is int)
        if named and type(epoch) is int and isinstance(state, str):
            return Seen(epoch, owner, state, at)
    raise BadInputError("`seen` must hold epoch, owner (or null) and desired_state, as the preview gave them.")
