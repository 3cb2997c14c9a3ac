"""The page's HTTP interface. Always JSON; an `error` says what to do, and then nothing was changed."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from analytics.dashboard import dashboard_of
from offsets.actions import moves, pause, undo
from offsets.actions.eviction import UnknownWorkerError
from offsets.actions.guards import Actor, ReasonError, Seen, Source, UnknownPartitionError
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move, MovePreview
from offsets.actions.pause import ActionKind
from offsets.database import DATABASE_LOST
from offsets.errors import NotAllowedError, RefusedError, ServiceUnavailableError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.permissions import can_view
from offsets.text import postgres_text

View = Callable[..., HttpResponseBase]
MAX_INTEGER = 2**63 - 1


class BadInputError(Exception):
    """The request cannot be understood."""


def error_response(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, answering in JSON instead of HTML."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return error_response(403, f"{reason} Reload the page and try again.")


def _checked_for_csrf(request: HttpRequest) -> HttpResponseBase | None:
    check = _CsrfCheck(lambda _request: HttpResponse())
    check.process_request(request)
    return check.process_view(request, lambda _request: HttpResponse(), (), {})


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (BadInputError, 400),
    (ReasonError, 400),
    (NotAllowedError, 403),
    (UnknownPartitionError, 404),
    (UnknownWorkerError, 404),
    (RefusedError, 409),
    (ServiceUnavailableError, 503),
)


def api_view(*methods: str) -> Callable[[View], View]:
    """Method, CSRF, login, permission to look, and errors as JSON: in this order, the same for every view."""

    def decorate(view: View) -> View:
        # Exempt from the middleware only because the same check is made here, with an answer the page can read.
        @csrf_exempt
        @never_cache
        @wraps(view)
        def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method not in methods:
                return error_response(405, f"Use {' or '.join(methods)} here.")
            try:
                return _checked_for_csrf(request) or _refused_reader(request) or view(request, *args, **kwargs)
            except DATABASE_LOST:
                return error_response(503, "The database does not answer. Nothing is known to have changed; try again.")
            except tuple(kind for kind, _ in _STATUS) as error:
                return error_response(next(status for kind, status in _STATUS if isinstance(error, kind)), str(error))

        return wrapped

    return decorate


def _refused_reader(request: HttpRequest) -> HttpResponse | None:
    if not request.user.is_authenticated:
        return error_response(403, "Log in first.")
    if not can_view(request.user):
        return error_response(403, f"{request.user.get_username()} may not see this. Ask for the group 'viewer'.")
    return None


# --- Views ----------------------------------------------------------------------------------------


@api_view("GET", "HEAD")
def snapshot(request: HttpRequest) -> HttpResponse:
    """What the websocket would send now."""
    return JsonResponse(dashboard_of(settings.ENGAGEMENT_GROUP).snapshot())


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
        return JsonResponse(_outcome(_apply_move(request, checkpoint_id, MoveKind(kind), body, reason)))
    action = pause.set_paused(
        _kind(kind),
        _known_id(checkpoint_id),
        actor=Actor.of_user(request.user),
        reason=reason,
        source=Source.API,
        seen=_seen(body.get("seen")),
    )
    return JsonResponse(_outcome(action))


@api_view("GET", "HEAD", "POST")
def undo_action(request: HttpRequest, action_id: int) -> HttpResponse:
    """What taking an action back would do; with POST and a reason, take it back."""
    actor = Actor.of_user(request.user)
    undone = undo.find(str(action_id))
    if request.method != "POST":
        return JsonResponse({"action_id": action_id, "texts": undo.texts(undone, actor)})
    done = undo.undo(undone, actor=actor, reason=reason_of(body_of(request)), source=Source.API)
    return JsonResponse(_outcome(done[0]))


@api_view("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
def not_found(request: HttpRequest) -> HttpResponse:
    """Any other path below /api/: an answer in JSON there too."""
    return error_response(404, "There is nothing at this address.")


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process answers and reaches its database. Says nothing else: anybody may ask."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DATABASE_LOST:
        return JsonResponse({"status": "error", "database": "unavailable"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


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


def _outcome(action: OperatorAction) -> dict[str, Any]:
    return {
        "outcome": action.outcome,
        "action_id": action.pk,
        "kind": action.kind,
        "checkpoint_id": action.checkpoint_id,
        "target": action.target,
        "detail": action.detail,
        "before": action.before,
        "after": action.after,
    }


def reason_of(body: dict[str, Any]) -> str:
    reason = body.get("reason", "")
    if not isinstance(reason, str) or postgres_text(reason) != reason.replace("\x00", "\\0"):
        raise BadInputError("`reason` must be text.")
    return reason


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


def body_of(request: HttpRequest) -> dict[str, Any]:
    """The request's JSON object, or its form with the fields of `seen` beside the reason."""
    if request.content_type == "application/json":
        try:
            body = json.loads(request.body)
        except RequestDataTooBig:
            raise BadInputError("The body is too large.") from None
        except (ValueError, RecursionError):
            raise BadInputError("The body is not valid JSON.") from None
        if not isinstance(body, dict):
            raise BadInputError("The body must be a JSON object: {reason, seen: {epoch, owner, desired_state}}.")
        return body
    form = request.POST
    epoch = form.get("epoch", "")
    seen = {
        "epoch": int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 20 else None,
        "owner": form.get("owner") or None,
        "desired_state": form.get("desired_state"),
    }
    return {"reason": form.get("reason", ""), "seen": seen}


def _seen(value: Any) -> Seen:
    if isinstance(value, dict):
        epoch, owner, state = value.get("epoch"), value.get("owner"), value.get("desired_state")
        at = value.get("next_offset")
        named = (owner is None or isinstance(owner, str)) and (at is None or type(at) is int)
        if named and type(epoch) is int and isinstance(state, str):
            return Seen(epoch, owner, state, at)
    raise BadInputError("`seen` must hold epoch, owner (or null) and desired_state, as the preview gave them.")
