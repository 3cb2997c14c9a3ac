"""Partitions: preview an action, then apply what was previewed."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import moves, pause
from offsets.actions.guards import Actor, Request, UnknownPartitionError
from offsets.actions.logs import logs_of
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move, MovePreview
from offsets.actions.pause import ActionKind
from offsets.api.http import (
    MAX_INTEGER,
    BadInputError,
    api_view,
    body_of,
    outcome_of,
    own_checkpoint,
    request_of,
    seen_of,
)
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.text import whole_number


@api_view("GET", "HEAD")
def preview(request: HttpRequest, checkpoint_id: int, kind: str) -> HttpResponse:
    """What an action would do, in words, and the `seen` that the POST must repeat."""
    actor, checkpoint_id = Actor.of_user(request.user), own_checkpoint(checkpoint_id)
    if kind in _MOVES:
        return JsonResponse(_preview_move(request, checkpoint_id, MoveKind(kind), actor).as_json())
    return JsonResponse(pause.preview(_kind(kind), checkpoint_id, actor).as_json())


@api_view("POST")
def act(request: HttpRequest, checkpoint_id: int, kind: str) -> HttpResponse:
    """Apply what was previewed, if the partition is still as it was seen."""
    body = body_of(request)
    asked, checkpoint_id = request_of(request, body), own_checkpoint(checkpoint_id)
    if kind in _MOVES:
        return JsonResponse(outcome_of(_apply_move(asked, checkpoint_id, MoveKind(kind), body)))
    action = pause.set_paused(_kind(kind), checkpoint_id, asked, seen=seen_of(body.get("seen")))
    return JsonResponse(outcome_of(action))


# --- Moves ----------------------------------------------------------------------------------------

_MOVES = frozenset(kind.value for kind in MoveKind)
#: Targets other than an offset; they are looked up in the log's bounds.
_WORDS = ("earliest", "latest")


def _preview_move(request: HttpRequest, checkpoint_id: int, kind: MoveKind, actor: Actor) -> MovePreview:
    target = _target(kind, checkpoint_id, request.GET.get("to", ""), actor)
    return moves.preview(kind, [Move(checkpoint_id, target)], actor)[0]


def _apply_move(asked: Request, checkpoint_id: int, kind: MoveKind, body: dict[str, Any]) -> OperatorAction:
    target = body.get("to", "")
    if not isinstance(target, str | int) or isinstance(target, bool):
        raise BadInputError("`to` must be an offset, as the preview gave it.")
    seen = seen_of(body.get("seen"))
    if seen.next_offset is None:
        raise BadInputError("`seen` must hold next_offset, as the preview gave it.")
    offset = _target(kind, checkpoint_id, str(target), asked.actor)
    return moves.move_partitions(kind, [Move(checkpoint_id, offset, seen)], asked)[0]


def _target(kind: MoveKind, checkpoint_id: int, text: str, actor: Actor) -> int:
    """An offset, or a word for one. Actions that choose their target themselves take none."""
    if kind not in (MoveKind.SEEK, MoveKind.SKIP):
        return 0
    if text in _WORDS:
        # Kafka is asked only for those who may act; the action refuses the others.
        if not actor.allowed:
            return 0
        logs = logs_of(PartitionCheckpoint.objects.filter(pk=checkpoint_id))
        if checkpoint_id not in logs:
            raise UnknownPartitionError(f"Cannot read the log bounds of checkpoint {checkpoint_id}.")
        bounds = logs[checkpoint_id].bounds
        return bounds.start if text == "earliest" else bounds.end
    offset = whole_number(text, maximum=MAX_INTEGER)
    if offset is None:
        raise BadInputError(f"`to` must be an offset, {' or '.join(_WORDS)}, not {text[:40]!r}.")
    return offset


# --- Input ----------------------------------------------------------------------------------------


def _kind(text: str) -> ActionKind:
    try:
        return ActionKind(text)
    except ValueError:
        known = ", ".join([kind.value for kind in ActionKind] + sorted(_MOVES))
        raise UnknownPartitionError(f"Unknown action {text!r}. Use one of: {known}.") from None
