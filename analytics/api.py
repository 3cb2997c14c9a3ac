"""The page's HTTP interface. Always JSON; an `error` says what to do, and then nothing was changed."""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from analytics.dashboard import dashboard_of
from offsets.errors import NotAllowedError, RefusedError, ServiceUnavailableError
from offsets.models import OperatorAction
from offsets.permissions import can_view
from offsets.recovery import actions
from offsets.recovery.actions import ActionKind, Actor, ReasonError, Seen, Source, UnknownPartitionError

View = Callable[..., HttpResponseBase]
MAX_INTEGER = 2**63 - 1


class BadInputError(Exception):
    """The request cannot be understood."""


def _error(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, answering in JSON instead of HTML."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return _error(403, f"{reason} Reload the page and try again.")


def _checked_for_csrf(request: HttpRequest) -> HttpResponseBase | None:
    check = _CsrfCheck(lambda _request: HttpResponse())
    check.process_request(request)
    return check.process_view(request, lambda _request: HttpResponse(), (), {})


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (BadInputError, 400),
    (ReasonError, 400),
    (NotAllowedError, 403),
    (UnknownPartitionError, 404),
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
                return _error(405, f"Use {' or '.join(methods)} here.")
            try:
                return _checked_for_csrf(request) or _refused_reader(request) or view(request, *args, **kwargs)
            except (OperationalError, InterfaceError):
                return _error(503, "The database does not answer. Nothing is known to have changed; try again.")
            except tuple(kind for kind, _ in _STATUS) as error:
                return _error(next(status for kind, status in _STATUS if isinstance(error, kind)), str(error))

        return wrapped

    return decorate


def _refused_reader(request: HttpRequest) -> HttpResponse | None:
    if not request.user.is_authenticated:
        return _error(403, "Log in first.")
    if not can_view(request.user):
        return _error(403, f"{request.user.get_username()} may not see this. Ask for the group 'viewer'.")
    return None


# --- Views ----------------------------------------------------------------------------------------


@api_view("GET", "HEAD")
def snapshot(request: HttpRequest) -> HttpResponse:
    """What the websocket would send now."""
    return JsonResponse(dashboard_of(settings.ENGAGEMENT_GROUP).snapshot())


@api_view("GET", "HEAD")
def preview(request: HttpRequest, checkpoint_id: int, kind: str) -> HttpResponse:
    """What an action would do, in words, and the `seen` that the POST must repeat."""
    shown = actions.preview(_kind(kind), _known_id(checkpoint_id), Actor.of_user(request.user))
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
    body = _body(request)
    reason = body.get("reason", "")
    if not isinstance(reason, str):
        raise BadInputError("`reason` must be text.")
    action = actions.apply(
        _kind(kind),
        _known_id(checkpoint_id),
        actor=Actor.of_user(request.user),
        reason=reason,
        source=Source.API,
        seen=_seen(body.get("seen")),
    )
    return JsonResponse(_outcome(action))


@api_view("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
def not_found(request: HttpRequest) -> HttpResponse:
    """Any other path below /api/: an answer in JSON there too."""
    return _error(404, "There is nothing at this address.")


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process answers and reaches its database. Says nothing else: anybody may ask."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError):
        return JsonResponse({"status": "error", "database": "unavailable"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


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


def _kind(text: str) -> ActionKind:
    try:
        return ActionKind(text)
    except ValueError:
        raise UnknownPartitionError(f"There is no action {text!r}; use pause or resume.") from None


def _known_id(checkpoint_id: int) -> int:
    """The path takes any digits; the database does not."""
    if checkpoint_id > MAX_INTEGER:
        raise UnknownPartitionError(f"There is no checkpoint {checkpoint_id}.")
    return checkpoint_id


def _body(request: HttpRequest) -> dict[str, Any]:
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
        if type(epoch) is int and (owner is None or isinstance(owner, str)) and isinstance(state, str):
            return Seen(epoch, owner, state)
    raise BadInputError("`seen` must hold epoch, owner (or null) and desired_state, as the preview gave them.")
